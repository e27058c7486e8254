//! What the demo's data costs: memory, time to start, time to import.

use crate::{
    Setting,
    commits::now,
    machine::crate_version,
    outcome::{Line, Outcome, Sample, Verdict},
    social::Holon,
};
use anyhow::Result;
use std::{collections::BTreeMap, path::Path, time::Duration};

pub async fn run(setting: &Setting) -> Result<Outcome> {
    let imported = setting.imported().await?;
    let mut import = Line::new("import and fan-out caught up", "s");
    import.push(
        Sample::new(imported.import.as_secs_f64())
            .with("accounts", imported.graph.accounts() as f64)
            .with("posts", imported.graph.texts.len() as f64),
    );
    let mut after_import = Line::new("resident after the import", "MB");
    after_import.push(Sample::new(megabytes(imported.resident)));
    let mut disk = Line::new("data directory", "MB");
    disk.push(Sample::new(megabytes(size(&imported.data())?)));
    let mut ready = Line::new("start to ready", "s");
    let mut restarted = Line::new("resident after a restart", "MB");
    for round in 0..setting.rounds {
        tracing::info!(round, "footprint");
        let holon = Holon::start(&imported.data()).await?;
        ready.push(Sample::new(holon.ready.as_secs_f64()));
        holon.site.caught_up().await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        restarted.push(Sample::new(megabytes(holon.resident()?)));
        holon.stop().await?;
    }
    let verdicts = vec![
        Verdict::ceiling("resident after the import", &after_import, 150.0),
        Verdict::ceiling("resident after a restart", &restarted, 150.0),
        Verdict::ceiling("start to ready", &ready, 1.0),
    ];
    Ok(Outcome {
        scenario: "footprint".into(),
        title: "Memory, start and import with the demo's data".into(),
        method: vec![
            "`holon import social --wait` brings the demo's graph and posts into an empty data directory, over HTTP; its time is \
             from the start of that command to its end, when the fan-out has caught up. It runs once."
                .into(),
            "Resident memory is `VmRSS` of `holon serve` with its defaults, two seconds after the import has caught up, and two \
             seconds after a restart; 1 MB is 1,000,000 bytes."
                .into(),
            "Start to ready is from starting the process on that data to the first 200 of `/readyz`, after an orderly stop.".into(),
        ],
        caveats: vec!["The data is in the operating system's page cache at a restart.".into()],
        recorded: now(),
        machine: setting.machine.clone(),
        versions: BTreeMap::from([("fjall".into(), crate_version("fjall"))]),
        lines: vec![import, after_import, restarted, ready, disk],
        verdicts,
    })
}

pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Bytes of all files below a directory.
pub fn size(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() {
            size(&entry.path())?
        } else {
            about.len()
        };
    }
    Ok(bytes)
}
