//! A bucket of S3.

use crate::crypto::RustCrypto;
use crate::transport::Connector;
use holon_ports::BlobError;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{BackoffConfig, RetryConfig};
use std::{fmt, sync::Arc, time::Duration};

/// Which bucket, and how to use it.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Options {
    /// Such as `http://127.0.0.1:8333`; the bucket comes after it, in the path.
    pub endpoint: String,
    pub bucket: String,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    /// Goes before the name of every object, so that deployments can share a bucket; may be empty.
    pub prefix: String,
    /// How long a request may take, from connecting to the last byte.
    pub timeout: Duration,
    /// How long a request that failed is tried again.
    pub retry: Duration,
}

impl S3Options {
    pub fn new(
        endpoint: impl Into<String>,
        bucket: impl Into<String>,
        region: impl Into<String>,
        access_key_id: impl Into<String>,
        secret_access_key: impl Into<String>,
    ) -> Self {
        Self {
            endpoint: endpoint.into(),
            bucket: bucket.into(),
            region: region.into(),
            access_key_id: access_key_id.into(),
            secret_access_key: secret_access_key.into(),
            prefix: String::new(),
            timeout: Duration::from_secs(30),
            retry: Duration::from_secs(20),
        }
    }

    /// What goes before every name: nothing, or the prefix and a slash.
    pub(crate) fn root(&self) -> String {
        match self.prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        }
    }

    pub(crate) fn build(&self) -> Result<AmazonS3, BlobError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if !self.prefix.chars().all(is_plain) || self.root().contains("//") {
            return Err(BlobError::Invalid(
                "a prefix of objects is letters, digits, hyphens, underscores, full stops and single slashes"
                    .into(),
            ));
        }
        if !self.endpoint.starts_with("http://") {
            return Err(BlobError::Invalid(
                "an endpoint of objects begins with http://; TLS is not built in, a proxy beside Holon can add it"
                    .into(),
            ));
        }
        let built = AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_bucket_name(&self.bucket)
            .with_region(&self.region)
            .with_access_key_id(&self.access_key_id)
            .with_secret_access_key(&self.secret_access_key)
            .with_virtual_hosted_style_request(false)
            .with_allow_http(true)
            .with_crypto_provider(Arc::new(RustCrypto))
            .with_http_connector(Connector {
                timeout: self.timeout,
            })
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: 10,
                retry_timeout: self.retry,
            })
            .build();
        built.map_err(|error| {
            tracing::warn!(%error, "the options of the object store make no sense");
            BlobError::Invalid("the options of the object store make no sense".into())
        })
    }
}

/// Without the secret.
impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("endpoint", &self.endpoint)
            .field("bucket", &self.bucket)
            .field("region", &self.region)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
