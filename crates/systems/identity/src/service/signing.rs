//! The signing keys of the deployment: loaded, rotated, deleted.

use super::Identity;
use crate::{
    error::IdentityError,
    model::{ROTATION_ROW, SIGNING_KEYS, deployment_partition},
    tokens::{Claims, KeyRecord, KeyRing, TokenError},
};
use holon_base::Timestamp;
use holon_ports::{Batch, Condition, StoreError};
use parking_lot::RwLock;
use std::{sync::Arc, time::Duration};

/// How often the rows are read again while nothing asks for it: what another node rotated is known in time, since a
/// key is published an hour before it signs.
const READ_AGAIN: Duration = Duration::from_secs(5 * 60);
/// The least time between two reads for tokens with unknown keys: made-up tokens cost a read a second at most.
const UNKNOWN_KEY_READ: Duration = Duration::from_secs(1);

/// The key ring as this node knows it.
#[derive(Debug, Default)]
pub(crate) struct Signer {
    ring: RwLock<(Arc<KeyRing>, Option<Timestamp>)>,
    one_at_a_time: tokio::sync::Mutex<()>,
}

impl Identity {
    /// The key ring, with a key that signs.
    pub(crate) async fn key_ring(&self) -> Result<Arc<KeyRing>, IdentityError> {
        let now = self.now();
        let (ring, read) = self.signer.ring.read().clone();
        let is_recent = read.is_some_and(|read| now.since(read) < READ_AGAIN);
        if is_recent && ring.needs_key(now, self.options.rotate_keys_every).is_none() {
            return Ok(ring);
        }
        self.renew_ring(now, read).await
    }

    /// Reads the keys, makes one if one is due and deletes those that are outlived. `seen` is when the ring that
    /// was not good enough had been read.
    async fn renew_ring(
        &self,
        now: Timestamp,
        seen: Option<Timestamp>,
    ) -> Result<Arc<KeyRing>, IdentityError> {
        let _turn = self.signer.one_at_a_time.lock().await;
        let (ring, read) = self.signer.ring.read().clone();
        if read != seen && ring.needs_key(now, self.options.rotate_keys_every).is_none() {
            return Ok(ring);
        }
        let partition = deployment_partition("signing-keys");
        for _attempt in 0..5 {
            let mut records: Vec<KeyRecord> = Vec::new();
            let mut rotation = Condition::Absent;
            for row in self.rows(SIGNING_KEYS, &partition).await? {
                if row.sort == ROTATION_ROW {
                    rotation = Condition::Version(row.version);
                } else {
                    records.push(row.json()?);
                }
            }
            let ring = KeyRing::new(&self.secret, records.clone());
            let due = ring.needs_key(now, self.options.rotate_keys_every);
            let outlived = ring.outlived(now);
            if due.is_none() && outlived.is_empty() {
                let ring = Arc::new(ring);
                *self.signer.ring.write() = (ring.clone(), Some(now));
                return Ok(ring);
            }
            let mut batch = Batch::new().put_if(
                SIGNING_KEYS,
                ROTATION_ROW,
                &serde_json::json!({"at": now}),
                rotation,
            );
            if let Some(active_from) = due {
                let record = KeyRecord::new(now, active_from);
                batch = batch.put_if_absent(SIGNING_KEYS, record.kid.clone().into_bytes(), &record);
            }
            for kid in outlived {
                batch = batch.delete(SIGNING_KEYS, kid.into_bytes());
            }
            match self.commit(&partition, batch).await {
                // Done by this node or by another: read what there is now.
                Ok(_) | Err(StoreError::ConditionFailed { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(IdentityError::Broken(
            "signing keys change faster than they can be read".into(),
        ))
    }

    pub(crate) async fn sign(&self, claims: &Claims) -> Result<String, IdentityError> {
        let ring = self.key_ring().await?;
        ring.sign(claims, self.now())
            .ok_or_else(|| IdentityError::Broken("there is no key to sign with".into()))
    }

    pub(crate) async fn verify_token(
        &self,
        token: &str,
    ) -> Result<Result<Claims, TokenError>, IdentityError> {
        let now = self.now();
        let (ring, read) = self.signer.ring.read().clone();
        let verified = ring.verify(token, &self.options.issuer, now);
        let may_read = read.is_none_or(|read| now.since(read) >= UNKNOWN_KEY_READ);
        if verified != Err(TokenError::UnknownKey) || !may_read {
            return Ok(verified);
        }
        let ring = self.renew_ring(now, read).await?;
        Ok(ring.verify(token, &self.options.issuer, now))
    }
}
