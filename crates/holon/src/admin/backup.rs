//! A backup of the data directory, while it is served.

use super::Admin;
use crate::copy::{
    CopyError,
    archive::ArchiveWriter,
    directory::Directory,
    record::Record,
    run::{Progress, Sink, read_all},
};
use async_trait::async_trait;
use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use holon_base::ErrorKind;
use holon_web::ApiError;
use std::{io, sync::Arc};
use tokio::sync::mpsc;

/// Pieces of a backup that wait for the network.
const PIECES: usize = 4;
const PIECE_BYTES: usize = 256 << 10;

/// Everything that this node's data directory holds, as it is now, in one stream: what `holon restore` takes. What was
/// acknowledged before the request is in it; writes go on meanwhile. It holds the secrets of the deployment, so whoever
/// has it can act as anybody. A stream that ends without its last frame was cut off, and is refused. On servers there
/// is none: each is backed up by its own tools.
#[utoipa::path(
    get,
    path = "/v1/admin/backup",
    operation_id = "getBackup",
    tag = "admin",
    responses(
        (status = 200, description = "The backup", content_type = "application/octet-stream", body = String),
        (status = 409, description = "This node runs on servers")
    )
)]
pub async fn get_backup(State(admin): State<Arc<Admin>>) -> Result<Response, ApiError> {
    let Some(engine) = admin.engines.directory() else {
        return Err(ApiError::new(
            ErrorKind::Conflict,
            "on-servers",
            "this node runs on servers; back up each by its own tools, or stop all nodes and use holon backup",
        ));
    };
    let home = Directory::of_running(engine).await.map_err(|error| {
        tracing::error!(%error, "a backup could not be begun");
        ApiError::new(
            ErrorKind::Unavailable,
            "unavailable",
            "the store cannot be read now",
        )
        .with_status(StatusCode::SERVICE_UNAVAILABLE)
    })?;
    let (sender, receiver) = mpsc::channel(PIECES);
    let runtime = tokio::runtime::Handle::current();
    // It compresses and reads the disk all the time, so it has a thread of its own.
    tokio::task::spawn_blocking(move || {
        let written = runtime.block_on(write(&home, sender.clone()));
        match written {
            Ok(()) => tracing::info!("a backup was taken"),
            Err(error) => {
                tracing::warn!(%error, "a backup was broken off");
                // Whoever reads it sees that it did not end well.
                let _ = sender.blocking_send(Err(io::Error::other("the backup was broken off")));
            }
        }
    });
    let pieces = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    Ok(response)
}

async fn write(home: &Directory, to: mpsc::Sender<io::Result<Bytes>>) -> Result<(), CopyError> {
    let mut sink = Pieces {
        archive: ArchiveWriter::new(Vec::new())?,
        to,
    };
    read_all(home, None, &mut sink, Progress::quiet()).await?;
    let (last, _) = sink.archive.finish()?;
    send(&sink.to, last).await
}

/// Hands what is written on in pieces, and waits while too many are on their way.
struct Pieces {
    archive: ArchiveWriter<Vec<u8>>,
    to: mpsc::Sender<io::Result<Bytes>>,
}

#[async_trait]
impl Sink for Pieces {
    async fn put(&mut self, records: Vec<Record>) -> Result<(), CopyError> {
        for record in &records {
            self.archive.add(record)?;
            if self.archive.out().len() >= PIECE_BYTES {
                let piece = std::mem::take(self.archive.out());
                send(&self.to, piece).await?;
            }
        }
        Ok(())
    }
}

async fn send(to: &mpsc::Sender<io::Result<Bytes>>, piece: Vec<u8>) -> Result<(), CopyError> {
    let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "whoever asked for the backup is gone");
    to.send(Ok(piece.into()))
        .await
        .map_err(|error| CopyError::Write(gone(error)))
}
