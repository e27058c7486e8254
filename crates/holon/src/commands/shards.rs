//! `holon shards`: asks a running server where slots are, and to move them.

use super::CommandError;
use crate::{
    cli::{ServerArgs, ShardsCommand},
    client::{Client, Sending},
};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Read as _, Write as _},
    process::ExitCode,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(500);
const SHARDS: &str = "/v1/admin/shards";

#[derive(Deserialize)]
struct Shards {
    sharded: bool,
    shards: Vec<Shard>,
    rules: Vec<Pinned>,
    moves: Vec<Move>,
}

#[derive(Deserialize)]
struct Shard {
    name: String,
    state: String,
    slots: u32,
    up: bool,
    rows: Option<u64>,
    bytes: Option<u64>,
    outbox: Option<u64>,
    replicas: Vec<Replica>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Replica {
    up: bool,
    lag_bytes: Option<u64>,
}

#[derive(Deserialize)]
struct Pinned {
    rule: serde_json::Map<String, Value>,
    slot: i32,
    shard: String,
    active: bool,
}

#[derive(Deserialize)]
struct Move {
    from: Option<String>,
    to: String,
    stage: String,
    slots: u32,
    rows: u64,
    bytes: u64,
    trouble: Option<String>,
}

#[derive(Deserialize)]
struct Asked {
    slots: u64,
}

struct Office {
    client: Client,
    token: String,
}

pub async fn run(command: ShardsCommand) -> Result<ExitCode, CommandError> {
    match command {
        ShardsCommand::List { server } => {
            let shards = Office::open(&server)?.list().await?;
            print!("{}", table(&shards));
            Ok(ExitCode::SUCCESS)
        }
        ShardsCommand::Add {
            name,
            url,
            replica,
            server,
        } => {
            let body = json!({"name": name, "url": typed(url)?, "replicas": replica});
            let office = Office::open(&server)?;
            office.ask(SHARDS, body, &format!("adding {name}")).await?;
            println!("{name} is there; `holon shards move --to {name}` gives it its share of slots");
            Ok(ExitCode::SUCCESS)
        }
        ShardsCommand::Move {
            to,
            from,
            count,
            slot,
            wait,
            server,
        } => {
            let slots = (!slot.is_empty()).then_some(slot);
            let body = json!({"to": to, "from": from, "count": count, "slots": slots});
            let office = Office::open(&server)?;
            let answer = office
                .ask(&format!("{SHARDS}/moves"), body, "moving slots")
                .await?;
            office.after(&answer, &format!("to {to}"), wait).await
        }
        ShardsCommand::Drain {
            name,
            to,
            wait,
            server,
        } => {
            let office = Office::open(&server)?;
            let path = format!("{SHARDS}/{name}/drain");
            let answer = office
                .ask(&path, json!({"to": to}), &format!("draining {name}"))
                .await?;
            office.after(&answer, &format!("off {name}"), wait).await
        }
        ShardsCommand::Pin {
            shard,
            partition,
            tenant,
            prefix,
            low,
            high,
            wait,
            server,
        } => {
            let parts = [
                ("tenant", tenant),
                ("partition", partition),
                ("prefix", prefix),
                ("low", low),
                ("high", high),
            ];
            let given = parts
                .into_iter()
                .filter_map(|(name, part)| Some((name.to_owned(), part?.into())));
            let rule: serde_json::Map<String, Value> = given.collect();
            let office = Office::open(&server)?;
            let path = format!("{SHARDS}/pins");
            let body = json!({"shard": shard, "rule": rule});
            let answer = office.ask(&path, body, "pinning").await?;
            office.after(&answer, &format!("to {shard}"), wait).await
        }
    }
}

/// What was typed, or what standard input says if that is `-`: command lines can be seen by others.
fn typed(url: String) -> Result<String, CommandError> {
    if url != "-" {
        return Ok(url);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

impl Office {
    fn open(server: &ServerArgs) -> Result<Self, CommandError> {
        Ok(Self {
            client: Client::new(&server.server, PATIENCE)?,
            token: server.token()?,
        })
    }

    async fn list(&self) -> Result<Shards, CommandError> {
        Ok(self.client.read(SHARDS, &self.token).await?)
    }

    /// All of these may be asked for twice.
    async fn ask(&self, path: &str, body: Value, what: &str) -> Result<Value, CommandError> {
        let sending = Sending {
            token: Some(&self.token),
            body: Some(&body),
            ..Sending::default()
        };
        let answer = self.client.call(Method::POST, path, sending).await?;
        Ok(answer.ok(what)?.json()?)
    }

    /// Says what was asked for, and waits until it is done if that is wanted.
    async fn after(&self, answer: &Value, whither: &str, wait: bool) -> Result<ExitCode, CommandError> {
        let asked: Asked = serde_json::from_value(answer.clone())?;
        if !wait {
            println!(
                "{} slots will move {whither}; `holon shards list` shows how far they are",
                asked.slots
            );
            return Ok(ExitCode::SUCCESS);
        }
        let terminal = std::io::stderr().is_terminal();
        let mut trouble = None;
        loop {
            let shards = self.list().await?;
            let is_draining = shards.shards.iter().any(|shard| shard.state == "draining");
            if shards.moves.is_empty() && !is_draining {
                break;
            }
            if terminal {
                eprint!("\r\x1b[2K{}", progress(&shards));
                let _ = std::io::stderr().flush();
            }
            let told = shards.moves.iter().find_map(|of| of.trouble.clone());
            if told != trouble {
                if let Some(told) = &told {
                    eprintln!("it does not go on, and is tried again: {told}");
                }
                trouble = told;
            }
            tokio::time::sleep(POLL).await;
        }
        if terminal {
            eprint!("\r\x1b[2K");
        }
        println!("{} slots moved {whither}", asked.slots);
        Ok(ExitCode::SUCCESS)
    }
}

fn progress(shards: &Shards) -> String {
    let waiting = shards.moves.iter().filter(|of| of.stage == "waiting");
    let waiting: u32 = waiting.map(|of| of.slots).sum();
    match shards.moves.iter().find(|of| of.stage != "waiting") {
        Some(of) => format!(
            "{} slots {} to {}, {} rows, {}; {waiting} wait",
            of.slots,
            of.stage,
            of.to,
            of.rows,
            size(of.bytes)
        ),
        None if waiting > 0 => format!("{waiting} slots wait"),
        None => "events are being told".into(),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1_000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

fn table(of: &Shards) -> String {
    if !of.sharded {
        return "no shards: this server keeps everything in its data directory\n".into();
    }
    let mut text = format!(
        "{:<16} {:<9} {:>6} {:>11} {:>9} {:>7}  REPLICAS\n",
        "SHARD", "STATE", "SLOTS", "ROWS", "SIZE", "OUTBOX"
    );
    let number = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    for shard in &of.shards {
        let state = match (shard.state.as_str(), shard.up) {
            ("retired", _) | (_, true) => shard.state.as_str(),
            (_, false) => "away",
        };
        let replicas = shard
            .replicas
            .iter()
            .map(|replica| match (replica.up, replica.lag_bytes) {
                (true, Some(lag)) => format!("{} behind", size(lag)),
                (true, None) => "up".into(),
                (false, _) => "away".into(),
            });
        let replicas: Vec<String> = replicas.collect();
        let _ = writeln!(
            text,
            "{:<16} {state:<9} {:>6} {:>11} {:>9} {:>7}  {}",
            shard.name,
            shard.slots,
            number(shard.rows),
            shard.bytes.map_or("-".into(), size),
            number(shard.outbox),
            replicas.join(", ")
        );
    }
    for rule in &of.rules {
        let parts = rule
            .rule
            .iter()
            .map(|(name, part)| format!("{name} {}", part.as_str().unwrap_or("")));
        let parts: Vec<String> = parts.collect();
        let state = if rule.active { "pinned" } else { "gathering" };
        let _ = writeln!(
            text,
            "{state}: {} on {} (slot {})",
            parts.join(", "),
            rule.shard,
            rule.slot
        );
    }
    for of in &of.moves {
        let from = of.from.as_deref().unwrap_or("all");
        let _ = write!(
            text,
            "{}: {} slots from {from} to {}, {} rows, {}",
            of.stage,
            of.slots,
            of.to,
            of.rows,
            size(of.bytes)
        );
        let _ = match &of.trouble {
            Some(trouble) => writeln!(text, "; {trouble}"),
            None => writeln!(text),
        };
    }
    text
}
