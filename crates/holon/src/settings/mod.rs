//! Settings: one typed struct, read from the file, the environment and the command line, in that order; later wins.
//!
//! Every setting is declared once, below, with its key, type, default and doc; the struct, the environment names,
//! `holon config` and the check for unknown keys all come from that declaration. A setting `feed.push_below` is
//! `push_below` under `[feed]` in the file, `HOLON_FEED_PUSH_BELOW` in the environment and
//! `--set feed.push_below=…` on the command line.

mod nodes;
mod secret;
mod servers;
mod show;
mod value;

pub use nodes::{ROLES, Role, shared};
pub use secret::{Secret, Urls};
pub use show::{table, toml_file};
pub use value::SettingValue;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// One setting as the settings themselves describe it.
pub struct Setting {
    /// Its dotted name: `section.name`, or `name` alone.
    pub key: &'static str,
    /// What it does, in one or more sentences.
    pub doc: &'static [&'static str],
    /// Whether it may hold a password.
    pub is_secret: bool,
    show: fn(&Settings) -> String,
    toml: fn(&Settings) -> Option<String>,
    set: fn(&mut Settings, &str) -> Result<(), String>,
}

impl Setting {
    /// Its name in the environment.
    pub fn environment(&self) -> String {
        let name = self.key.replace('.', "_").to_ascii_uppercase();
        format!("HOLON_{name}")
    }

    pub fn doc(&self) -> String {
        let lines: Vec<&str> = self.doc.iter().map(|line| line.trim()).collect();
        lines.join(" ")
    }
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $field:ident: $kind:ty = $key:literal, $default:expr;)+) => {
        /// Every setting, with its value.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $field: $kind,)+
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        /// Every setting, in the order in which they are shown.
        pub static SETTINGS: &[Setting] = &[$(Setting {
            key: $key,
            doc: &[$($doc),+],
            is_secret: <$kind as SettingValue>::IS_SECRET,
            show: |settings| settings.$field.show(),
            toml: |settings| settings.$field.toml(),
            set: |settings, text| {
                settings.$field = SettingValue::read(text)?;
                Ok(())
            },
        },)+];
    };
}

settings! {
    /// The directory that holds everything: rows, events, blobs and secrets. Made if it is not there.
    data: PathBuf = "data", PathBuf::from("data");
    /// Address and port to listen on. Port 0 takes a free one; the first line printed says which.
    listen: SocketAddr = "listen", SocketAddr::from(([127, 0, 0, 1], 8080));
    /// The systems to run.
    systems: Vec<String> = "systems", vec!["identity".into(), "feed".into()];
    /// Fill the data directory with demo data if it is empty.
    demo: bool = "demo", false;
    /// This node's number, 0 to 1023 (0 to 511 on servers): part of every id that it makes, so no two running nodes may
    /// share one.
    node: u16 = "node", 0;
    /// What this node does. `api` serves the routes of all systems, the admin routes and the console; without it a node
    /// serves /livez, /readyz and /metrics alone. `workers` runs consumers and scheduled jobs. `relay` takes events from
    /// the outboxes of PostgreSQL to NATS. Any number of nodes can have each; a deployment needs all three.
    roles: Vec<String> = "roles", ROLES.map(str::to_owned).to_vec();
    /// How long requests in hand may take to finish after SIGTERM or SIGINT.
    drain: Duration = "drain", Duration::from_secs(10);

    /// Run on servers rather than in the data directory: PostgreSQL, each `name=postgres://user:password@host/database`
    /// with a name that it keeps for good, commas between. The first one also holds the directory of shards.
    postgres: Urls = "engines.postgres", Urls::default();
    /// Hot standbys of those shards, each `name=postgres://...` under the name of its shard, commas between: reads that
    /// may lag go there.
    postgres_replicas: Urls = "engines.postgres_replicas", Urls::default();
    /// How many bytes a second are copied at most when slots move from one shard to another.
    move_bytes_per_second: u64 = "engines.move_bytes_per_second", 8 << 20;
    /// NATS servers with JetStream, each `nats://host:4222`, commas between; any one that answers is enough.
    nats: Urls = "engines.nats", Urls::default();
    /// How many NATS servers keep each event: 1, or 3 in a cluster.
    nats_replicas: usize = "engines.nats_replicas", 1;
    /// Redis, `redis://host:6379`; of a Cluster one or more of its servers, commas between.
    redis: Urls = "engines.redis", Urls::default();
    /// Whether Redis is a Cluster.
    redis_cluster: bool = "engines.redis_cluster", false;
    /// Where S3 is, such as http://127.0.0.1:9000. When not set, blobs are in this node's data directory, which is
    /// right for one node, or for a directory that all nodes share.
    s3_endpoint: Option<String> = "engines.s3_endpoint", None;
    /// The bucket for blobs.
    s3_bucket: Option<String> = "engines.s3_bucket", None;
    /// The region that requests to S3 are signed for.
    s3_region: String = "engines.s3_region", "us-east-1".into();
    /// The access key id of S3.
    s3_access_key: Option<String> = "engines.s3_access_key", None;
    /// The secret access key of S3.
    s3_secret_key: Option<Secret> = "engines.s3_secret_key", None;
    /// What all names on NATS, Redis and S3 begin with, so that deployments can share them: 1 to 32 of a-z, 0-9 and _.
    prefix: String = "engines.prefix", "holon".into();
    /// At least 32 random bytes that all nodes have in common: tokens, cursors and links are signed with keys made of
    /// it. `openssl rand -hex 32` makes one. Must be set to run on servers.
    secret: Option<Secret> = "engines.secret", None;

    /// Address and port for other nodes, on servers: calls over TCP, gossip over UDP. When not set, it is the address of
    /// `listen` and any free port. The network must be one that only nodes can reach.
    cluster_listen: Option<SocketAddr> = "cluster.listen", None;
    /// The address at which other nodes reach this machine, where that is not the one it listens on.
    cluster_advertise: Option<IpAddr> = "cluster.advertise", None;
    /// Nodes to begin the gossip with, each `host:port`, commas between. Those that the database knows need not be named.
    cluster_seeds: Vec<String> = "cluster.seeds", Vec::new();
    /// How much of the shards of in-memory state this node takes, relative to the others; 0 for none.
    cluster_capacity: u32 = "cluster.capacity", 100;

    /// What is logged: a level (error, warn, info, debug, trace), or `target=level` pairs with commas between.
    log_filter: String = "log.filter", "warn".into();
    /// How logs are written to standard error: `pretty` for people, `json` for machines.
    log_format: String = "log.format", "pretty".into();
    /// Where traces go as OTLP over HTTP, such as http://127.0.0.1:4318; nothing is sent when not set.
    otlp_endpoint: Option<String> = "telemetry.otlp_endpoint", None;

    /// Serve the console from this directory rather than from the binary: for work on the console.
    console_dir: Option<PathBuf> = "console.dir", None;

    /// Origins that a browser may call from, besides Holon's own console, such as https://app.example; `*` for any.
    cors_origins: Vec<String> = "web.cors_origins", Vec::new();
    /// Proxies in front of this server that add to X-Forwarded-For: 0 takes the address of the connection.
    forwarded_hops: usize = "web.forwarded_hops", 0;
    /// Hold each caller to a number of requests. Administrators are not held to any.
    rate_limit: bool = "rate_limit.enabled", true;
    /// Requests a second for long, by each account.
    rate_per_second: u32 = "rate_limit.per_second", 100;
    /// Requests at once, by each account.
    rate_burst: u32 = "rate_limit.burst", 600;
    /// Requests a second for long, by each address from which nobody is signed in.
    rate_address_per_second: u32 = "rate_limit.address_per_second", 50;
    /// Requests at once, by each address from which nobody is signed in.
    rate_address_burst: u32 = "rate_limit.address_burst", 300;

    /// Whether anybody may sign up; otherwise an administrator makes the accounts.
    open_sign_up: bool = "identity.open_sign_up", true;
    /// Set it where browsers come over HTTPS: cookies are then for HTTPS alone.
    secure_cookies: bool = "identity.secure_cookies", false;
    /// How long an access token holds; a refresh token makes the next.
    access_token_time: Duration = "identity.access_token_time", Duration::from_secs(900);
    /// A session ends when it was not used for so long.
    session_idle: Duration = "identity.session_idle", Duration::from_secs(30 * 86_400);

    /// Followers below which a post is written into every follower's timeline.
    feed_push_below: u64 = "feed.push_below", 10_000;
    /// Followers below which a post is written into the timelines of those active lately; above, readers pull.
    feed_active_below: u64 = "feed.active_below", 1_000_000;
    /// How lately a reader was active to count as active.
    feed_active_within: Duration = "feed.active_within", Duration::from_secs(7 * 86_400);
    /// Entries that a home timeline keeps; older posts are pulled.
    feed_timeline_entries: usize = "feed.timeline_entries", 800;
    /// How long after it was written a post can be edited.
    feed_edit_window: Duration = "feed.edit_window", Duration::from_secs(300);
}

/// Why settings were not taken; the text says where and what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read settings file {}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("settings file {} is not TOML: {error}", path.display())]
    Toml { path: PathBuf, error: String },
    #[error("{origin}: there is no setting {key:?}{}", did_you_mean(.suggestion.as_deref()))]
    Unknown {
        origin: String,
        key: String,
        suggestion: Option<String>,
    },
    #[error("{origin}: {key} is {text:?}; {expected}")]
    Value {
        origin: String,
        key: String,
        text: String,
        expected: String,
    },
}

fn did_you_mean(name: Option<&str>) -> String {
    match name {
        Some(name) => format!("; did you mean {name:?}? `holon config` lists all"),
        None => "; `holon config` lists all".into(),
    }
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Default,
    File,
    Environment,
    Flag,
}

impl Origin {
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        }
    }
}

/// Settings, and where each value that is not a default came from.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    pub settings: Settings,
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// Reads the file if one is named, then the environment, then the flags (`(key, text)`); later wins.
    ///
    /// # Errors
    /// [`SettingsError`] for what is unknown or cannot be read. An environment variable `HOLON_…` that is no
    /// setting is left alone, since orchestrators make up names of that form.
    pub fn load(
        file: Option<&Path>,
        environment: impl Fn(&str) -> Option<String>,
        flags: &[(String, String)],
    ) -> Result<Self, SettingsError> {
        let mut loaded = Self::default();
        if let Some(path) = file {
            loaded.take_file(path)?;
        }
        for setting in SETTINGS {
            let name = setting.environment();
            if let Some(text) = environment(&name) {
                loaded.set(setting, &text, Origin::Environment, &name)?;
            }
        }
        for (key, text) in flags {
            let setting = find(key, "command line")?;
            loaded.set(setting, text, Origin::Flag, "command line")?;
        }
        loaded.check()?;
        Ok(loaded)
    }

    pub fn origin(&self, setting: &Setting) -> Origin {
        self.origins.get(setting.key).copied().unwrap_or(Origin::Default)
    }

    fn take_file(&mut self, path: &Path) -> Result<(), SettingsError> {
        let text = std::fs::read_to_string(path).map_err(|error| SettingsError::File {
            path: path.into(),
            error,
        })?;
        let document: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| SettingsError::Toml {
                path: path.into(),
                error: error.to_string(),
            })?;
        let origin = path.display().to_string();
        let mut values = Vec::new();
        flatten("", &toml::Value::Table(document), &mut values);
        for (key, text) in values {
            let setting = find(&key, &origin)?;
            self.set(setting, &text, Origin::File, &origin)?;
        }
        Ok(())
    }

    fn set(
        &mut self,
        setting: &'static Setting,
        text: &str,
        origin: Origin,
        named: &str,
    ) -> Result<(), SettingsError> {
        (setting.set)(&mut self.settings, text).map_err(|expected| SettingsError::Value {
            origin: named.into(),
            key: setting.key.into(),
            text: if setting.is_secret { "(not shown)" } else { text }.into(),
            expected,
        })?;
        self.origins.insert(setting.key, origin);
        Ok(())
    }

    /// What the types alone do not say.
    fn check(&self) -> Result<(), SettingsError> {
        let refuse = |key: &str, text: String, expected: &str| {
            Err(SettingsError::Value {
                origin: "settings".into(),
                key: key.into(),
                text,
                expected: expected.into(),
            })
        };
        let settings = &self.settings;
        if settings.node > 1_023 {
            return refuse("node", settings.node.to_string(), "expected 0 to 1023");
        }
        if !matches!(settings.log_format.as_str(), "pretty" | "json") {
            return refuse(
                "log.format",
                settings.log_format.clone(),
                "expected pretty or json",
            );
        }
        let unknown = settings
            .systems
            .iter()
            .find(|name| !KNOWN_SYSTEMS.contains(&name.as_str()));
        if let Some(name) = unknown {
            return refuse("systems", name.clone(), "expected some of identity, feed");
        }
        if !settings.systems.iter().any(|name| name == "identity") {
            return refuse(
                "systems",
                settings.systems.join(","),
                "identity must be among them: it says who calls",
            );
        }
        let rates = [
            settings.rate_per_second,
            settings.rate_burst,
            settings.rate_address_per_second,
            settings.rate_address_burst,
        ];
        if rates.contains(&0) {
            return refuse(
                "rate_limit",
                "0".into(),
                "expected 1 or more; rate_limit.enabled=false sets no limit",
            );
        }
        if settings.feed_active_below < settings.feed_push_below {
            return refuse(
                "feed.active_below",
                settings.feed_active_below.to_string(),
                "expected feed.push_below or more",
            );
        }
        nodes::check(settings)?;
        servers::check(settings)
    }
}

/// The systems that this binary has.
pub const KNOWN_SYSTEMS: [&str; 2] = ["identity", "feed"];

fn find(key: &str, origin: &str) -> Result<&'static Setting, SettingsError> {
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
        return Ok(setting);
    }
    let nearest = SETTINGS
        .iter()
        .map(|setting| (strsim::jaro_winkler(key, setting.key), setting.key))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.75);
    Err(SettingsError::Unknown {
        origin: origin.into(),
        key: key.into(),
        suggestion: nearest.map(|(_, key)| key.to_owned()),
    })
}

/// The leaves of a document as dotted keys and text.
fn flatten(prefix: &str, value: &toml::Value, into: &mut Vec<(String, String)>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let key = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                flatten(&key, value, into);
            }
        }
        other => into.push((prefix.to_owned(), plain(other))),
    }
}

fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        toml::Value::Datetime(time) => time.to_string(),
        toml::Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        // Only within an array, where no setting has one: refused as a value.
        toml::Value::Table(_) => "{…}".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn load(
        file: &str,
        environment: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<Loaded, SettingsError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("holon.toml");
        std::fs::write(&path, file).unwrap();
        let flags: Vec<(String, String)> = flags
            .iter()
            .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
            .collect();
        let lookup = |name: &str| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, text)| (*text).to_owned())
        };
        Loaded::load(Some(&path), lookup, &flags)
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let file = "data = 'from-file'\nlisten = '127.0.0.1:1'\n[feed]\npush_below = 7\nactive_below = 7\n";
        let environment = [("HOLON_LISTEN", "127.0.0.1:2"), ("HOLON_FEED_PUSH_BELOW", "6")];
        let loaded = load(file, &environment, &[("feed.push_below", "5")]).unwrap();
        assert_eq!(loaded.settings.data, PathBuf::from("from-file"));
        assert_eq!(loaded.settings.listen.port(), 2);
        assert_eq!(loaded.settings.feed_push_below, 5);
        assert_eq!(loaded.settings.feed_active_below, 7);
        assert_eq!(loaded.settings.drain, Settings::default().drain);
        let origins: HashSet<&str> = SETTINGS.iter().map(|s| loaded.origin(s).name()).collect();
        assert_eq!(origins, HashSet::from(["default", "file", "environment", "flag"]));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_a_suggestion() {
        let error = load("[feed]\npush_bellow = 1\n", &[], &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("push_bellow") && error.contains("\"feed.push_below\""),
            "{error}"
        );
        let error = load("", &[], &[("zzz", "1")]).unwrap_err().to_string();
        assert!(
            error.contains("zzz") && !error.contains("did you mean"),
            "{error}"
        );
    }

    #[test]
    fn a_bad_value_names_its_setting_and_what_is_expected() {
        for (file, needle) in [
            ("listen = 8080", "127.0.0.1:8080"),
            ("node = 1024", "1023"),
            ("systems = ['feed']", "identity"),
            ("systems = ['identity', 'feeds']", "feeds"),
            ("drain = '10'", "30s"),
            ("[log]\nformat = 'xml'", "json"),
            ("[feed]\nactive_below = 1", "feed.push_below"),
            ("data = ", "not TOML"),
            ("[engines]\nnats = 'nats://a:4222'", "engines.postgres"),
            (
                "[engines]\npostgres = 'postgres://u:pw@a/b'\nnats = 'nats://a:1'",
                "engines.redis",
            ),
            ("[engines]\ns3_bucket = 'b'", "engines.postgres"),
            ("[engines]\npostgres = 'hunter2'", "(not shown)"),
            ("roles = ['api', 'worker']", "workers"),
            ("roles = []", "api, workers, relay"),
            ("roles = ['workers']", "every role"),
            ("[cluster]\nseeds = ['a']", "host:port"),
            ("[cluster]\nadvertise = 'a'", "10.0.0.7"),
        ] {
            let error = load(file, &[], &[]).unwrap_err().to_string();
            assert!(error.contains(needle), "{file}: {error}");
        }
    }

    const SERVERS: &str =
        "[engines]\npostgres = 'a=postgres://u:hunter2@a/b'\nnats = 'nats://a:1'\nredis = 'redis://a'\n";

    #[test]
    fn settings_of_servers_are_whole_and_show_no_secret() {
        let with = |more: &str| load(&format!("{SERVERS}{more}"), &[], &[]);
        for (more, needle) in [
            ("", "HOLON_ENGINES_SECRET"),
            ("secret = 'hunter2'", "too short"),
            (
                "secret = 'hunter2-hunter2-hunter2-hunter2-'\ns3_bucket = 'b'",
                "engines.s3_endpoint",
            ),
        ] {
            let error = with(more).unwrap_err().to_string();
            assert!(error.contains(needle) && !error.contains("hunter2"), "{error}");
        }
        let loaded = with("secret = 'hunter2-hunter2-hunter2-hunter2-'").unwrap();
        for printed in [
            table(&loaded),
            toml_file(&loaded),
            format!("{:?}", loaded.settings),
        ] {
            assert!(!printed.contains("hunter2"), "{printed}");
        }
        assert!(toml_file(&loaded).contains("nats = [\"nats://a:1\"]"));
    }

    #[test]
    fn the_file_that_is_printed_gives_the_same_settings() {
        let loaded = load(
            "systems = ['identity']",
            &[("HOLON_WEB_CORS_ORIGINS", "https://a.example,https://b.example")],
            &[("drain", "1500ms"), ("console.dir", "a \"dir\"")],
        )
        .unwrap();
        let again = load(&toml_file(&loaded), &[], &[]).unwrap();
        assert_eq!(again.settings, loaded.settings);
    }

    #[test]
    fn every_setting_has_its_own_key_and_a_doc_that_is_a_sentence() {
        let keys: HashSet<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
        assert_eq!(keys.len(), SETTINGS.len());
        for setting in SETTINGS {
            assert!(setting.doc().ends_with('.'), "{}", setting.key);
        }
    }
}
