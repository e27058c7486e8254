//! Streams: made when they are not there, changed when they are otherwise.

use crate::error::{api_error, away, is_full};
use async_nats::jetstream::{
    Context, ErrorCode,
    response::Response,
    stream::{Config, Info},
};
use holon_ports::{LogError, log::Bounds};

/// How many servers keep each message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Replicas(pub usize);

/// Makes a stream, or changes the one that is there.
pub(crate) async fn ensure(js: &Context, config: Config) -> Result<(), LogError> {
    let name = config.name.clone();
    let Err(error) = js.create_stream(config.clone()).await else {
        return Ok(());
    };
    let refused = |error: &(dyn std::error::Error + 'static)| match api_error(error) {
        Some(api) if is_full(api.error_code()) => LogError::Full,
        _ => away(&format!("cannot make stream {name}"), error),
    };
    if !api_error(&error).is_some_and(|api| api.error_code() == ErrorCode::STREAM_NAME_EXIST) {
        return Err(refused(&error));
    }
    match js.update_stream(config).await {
        Ok(_) => Ok(()),
        Err(error) => Err(refused(&error)),
    }
}

/// What a stream holds, as its leader says; `None` if there is no such stream.
pub(crate) async fn bounds(js: &Context, stream: &str) -> Result<Option<Bounds>, LogError> {
    let response: Response<Info> = js
        .request(format!("STREAM.INFO.{stream}"), &())
        .await
        .map_err(|error| away(&format!("cannot ask for stream {stream}"), error))?;
    match response {
        Response::Ok(info) => {
            let next = info.state.last_sequence;
            // Sequences start at 1, offsets at 0; an empty stream starts after its last.
            let first = info.state.first_sequence.saturating_sub(1).min(next);
            Ok(Some(Bounds { first, next }))
        }
        Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
        Response::Err { error } => Err(away(&format!("cannot ask for stream {stream}"), error)),
    }
}
