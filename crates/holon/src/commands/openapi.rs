//! `holon openapi`: the document, without a data directory.

use super::CommandError;
use crate::{
    admin::{Admin, Parts},
    cluster::own_facts,
    jobs::Holder,
    node::Node,
    serve,
    settings::Settings,
};
use holon_cluster::Cluster;
use holon_telemetry::{Metrics, Tracer, TracerOptions};
use std::sync::Arc;

/// Makes every system in a directory that goes away again, and asks for their document.
pub async fn document(settings: Settings) -> Result<String, CommandError> {
    let directory = tempfile::tempdir()?;
    let settings = Settings {
        data: directory.path().join("data"),
        rate_limit: false,
        ..settings
    };
    let node = Node::open(&settings, None).await?;
    let (metrics, tracer) = (Metrics::new(), Tracer::new(TracerOptions::default()));
    let admin = Admin::new(Parts {
        node: settings.node,
        started: node.context.clock.now(),
        systems: node.systems.clone(),
        consumers: Vec::new(),
        ports: node.context.ports.clone(),
        engines: Arc::clone(&node.engines),
        cursors: node.context.cursors.clone(),
        hub: Arc::clone(&node.hub),
        metrics: Arc::clone(&metrics),
        tracer: tracer.clone(),
        holder: Holder::new(
            Arc::clone(&node.context.ports.leases),
            settings.node,
            &*node.context.clock,
        ),
        cluster: Cluster::alone(
            own_facts(&settings, &node, settings.listen),
            Arc::clone(&node.context.clock),
        ),
        jobs: Vec::new(),
    });
    let app = serve::app(&settings, &node, &admin, &metrics, &tracer).await?;
    let document = serde_json::to_string_pretty(app.document())?;
    node.engines.close().await;
    Ok(document + "\n")
}
