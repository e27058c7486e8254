//! Structured logs on standard error.

use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people: colours on a terminal.
    #[default]
    Pretty,
    /// One JSON object a line.
    Json,
}

/// What is logged and how.
#[derive(Debug, Clone)]
pub struct LogOptions {
    pub format: LogFormat,
    /// Directives such as `info,holon_feed=debug` (the syntax of `tracing_subscriber::EnvFilter`).
    pub filter: String,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            format: LogFormat::Pretty,
            filter: "info".into(),
        }
    }
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    #[error("log filter {filter:?} cannot be read: {reason}")]
    Filter { filter: String, reason: String },
    #[error("logging was started before")]
    Started,
}

/// Starts logging for the whole process; once.
///
/// # Errors
/// When the filter cannot be read, or logging runs already.
pub fn init(options: &LogOptions) -> Result<(), LogsError> {
    let filter = EnvFilter::try_new(&options.filter).map_err(|error| LogsError::Filter {
        filter: options.filter.clone(),
        reason: error.to_string(),
    })?;
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match options.format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
        LogFormat::Pretty => builder
            .compact()
            .with_target(true)
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
    };
    started.map_err(|_| LogsError::Started)
}
