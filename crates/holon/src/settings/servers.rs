//! Whether the settings of servers are whole: all of them, or none.

use super::{Settings, SettingsError};

/// The fewest bytes that a deployment's secret may have.
const SECRET_BYTES: usize = 32;

/// The largest number of a node on servers, where each has a second one above it.
const LAST_NODE: u16 = crate::engines::EVENT_NODES - 1;

/// Refuses what is missing, by its name.
pub(super) fn check(settings: &Settings) -> Result<(), SettingsError> {
    let refuse = |key: &str, expected: String| {
        Err(SettingsError::Value {
            origin: "settings".into(),
            key: key.into(),
            text: "(not set)".into(),
            expected,
        })
    };
    let servers = [
        (
            "engines.postgres",
            &settings.postgres,
            "name=postgres://user:password@host:5432/database",
        ),
        ("engines.nats", &settings.nats, "nats://host:4222"),
        ("engines.redis", &settings.redis, "redis://host:6379"),
    ];
    let given = servers.iter().find(|(_, urls, _)| !urls.is_empty());
    let s3 = [
        ("engines.s3_endpoint", settings.s3_endpoint.is_some()),
        ("engines.s3_bucket", settings.s3_bucket.is_some()),
        ("engines.s3_access_key", settings.s3_access_key.is_some()),
        ("engines.s3_secret_key", settings.s3_secret_key.is_some()),
    ];
    let given_of_s3 = s3.iter().find(|(_, is_set)| *is_set);
    if let Some((given_s3, _)) = given_of_s3
        && given.is_none()
    {
        let expected =
            format!("expected servers, since {given_s3} is set: blobs on S3 have their rows there");
        return refuse("engines.postgres", expected);
    }
    if given.is_none() && !settings.postgres_replicas.is_empty() {
        let expected = "expected the shards whose standbys engines.postgres_replicas names".to_owned();
        return refuse("engines.postgres", expected);
    }
    let Some((given, ..)) = given else {
        return Ok(());
    };
    for (key, urls, example) in &servers {
        if urls.is_empty() {
            let expected =
                format!("expected {example}, since {given} is set: a node runs on all three or on none");
            return refuse(key, expected);
        }
    }
    if let Some((given_s3, _)) = given_of_s3
        && let Some((missing, _)) = s3.iter().find(|(_, is_set)| !is_set)
    {
        return refuse(missing, format!("expected a value, since {given_s3} is set"));
    }
    let is_long = |secret: &super::Secret| secret.expose().len() >= SECRET_BYTES;
    if !settings.secret.as_ref().is_some_and(is_long) {
        return Err(SettingsError::Value {
            origin: "settings".into(),
            key: "engines.secret".into(),
            text: if settings.secret.is_some() {
                "(too short)"
            } else {
                "(not set)"
            }
            .into(),
            expected: format!(
                "expected at least {SECRET_BYTES} random bytes, the same on all nodes, such as \
                 HOLON_ENGINES_SECRET=$(openssl rand -hex 32)"
            ),
        });
    }
    if settings.node > LAST_NODE {
        return Err(SettingsError::Value {
            origin: "settings".into(),
            key: "node".into(),
            text: settings.node.to_string(),
            expected: format!("expected 0 to {LAST_NODE} on servers"),
        });
    }
    if settings.demo {
        return Err(SettingsError::Value {
            origin: "settings".into(),
            key: "demo".into(),
            text: "true".into(),
            expected: "expected false on servers; `holon import social` fills them".into(),
        });
    }
    Ok(())
}
