//! Presigned links: who holds one may read one blob until a time (the idea of S3's presigned URLs).
//!
//! `/v1/blobs/<tenant>/<id>?until=<ms>&signature=<hex>`: the signature is an HMAC-SHA256 (RFC 2104) over the path and
//! the time, under a secret of the deployment. It is compared in constant time.

use hmac::{Hmac, KeyInit, Mac};
use holon_base::{Tenant, Timestamp};
use holon_ports::{BlobError, BlobId};
use sha2::Sha256;

const ROOT: &str = "/v1/blobs/";

fn mac(secret: &[u8; 32], signed: &str) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length will do");
    mac.update(b"holon blob link\0");
    mac.update(signed.as_bytes());
    mac
}

pub(crate) fn presign(secret: &[u8; 32], tenant: &Tenant, id: &BlobId, until: Timestamp) -> String {
    let signed = format!("{ROOT}{tenant}/{id}?until={}", until.millis());
    let signature = BlobId(mac(secret, &signed).finalize().into_bytes().into());
    format!("{signed}&signature={signature}")
}

pub(crate) fn verify(secret: &[u8; 32], link: &str, now: Timestamp) -> Result<(Tenant, BlobId), BlobError> {
    let parse = || {
        let (signed, signature) = link.split_once("&signature=")?;
        let (path, until) = signed.strip_prefix(ROOT)?.split_once("?until=")?;
        let (tenant, id) = path.split_once('/')?;
        // A signature has the shape of an id: 32 bytes in lower-case hexadecimal.
        let signature: BlobId = signature.parse().ok()?;
        mac(secret, signed).verify_slice(&signature.0).ok()?;
        let until: i64 = until.parse().ok()?;
        (now < Timestamp::from_millis(until)).then_some(())?;
        Some((Tenant::new(tenant).ok()?, id.parse().ok()?))
    };
    parse().ok_or(BlobError::Forbidden)
}
