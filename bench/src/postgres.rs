//! Durable commits of one row on PostgreSQL: the engine through the Store port, and pgbench with plain `INSERT`s of the
//! same rows into a relation of the same shape, on the same server.

use crate::{
    Setting,
    commits::{TABLE, WRITERS, check_last, now, sample, write_all},
    machine::version_of,
    outcome::{Line, Outcome, Sample, Verdict},
    rows::{DOCUMENT_BYTES, documents},
};
use anyhow::{Context as _, Result, ensure};
use holon_postgres::{Postgres, PostgresOptions, ShardOptions};
use holon_testkit::{PostgresServer, find_program};
use std::{collections::BTreeMap, path::Path, time::Duration};
use tokio::process::Command;

/// The aim of the issue that asked for the engine.
const AIM: f64 = 0.7;

pub async fn run(setting: &Setting) -> Result<Outcome> {
    let server = PostgresServer::start().await;
    let mut holon = Line::new("Holon, PostgreSQL engine", "commits/s");
    let mut pgbench = Line::new("pgbench, INSERT", "commits/s");
    for round in 0..setting.rounds {
        tracing::info!(round, "postgres");
        let ours = server.create_database(&format!("holon{round}")).await;
        holon.push(through_the_port(&ours, setting.duration).await?);
        let theirs = server.create_database(&format!("plain{round}")).await;
        pgbench.push(through_pgbench(&theirs, &setting.work, setting.duration).await?);
    }
    let verdicts = vec![Verdict::ratio("Holon over pgbench", &holon, &pgbench, AIM)];
    Ok(Outcome {
        scenario: "postgres".into(),
        title: "Durable commits of one row on PostgreSQL, 64 concurrent writers".into(),
        method: vec![
            format!(
                "{WRITERS} writers each commit one new row at a time, a JSON document of {DOCUMENT_BYTES} bytes, wait until it \
                 is durable, and go on, for {:.1} s a round into an empty database of one server with `fsync` and \
                 `synchronous_commit` on.",
                setting.duration.as_secs_f64()
            ),
            "Holon: tasks that call `Store::commit` of the PostgreSQL engine with its default options (two lanes).".into(),
            format!(
                "pgbench: `--client={WRITERS} --jobs=2 --protocol=prepared`, each `INSERT` a transaction of its own, into the \
                 relation that the engine makes for the same table: the same columns (the document as `jsonb` and as bytes), the \
                 same indexes, versions from the same sequence."
            ),
            "After each run the rows are counted (pgbench), or every writer's last row is read (Holon).".into(),
        ],
        caveats: vec![
            "pgbench holds a connection for each writer and sends nothing but the statement; Holon's commit also checks slots, the \
             fence of the directory and locks the partition, and groups what waits into one call."
                .into(),
            "Writers and server share the cores.".into(),
        ],
        recorded: now(),
        machine: setting.machine.clone(),
        versions: BTreeMap::from([("PostgreSQL".into(), version()?)]),
        lines: vec![holon, pgbench],
        verdicts,
    })
}

pub fn version() -> Result<String> {
    let program = find_program("postgres", "postgresql")?;
    version_of(&program.to_string_lossy(), "--version")
}

async fn through_the_port(url: &str, duration: Duration) -> Result<Sample> {
    let engine = Postgres::connect(PostgresOptions::new(vec![ShardOptions::new("main", url)])).await?;
    let store = engine.store();
    let (times, written, elapsed) = write_all(&store, duration).await?;
    check_last(&*store, &written).await?;
    engine.close().await;
    Ok(sample(times, elapsed))
}

async fn through_pgbench(url: &str, work: &Path, duration: Duration) -> Result<Sample> {
    // The engine makes the relation, so that it is the same.
    let engine = Postgres::connect(PostgresOptions::new(vec![ShardOptions::new("main", url)])).await?;
    engine.store().create_tables(&[TABLE]).await?;
    engine.close().await;

    let script = tempfile::NamedTempFile::new_in(work)?;
    let document = documents()[0].clone();
    let document = std::str::from_utf8(&document)?;
    std::fs::write(
        script.path(),
        format!(
            "INSERT INTO holon.\"{}\" (tenant, entity, sort, slot, kind, json, bytes, version) VALUES ('main', 'writer:' || \
             :client_id, int8send(nextval('numbers')), 0, 0, '{document}'::jsonb, '{document}'::bytea, \
             nextval('holon.versions'));\n",
            TABLE.0
        ),
    )?;
    psql(url, "CREATE SEQUENCE numbers CACHE 1000").await?;
    // What the server's background writer does for the run before is not this one's.
    psql(url, "CHECKPOINT").await?;
    let output = Command::new(find_program("pgbench", "postgresql")?)
        .args(["--no-vacuum", "--jobs=2", "--protocol=prepared"])
        .arg(format!("--client={WRITERS}"))
        .arg(format!("--time={}", duration.as_secs().max(1)))
        .arg("--file")
        .arg(script.path())
        .arg(url)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "pgbench failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let figure = |name: &str| -> Result<f64> {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|rest| rest.split_whitespace().next());
        word.and_then(|word| word.split('/').next()?.parse().ok())
            .with_context(|| format!("pgbench does not say {name:?}"))
    };
    let committed = figure("number of transactions actually processed: ")?;
    let rows = psql(url, &format!("SELECT count(*) FROM holon.\"{}\"", TABLE.0)).await?;
    ensure!(
        rows.trim().parse::<f64>()? == committed,
        "pgbench committed {committed} rows, and {} are there",
        rows.trim()
    );
    Ok(Sample::new(figure("tps = ")?).with("mean ms", figure("latency average = ")?))
}

async fn psql(url: &str, sql: &str) -> Result<String> {
    let output = Command::new(find_program("psql", "postgresql")?)
        .args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--dbname",
            url,
            "--command",
            sql,
        ])
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "psql failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
