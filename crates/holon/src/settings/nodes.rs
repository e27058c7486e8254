//! What a node does among others, and what all nodes must have in common.

use super::{SETTINGS, Settings, SettingsError};
use std::collections::BTreeMap;

/// What a node can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Api,
    Workers,
    Relay,
}

/// Every role by its name.
pub const ROLES: [&str; 3] = ["api", "workers", "relay"];

impl Role {
    pub fn name(self) -> &'static str {
        ROLES[self as usize]
    }
}

impl Settings {
    pub fn has(&self, role: Role) -> bool {
        self.roles.iter().any(|name| name == role.name())
    }
}

/// What makes a deployment what it is: with two values of one of these, nodes would undo or contradict each other's work.
/// The secret is among them, and is compared by itself, without being shown. Addresses of servers are not, since a server
/// can have several.
const SHARED: [&str; 18] = [
    "engines.nats_replicas",
    "engines.s3_bucket",
    "engines.prefix",
    "web.cors_origins",
    "rate_limit.enabled",
    "rate_limit.per_second",
    "rate_limit.burst",
    "rate_limit.address_per_second",
    "rate_limit.address_burst",
    "identity.open_sign_up",
    "identity.secure_cookies",
    "identity.access_token_time",
    "identity.session_idle",
    "feed.push_below",
    "feed.active_below",
    "feed.active_within",
    "feed.timeline_entries",
    "feed.edit_window",
];

/// The settings that all nodes must have in common, each with its value as text. No secret is among them.
pub fn shared(settings: &Settings) -> BTreeMap<String, String> {
    SETTINGS
        .iter()
        .filter(|setting| SHARED.contains(&setting.key) && !setting.is_secret)
        .map(|setting| (setting.key.to_owned(), (setting.show)(settings)))
        .collect()
}

pub(super) fn check(settings: &Settings) -> Result<(), SettingsError> {
    let refuse = |key: &str, text: String, expected: &str| {
        Err(SettingsError::Value {
            origin: "settings".into(),
            key: key.into(),
            text,
            expected: expected.into(),
        })
    };
    let roles = &settings.roles;
    if roles.is_empty() || roles.iter().any(|role| !ROLES.contains(&role.as_str())) {
        return refuse("roles", roles.join(","), "expected some of api, workers, relay");
    }
    if settings.postgres.is_empty() && ROLES.iter().any(|role| !roles.iter().any(|has| has == role)) {
        return refuse(
            "roles",
            roles.join(","),
            "expected every role in a data directory, since no other process can have it; leave the setting out",
        );
    }
    let has_port = |seed: &&String| {
        seed.rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    if let Some(seed) = settings.cluster_seeds.iter().find(|seed| !has_port(seed)) {
        return refuse(
            "cluster.seeds",
            seed.clone(),
            "expected host:port of other nodes, with commas between",
        );
    }
    Ok(())
}
