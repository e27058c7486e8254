//! `holon rebuild`: asks a running server to make a projection anew, and waits.

use super::CommandError;
use crate::{
    cli::ServerArgs,
    client::{Client, Sending},
};
use http::Method;
use serde::Deserialize;
use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
struct Rebuild {
    state: String,
    detail: String,
}

pub async fn run(name: &str, server: ServerArgs) -> Result<ExitCode, CommandError> {
    let token = server.token()?;
    let client = Client::new(&server.server, PATIENCE)?;
    let path = format!("/v1/admin/rebuild/{name}");
    let sending = Sending {
        token: Some(&token),
        ..Sending::default()
    };
    let what = format!("rebuild of {name}");
    client.call(Method::POST, &path, sending).await?.ok(&what)?;
    let (began, terminal) = (Instant::now(), std::io::stderr().is_terminal());
    loop {
        let rebuild: Rebuild = client.read(&path, &token).await?;
        if rebuild.state == "running" {
            if terminal {
                eprint!("\r\x1b[2K{what}: {} s", began.elapsed().as_secs());
                let _ = std::io::stderr().flush();
            }
            tokio::time::sleep(POLL).await;
            continue;
        }
        if terminal {
            eprint!("\r\x1b[2K");
        }
        println!("{name}: {}, {}", rebuild.state, rebuild.detail);
        return Ok(match rebuild.state.as_str() {
            "done" => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        });
    }
}
