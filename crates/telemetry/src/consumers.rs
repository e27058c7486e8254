//! Watching consumers: how far each group is, and a span for what each handles.

use crate::{
    metrics::{ConsumerFigures, Metrics},
    trace::{SpanContext, SpanKind, Tracer},
};
use async_trait::async_trait;
use holon_base::Clock;
use holon_ports::{Consumer, Event, Handler, HandlerError, Log};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// How often the lag of every group is read.
pub const PERIOD: Duration = Duration::from_secs(1);
/// Dead letters are counted up to here.
const DEAD_LETTERS_COUNTED: usize = 1_000;

/// Reads how far each (group, topic) is into the metrics, once a second, until `stop` turns true.
pub async fn watch_consumers(
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    groups: Vec<(&'static str, &'static str)>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        for (group, topic) in &groups {
            match figures(&*log, &*clock, group, topic).await {
                Ok(figures) => metrics.set_consumer(group, topic, figures),
                Err(error) => tracing::warn!(group, topic, %error, "cannot read how far a consumer is"),
            }
        }
        if tokio::time::timeout(PERIOD, stop.wait_for(|stop| *stop))
            .await
            .is_ok()
        {
            return;
        }
    }
}

async fn figures(
    log: &dyn Log,
    clock: &dyn Clock,
    group: &str,
    topic: &str,
) -> Result<ConsumerFigures, holon_ports::LogError> {
    let progress = log.progress(group, topic).await?;
    let lag = progress.iter().map(|p| p.next.saturating_sub(p.committed)).sum();
    let oldest = progress.iter().filter_map(|p| p.oldest).min();
    let dead = log.dead_letters(group, topic, 0, DEAD_LETTERS_COUNTED).await?;
    Ok(ConsumerFigures {
        lag,
        oldest_seconds: oldest.map_or(0.0, |oldest| clock.now().since(oldest).as_secs_f64()),
        dead_letters: dead.len() as u64,
    })
}

/// The same consumer, with a span below the event's trace for each batch it handles. A batch of several traces
/// belongs to the first recorded one and is linked to the others.
pub fn traced(mut consumer: Consumer, tracer: &Tracer) -> Consumer {
    let handler = Traced {
        group: consumer.group,
        handler: consumer.handler,
        tracer: tracer.clone(),
    };
    consumer.handler = Arc::new(handler);
    consumer
}

struct Traced {
    group: &'static str,
    handler: Arc<dyn Handler>,
    tracer: Tracer,
}

#[async_trait]
impl Handler for Traced {
    async fn handle(&self, events: &[Event]) -> Result<(), HandlerError> {
        let mut contexts = events
            .iter()
            .filter_map(|event| event.traceparent.as_deref().and_then(SpanContext::parse))
            .filter(|context| context.sampled);
        let Some(parent) = contexts.next() else {
            return self.handler.handle(events).await;
        };
        let mut span = self.tracer.start(
            format!("consume {}", self.group),
            SpanKind::Consumer,
            Some(parent),
        );
        contexts.for_each(|context| span.link(context));
        span.attribute("messaging.consumer.group.name", self.group);
        span.attribute("messaging.batch.message_count", events.len().to_string());
        if let Some(event) = events.first() {
            span.attribute("messaging.message.type", event.kind.clone());
        }
        let handled = span.run(self.handler.handle(events)).await;
        if handled.is_err() {
            span.fail();
        }
        handled
    }
}
