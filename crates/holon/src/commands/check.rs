//! `holon check`: verifies a data directory that no server uses.

use super::CommandError;
use crate::{import::grouped, node::Node, settings::Settings};
use holon_ports::{Ports, StoreError};
use std::process::ExitCode;

/// Rows or events read at once.
const BATCH: usize = 1_000;

/// Reads everything, which checks its checksums, and asks each system about its references and projections.
pub async fn run(settings: Settings) -> Result<ExitCode, CommandError> {
    if settings.postgres.is_empty() && !settings.data.is_dir() {
        return Err(format!("there is no data directory {}", settings.data.display()).into());
    }
    let node = Node::open(&settings, None, None).await?;
    let mut findings = Vec::new();
    let (mut rows, mut events) = (0, 0);
    for system in &node.systems {
        for table in system.tables() {
            match read_table(&node.context.ports, table).await {
                Ok(count) => rows += count,
                Err(error) => findings.push(format!("table {}: {error}", table.0)),
            }
        }
        for topic in system.topics() {
            for partition in 0..topic.partitions {
                match read_partition(&node.context.ports, topic.name, partition).await {
                    Ok(count) => events += count,
                    Err(error) => findings.push(format!("topic {}/{partition}: {error}", topic.name)),
                }
            }
        }
        match system.check().await {
            Ok(lines) => findings.extend(lines.iter().map(|line| format!("{}: {line}", system.name()))),
            Err(error) => findings.push(format!("{}: cannot be checked: {error}", system.name())),
        }
    }
    node.engines.close().await;
    for finding in &findings {
        println!("{finding}");
    }
    let place = match settings.postgres.is_empty() {
        true => settings.data.display().to_string(),
        false => "servers".to_owned(),
    };
    let read = format!("{} rows and {} events", grouped(rows), grouped(events));
    if findings.is_empty() {
        println!("{place}: {read}, all in order");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{place}: {read}, {} findings", grouped(findings.len()));
    Ok(ExitCode::FAILURE)
}

async fn read_table(ports: &Ports, table: holon_ports::Table) -> Result<usize, StoreError> {
    let (mut count, mut cursor) = (0, None);
    loop {
        let (rows, next) = ports.store.walk(table, cursor, BATCH).await?;
        count += rows.len();
        match next {
            Some(next) => cursor = Some(next),
            None => return Ok(count),
        }
    }
}

/// Reads a partition of a topic, whose offsets must have no gaps.
async fn read_partition(ports: &Ports, topic: &str, partition: u16) -> Result<usize, String> {
    let bounds = ports
        .log
        .bounds(topic, partition)
        .await
        .map_err(|error| error.to_string())?;
    let mut expected = bounds.first;
    while expected < bounds.next {
        let events = ports
            .log
            .read(topic, partition, expected, BATCH)
            .await
            .map_err(|error| error.to_string())?;
        for event in &events {
            if event.position.offset != expected {
                return Err(format!("event {expected} is missing"));
            }
            expected += 1;
        }
        if events.is_empty() {
            return Err(format!("event {expected} is missing"));
        }
    }
    Ok((bounds.next - bounds.first) as usize)
}
