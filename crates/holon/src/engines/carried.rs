//! What a deployment on servers has from the home that it was copied from: its secrets, and the ids given out there.
//!
//! Secrets that were made in a data directory cannot be derived from the deployment's one secret, and tokens,
//! cursors and links that people hold are good only under them. So they are kept as a row, each hidden by a pad that
//! is derived from the deployment's secret, the name and a number drawn for this copy: the row says nothing to who has
//! only the database. A row also says that a copy is not finished; until it is gone no node serves what is there.

use super::servers::{FACTS, derive, facts};
use crate::{copy::home::Checkpoint, node::NodeError};
use holon_base::Id;
use holon_ports::{Batch, Consistency, RowKey, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const CARRIED_ROW: &[u8] = b"carried";
const COPY_ROW: &[u8] = b"copy";
/// Held by whoever copies; nodes do not start meanwhile, and it is not had while nodes run.
pub const COPY_LEASE: &str = "deployment.copy";

/// What was carried over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried {
    pub secrets: BTreeMap<String, [u8; 32]>,
    /// No node makes ids up to here.
    pub last_id: Option<Id>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CarriedRecord {
    pad: u64,
    hidden: BTreeMap<String, [u8; 32]>,
    last_id: Option<Id>,
}

/// To hide is to reveal: the pad is added without carry.
fn hide(secret: &[u8], pad: u64, name: &str, bytes: &[u8; 32]) -> [u8; 32] {
    let mut hidden = derive(secret, &format!("carried\0{pad:016x}\0{name}"));
    for (byte, other) in hidden.iter_mut().zip(bytes) {
        *byte ^= other;
    }
    hidden
}

impl Carried {
    /// What is there, under the deployment's secret.
    pub async fn read(store: &dyn Store, secret: &[u8]) -> Result<Self, StoreError> {
        let key = RowKey::new(FACTS, facts(), CARRIED_ROW);
        let Some(row) = store.get(&key, Consistency::Strong).await? else {
            return Ok(Self::default());
        };
        let record: CarriedRecord = row.json()?;
        let reveal = |(name, hidden): (String, [u8; 32])| {
            let plain = hide(secret, record.pad, &name, &hidden);
            (name, plain)
        };
        Ok(Self {
            secrets: record.hidden.into_iter().map(reveal).collect(),
            last_id: record.last_id,
        })
    }

    pub async fn write(&self, store: &dyn Store, secret: &[u8]) -> Result<(), StoreError> {
        let pad = rand::random();
        let hidden = self.secrets.iter().map(|(name, plain)| {
            let hidden = hide(secret, pad, name, plain);
            (name.clone(), hidden)
        });
        let record = CarriedRecord {
            pad,
            hidden: hidden.collect(),
            last_id: self.last_id,
        };
        let batch = Batch::new().put(FACTS, CARRIED_ROW, &record);
        store.commit(&facts(), batch).await.map(drop)
    }
}

/// How far an unfinished copy is.
pub async fn unfinished(store: &dyn Store) -> Result<Option<Checkpoint>, StoreError> {
    let key = RowKey::new(FACTS, facts(), COPY_ROW);
    let row = store.get(&key, Consistency::Strong).await?;
    row.map(|row| row.json()).transpose()
}

pub async fn note_unfinished(store: &dyn Store, checkpoint: &Checkpoint) -> Result<(), StoreError> {
    let batch = Batch::new().put(FACTS, COPY_ROW, checkpoint);
    store.commit(&facts(), batch).await.map(drop)
}

pub async fn note_finished(store: &dyn Store) -> Result<(), StoreError> {
    let batch = Batch::new().delete(FACTS, COPY_ROW);
    store.commit(&facts(), batch).await.map(drop)
}

/// Refuses to serve while a copy goes on, or what one has not finished.
pub async fn check(store: &dyn Store, leases: &dyn holon_ports::Leases) -> Result<(), NodeError> {
    if leases.current(COPY_LEASE).await?.is_some() {
        return Err(
            "this deployment is being copied; start when that is done, or five seconds after it died".into(),
        );
    }
    match unfinished(store).await? {
        None => Ok(()),
        Some(_) => Err(
            "what these servers hold is an unfinished copy; finish it with the command that began it, \
             or empty the servers"
                .into(),
        ),
    }
}
