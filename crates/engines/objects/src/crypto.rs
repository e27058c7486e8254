//! What requests to S3 are signed with (AWS Signature Version 4): HMAC-SHA256 of the pure Rust crates that the rest of
//! Holon uses, so that no second library of cryptography is built.

use hmac::{Hmac, KeyInit, Mac};
use object_store::client::{
    CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, Signer, SigningAlgorithm,
};
use sha2::{Digest, Sha256};

#[derive(Debug)]
pub(crate) struct RustCrypto;

fn unsupported() -> object_store::Error {
    object_store::Error::NotSupported {
        source: "only SHA-256 and HMAC-SHA256 are built in".into(),
    }
}

impl CryptoProvider for RustCrypto {
    fn digest(&self, algorithm: DigestAlgorithm) -> object_store::Result<Box<dyn DigestContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Box::new(Hash {
                state: Sha256::new(),
                value: [0; 32],
            })),
            _ => Err(unsupported()),
        }
    }

    fn hmac(&self, algorithm: DigestAlgorithm, secret: &[u8]) -> object_store::Result<Box<dyn HmacContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => {
                let state = Hmac::<Sha256>::new_from_slice(secret).map_err(|_| unsupported())?;
                Ok(Box::new(Code {
                    state,
                    value: [0; 32],
                }))
            }
            _ => Err(unsupported()),
        }
    }

    /// With a private key: other clouds want that, S3 does not.
    fn sign(&self, _: SigningAlgorithm, _: &[u8]) -> object_store::Result<Box<dyn Signer>> {
        Err(unsupported())
    }
}

struct Hash {
    state: Sha256,
    value: [u8; 32],
}

impl DigestContext for Hash {
    fn update(&mut self, data: &[u8]) {
        self.state.update(data);
    }

    fn finish(&mut self) -> object_store::Result<&[u8]> {
        self.value = self.state.finalize_reset().into();
        Ok(&self.value)
    }
}

struct Code {
    state: Hmac<Sha256>,
    value: [u8; 32],
}

impl HmacContext for Code {
    fn update(&mut self, data: &[u8]) {
        self.state.update(data);
    }

    fn finish(&mut self) -> object_store::Result<&[u8]> {
        self.value = self.state.clone().finalize().into_bytes().into();
        Ok(&self.value)
    }
}
