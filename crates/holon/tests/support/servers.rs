//! The servers that a node may be on, and nodes on them.
#![allow(dead_code, reason = "no test uses all of it")]

use crate::support::{Server, holon};
use holon_testkit::{NatsServer, PostgresServer, RedisServer, S3Server};
use std::{path::Path, process::Command};

pub const SECRET: &str = "engines.secret=a-secret-of-the-test-that-has-32-bytes";

/// Everything that two nodes share.
pub struct Servers {
    pub postgres: [PostgresServer; 2],
    pub nats: NatsServer,
    pub redis: RedisServer,
    pub s3: S3Server,
}

impl Servers {
    pub async fn start() -> Self {
        let (one, two, nats, redis, s3) = tokio::join!(
            PostgresServer::start(),
            PostgresServer::start(),
            NatsServer::start(),
            RedisServer::start(),
            S3Server::start()
        );
        Self {
            postgres: [one, two],
            nats,
            redis,
            s3,
        }
    }

    /// Tells a node of all of them, with tiers so low that all are in play.
    fn configure(&self, node: u16, command: &mut Command) {
        let [one, two] = &self.postgres;
        let settings = [
            format!("node={node}"),
            format!("engines.postgres=a={},b={}", one.url(), two.url()),
            format!("engines.nats={}", self.nats.url()),
            format!("engines.redis={}", self.redis.url()),
            format!("engines.s3_endpoint={}", self.s3.endpoint()),
            format!("engines.s3_bucket={}", self.s3.bucket()),
            format!("engines.s3_access_key={}", self.s3.access_key_id()),
            format!("engines.s3_secret_key={}", self.s3.secret_access_key()),
            "rate_limit.enabled=false".into(),
            "feed.push_below=4".into(),
            "feed.active_below=60".into(),
        ];
        for setting in settings {
            command.args(["--set", &setting]);
        }
    }

    /// What is to be refused.
    pub fn command(&self, node: u16, data: &Path, secret: &str) -> Command {
        let mut command = holon();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data);
        self.configure(node, &mut command);
        command.args(["--set", secret]);
        command
    }

    pub fn node(&self, node: u16, data: &Path) -> Server {
        self.node_with(node, data, &[])
    }

    pub fn node_with(&self, node: u16, data: &Path, settings: &[&str]) -> Server {
        Server::start_with(data, "127.0.0.1:0", |command| {
            self.configure(node, command);
            for setting in [SECRET].iter().chain(settings) {
                command.args(["--set", setting]);
            }
        })
    }
}
