//! One request, one trace: from the edge into the commit it makes, across the log and into the consumer.

mod common;

use async_trait::async_trait;
use axum::{Router, extract::State};
use common::post;
use holon_base::Tenant;
use holon_ports::{
    Batch, Consumer, Event, Handler, HandlerError, NewEvent, Partition, Store, Table, TopicSpec,
};
use holon_telemetry::{Metrics, SpanKind, SpanRecord, TracedStore, Tracer, TracerOptions, consumers::traced};
use holon_testkit::{PATIENCE, TestHome, eventually};
use holon_web::{ApiError, AppBuilder, AppOptions, Routes};
use std::sync::Arc;
use utoipa::openapi::OpenApi;
use utoipa_axum::routes;

const TABLE: Table = Table("toy.things");
const COPIES: Table = Table("toy.copies");
const TOPIC: TopicSpec = TopicSpec {
    name: "toy.things",
    partitions: 2,
    max_age: None,
    max_bytes: None,
};

#[utoipa::path(post, path = "/v1/toy/things", operation_id = "createThing", responses((status = 200, description = "Made.")))]
async fn create(State(store): State<Arc<dyn Store>>) -> Result<(), ApiError> {
    let tenant = Tenant::default();
    let event = NewEvent::new(
        TOPIC.name,
        &tenant,
        "1",
        "toy.thing.created.v1",
        "thing:1",
        "data",
    );
    let batch = Batch::new().put(TABLE, "1", "thing").event(event);
    store.commit(&Partition::new(&tenant, "thing:1"), batch).await?;
    Ok(())
}

fn routes(store: Arc<dyn Store>) -> (Router, OpenApi) {
    Routes::new().public(routes!(create)).finish(store)
}

/// Writes a copy of each event, so that there is a commit below the consumer too.
struct Copy(Arc<dyn Store>);

#[async_trait]
impl Handler for Copy {
    async fn handle(&self, events: &[Event]) -> Result<(), HandlerError> {
        for event in events {
            let batch = Batch::new().put(COPIES, "1", "copy");
            self.0
                .commit(&Partition::new(&event.tenant, "copies"), batch)
                .await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_request_is_one_trace_down_to_what_its_consumers_do() {
    let mut home = TestHome::start().await;
    home.create(&[TABLE, COPIES], &[TOPIC]).await;
    let tracer = Tracer::new(TracerOptions {
        sample: 1.0,
        ..TracerOptions::default()
    });
    let store: Arc<dyn Store> = Arc::new(TracedStore::new(
        Arc::clone(&home.context().ports.store),
        tracer.clone(),
    ));
    let app = AppBuilder::new(AppOptions::default())
        .telemetry(Metrics::new(), tracer.clone())
        .routes("toy", "A system to test with.", routes(Arc::clone(&store)))
        .build()
        .unwrap();
    let consumer = Consumer::new("toy.copy", TOPIC.name, Arc::new(Copy(store)));
    home.run(vec![traced(consumer, &tracer)]);

    let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = post(&app.router(), "/v1/toy/things", &[("traceparent", caller)], "").await;
    assert_eq!(answer.status, 200);
    let trace_id = u128::from_str_radix(&caller[3..35], 16).unwrap();
    let spans = eventually("four spans", PATIENCE, || async {
        let spans = tracer.trace(trace_id);
        (spans.len() == 4).then_some(spans)
    })
    .await;
    let find = |kind: SpanKind, parent: u64| -> Arc<SpanRecord> {
        let found = spans
            .iter()
            .find(|span| span.kind == kind && span.parent == Some(parent));
        Arc::clone(found.unwrap_or_else(|| panic!("no {kind:?} below {parent:x} in {spans:#?}")))
    };
    let request = find(SpanKind::Server, 0xb7ad_6b71_6920_3331);
    assert_eq!(request.name, "POST /v1/toy/things");
    assert!(
        answer
            .header("traceparent")
            .contains(&format!("{:016x}", request.context.span_id))
    );
    let _commit = find(SpanKind::Client, request.context.span_id);
    let consumed = find(SpanKind::Consumer, request.context.span_id);
    assert_eq!(consumed.name, "consume toy.copy");
    let _its_commit = find(SpanKind::Client, consumed.context.span_id);
}
