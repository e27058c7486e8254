//! Access tokens: JSON Web Tokens (RFC 7519) signed with EdDSA over Ed25519 (RFC 8037), typed `at+jwt` (RFC 9068).
//!
//! A token says who (account, tenant, session) and until when, and nothing about what they may do: permissions are
//! looked up, so that a change takes effect at once. It lives 15 minutes; its session is looked up too, so that
//! signing out ends it sooner.
//!
//! Keys rotate. A new key is published an hour before it signs, so that whoever caches the key set knows it in time;
//! an old one verifies until the last token it signed has expired, and is then deleted. A private key is never
//! stored: it is derived from the deployment's secret and a random salt in the key's row. The secret without the row
//! or the row without the secret signs nothing, and a deleted row is a destroyed key.
//!
//! Signing and verifying are written out here, over `ed25519-dalek`, with one algorithm and no choice left to the
//! token: the JWT crate at hand takes its time from the system clock, which tests cannot drive, and its cryptography
//! from a process-wide variable, which two systems in one process would share.

use crate::secret::{Secret, decode, encode, random};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use holon_base::{Id, Tenant, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 2_048;
/// How far the clocks of two nodes may be apart.
pub const LEEWAY: Duration = Duration::from_secs(30);
/// How long before it signs a key is published.
pub const PUBLISH_AHEAD: Duration = Duration::from_secs(60 * 60);
/// The longest life of any token; an old key is kept that long after its successor began to sign.
pub const TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(60 * 60);

const ALGORITHM: &str = "EdDSA";
const TYPE: &str = "at+jwt";

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
    /// Extensions that a verifier must understand (RFC 7515, 4.1.11): none is, so a token with any is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<Vec<String>>,
}

/// What a token says. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub aud: String,
    /// The account.
    pub sub: Id,
    pub tenant: Tenant,
    /// The session, or the grant that an administrator minted.
    pub sid: Id,
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
    /// Names this token; random.
    pub jti: String,
}

impl Claims {
    /// Claims for a session from now on.
    pub fn new(
        issuer: &str,
        tenant: &Tenant,
        account: Id,
        session: Id,
        now: Timestamp,
        life: Duration,
    ) -> Self {
        let now = now.millis().div_euclid(1_000);
        Self {
            iss: issuer.to_owned(),
            aud: issuer.to_owned(),
            sub: account,
            tenant: tenant.clone(),
            sid: session,
            iat: now,
            nbf: now,
            exp: now + life.min(TOKEN_LIFETIME_MAX).as_secs() as i64,
            jti: encode(&random::<12>()),
        }
    }

    pub fn expires(&self) -> Timestamp {
        Timestamp::from_millis(self.exp.saturating_mul(1_000))
    }
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("token is malformed")]
    Malformed,
    #[error("token is signed with an unknown key")]
    UnknownKey,
    #[error("token's signature is wrong")]
    BadSignature,
    #[error("token is for somebody else")]
    WrongAudience,
    #[error("token is not valid yet")]
    NotYet,
    #[error("token has expired")]
    Expired,
}

/// A signing key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRecord {
    pub kid: String,
    pub created: Timestamp,
    /// From when on it signs.
    pub active_from: Timestamp,
    /// Base64; together with the deployment's secret it makes the private key.
    pub salt: String,
}

impl KeyRecord {
    pub fn new(now: Timestamp, active_from: Timestamp) -> Self {
        Self {
            kid: encode(&random::<9>()),
            created: now,
            active_from,
            salt: encode(&random::<32>()),
        }
    }
}

struct Key {
    record: KeyRecord,
    signing: SigningKey,
    verifying: VerifyingKey,
}

/// A public key as JSON Web Key (RFC 7517, RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Jwk {
    /// Always `OKP`.
    pub kty: String,
    /// Always `Ed25519`.
    pub crv: String,
    /// The public key, base64url.
    pub x: String,
    pub kid: String,
    /// Always `EdDSA`.
    pub alg: String,
    /// Always `sig`.
    #[serde(rename = "use")]
    pub usage: String,
}

/// Every key that signs, will sign or has signed a token that may still live; oldest first.
#[derive(Default)]
pub struct KeyRing {
    keys: Vec<Key>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.keys.iter().map(|key| &key.record.kid))
            .finish()
    }
}

impl KeyRing {
    pub(crate) fn new(secret: &Secret, mut records: Vec<KeyRecord>) -> Self {
        records.sort_by(|a, b| (a.active_from, &a.kid).cmp(&(b.active_from, &b.kid)));
        let keys = records
            .into_iter()
            .map(|record| {
                let seed = secret.derive("signing-key", &[record.kid.as_bytes(), record.salt.as_bytes()]);
                let signing = SigningKey::from_bytes(&seed);
                let verifying = signing.verifying_key();
                Key {
                    record,
                    signing,
                    verifying,
                }
            })
            .collect();
        Self { keys }
    }

    pub fn records(&self) -> impl Iterator<Item = &KeyRecord> {
        self.keys.iter().map(|key| &key.record)
    }

    fn active(&self, now: Timestamp) -> Option<&Key> {
        self.keys.iter().rev().find(|key| key.record.active_from <= now)
    }

    /// The key that signs now; `None` before the first one was made.
    pub fn active_kid(&self, now: Timestamp) -> Option<&str> {
        self.active(now).map(|key| key.record.kid.as_str())
    }

    /// From when on a new key has to sign; `None` while none is needed.
    pub fn needs_key(&self, now: Timestamp, rotate_every: Duration) -> Option<Timestamp> {
        let Some(newest) = self.keys.last() else {
            return Some(now);
        };
        // Whatever its clock said, a ring with a key that signs is never without one.
        if self.active(now).is_none() {
            return Some(now);
        }
        let due = newest.record.active_from.plus(rotate_every);
        (due.minus(PUBLISH_AHEAD) <= now).then(|| due.max(now.plus(PUBLISH_AHEAD)))
    }

    /// Keys whose last token has expired.
    pub fn outlived(&self, now: Timestamp) -> Vec<String> {
        let grace = TOKEN_LIFETIME_MAX + LEEWAY * 2;
        self.keys
            .windows(2)
            .filter(|pair| pair[1].record.active_from.plus(grace) < now)
            .map(|pair| pair[0].record.kid.clone())
            .collect()
    }

    /// Signs claims; `None` before the first key was made. Some 20 µs.
    pub fn sign(&self, claims: &Claims, now: Timestamp) -> Option<String> {
        let key = self.active(now)?;
        let header = Header {
            alg: ALGORITHM.into(),
            typ: TYPE.into(),
            kid: key.record.kid.clone(),
            crit: None,
        };
        let header = serde_json::to_vec(&header).ok()?;
        let mut token = encode(&header);
        token.push('.');
        token.push_str(&encode(&serde_json::to_vec(claims).ok()?));
        let signature = key.signing.sign(token.as_bytes());
        token.push('.');
        token.push_str(&encode(&signature.to_bytes()));
        Some(token)
    }

    /// Checks a token: form, algorithm, key, signature, audience, times. Some 50 µs.
    pub fn verify(&self, token: &str, issuer: &str, now: Timestamp) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header: Header = parse(header)?;
        if header.alg != ALGORITHM || header.typ != TYPE || header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let key = self.keys.iter().find(|key| key.record.kid == header.kid);
        let key = key.ok_or(TokenError::UnknownKey)?;
        let signature = decode(signature).ok_or(TokenError::Malformed)?;
        let signature = Signature::from_slice(&signature).map_err(|_| TokenError::Malformed)?;
        key.verifying
            .verify_strict(signed.as_bytes(), &signature)
            .map_err(|_| TokenError::BadSignature)?;
        let claims: Claims = parse(claims)?;
        if claims.iss != issuer || claims.aud != issuer {
            return Err(TokenError::WrongAudience);
        }
        let leeway = LEEWAY.as_secs() as i64;
        let seconds = now.millis().div_euclid(1_000);
        if claims.nbf > seconds + leeway || claims.iat > seconds + leeway {
            return Err(TokenError::NotYet);
        }
        if claims.exp <= seconds {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }

    /// The public keys, those to come included.
    pub fn jwks(&self) -> Vec<Jwk> {
        self.keys
            .iter()
            .map(|key| Jwk {
                kty: "OKP".into(),
                crv: "Ed25519".into(),
                x: encode(key.verifying.as_bytes()),
                kid: key.record.kid.clone(),
                alg: ALGORITHM.into(),
                usage: "sig".into(),
            })
            .collect()
    }
}

fn parse<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let bytes = decode(part).ok_or(TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const LIFE: Duration = Duration::from_secs(900);

    fn start() -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000)
    }

    fn ring() -> KeyRing {
        KeyRing::new(&Secret::new([1; 32]), vec![KeyRecord::new(start(), start())])
    }

    fn claims(now: Timestamp) -> Claims {
        Claims::new(
            "holon",
            &Tenant::default(),
            Id::from_u64(7),
            Id::from_u64(8),
            now,
            LIFE,
        )
    }

    #[test]
    fn a_token_tells_what_was_signed_until_it_expires() {
        let ring = ring();
        let token = ring.sign(&claims(start()), start()).unwrap();
        let later = start().plus(LIFE - Duration::from_secs(1));
        assert_eq!(
            ring.verify(&token, "holon", later).map(|claims| claims.sub),
            Ok(Id::from_u64(7))
        );
        assert_eq!(
            ring.verify(&token, "holon", start().plus(LIFE)),
            Err(TokenError::Expired)
        );
        assert_eq!(
            ring.verify(&token, "other", start()),
            Err(TokenError::WrongAudience)
        );
        assert_eq!(
            ring.verify(&token, "holon", start().minus(DAY)),
            Err(TokenError::NotYet)
        );
        assert_eq!(
            ring.verify(&token, "holon", start().minus(LEEWAY)).map(|_| ()),
            Ok(())
        );
        let other = KeyRing::new(&Secret::new([2; 32]), ring.records().cloned().collect());
        assert_eq!(
            other.verify(&token, "holon", start()),
            Err(TokenError::BadSignature)
        );
    }

    #[test]
    fn a_token_chooses_neither_algorithm_nor_type() {
        let ring = ring();
        let token = ring.sign(&claims(start()), start()).unwrap();
        let [_, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
            unreachable!()
        };
        let kid = ring.active_kid(start()).unwrap();
        for header in [
            format!(r#"{{"alg":"none","typ":"at+jwt","kid":"{kid}"}}"#),
            format!(r#"{{"alg":"HS256","typ":"at+jwt","kid":"{kid}"}}"#),
            format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{kid}"}}"#),
            format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{kid}","crit":["x"]}}"#),
            r#"{"alg":"EdDSA","typ":"at+jwt"}"#.to_owned(),
        ] {
            // Signed with the right key even: the header alone must be enough to refuse it.
            let signed = format!("{}.{payload}", encode(header.as_bytes()));
            let genuine = ring.keys[0].signing.sign(signed.as_bytes());
            let forged = format!("{signed}.{}", encode(&genuine.to_bytes()));
            assert_eq!(
                ring.verify(&forged, "holon", start()),
                Err(TokenError::Malformed),
                "{header}"
            );
        }
        let unsigned = format!("{}.{payload}.", token.split('.').next().unwrap());
        assert_eq!(
            ring.verify(&unsigned, "holon", start()),
            Err(TokenError::Malformed)
        );
        let elsewhere = format!(
            "{}.{payload}.{signature}",
            encode(br#"{"alg":"EdDSA","typ":"at+jwt","kid":"x"}"#)
        );
        assert_eq!(
            ring.verify(&elsewhere, "holon", start()),
            Err(TokenError::UnknownKey)
        );
    }

    #[test]
    fn keys_rotate_and_every_token_verifies_for_its_whole_life() {
        let secret = Secret::new([1; 32]);
        let mut records: Vec<KeyRecord> = Vec::new();
        let mut live: Vec<(String, Timestamp)> = Vec::new();
        let mut kids = std::collections::BTreeSet::new();
        let mut life = [LIFE, TOKEN_LIFETIME_MAX].into_iter().cycle();
        for half_hour in 0..48 * 95 {
            let now = start().plus(Duration::from_secs(1_800 * half_hour));
            let ring = KeyRing::new(&secret, records.clone());
            if let Some(from) = ring.needs_key(now, 30 * DAY) {
                assert!(
                    records.is_empty() || from >= now.plus(PUBLISH_AHEAD),
                    "published ahead"
                );
                records.push(KeyRecord::new(now, from));
            }
            let gone = ring.outlived(now);
            records.retain(|record| !gone.contains(&record.kid));
            assert!(records.len() <= 2);
            let ring = KeyRing::new(&secret, records.clone());
            kids.insert(ring.active_kid(now).unwrap().to_owned());
            live.retain(|(_, expires)| *expires > now);
            for (token, _) in &live {
                assert!(ring.verify(token, "holon", now).is_ok());
            }
            let claims = Claims {
                exp: now.plus(life.next().unwrap()).millis() / 1_000,
                ..claims(now)
            };
            live.push((ring.sign(&claims, now).unwrap(), claims.expires()));
        }
        assert_eq!(kids.len(), 4, "a key every 30 days in 95");
    }

    proptest! {
        #[test]
        fn a_changed_token_is_refused(at in 0_usize..400, to in "[A-Za-z0-9_.-]") {
            let ring = ring();
            let token = ring.sign(&claims(start()), start()).unwrap();
            let at = at % token.len();
            let mut changed = token.clone();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != token);
            prop_assert!(ring.verify(&changed, "holon", start()).is_err());
        }

        #[test]
        fn rubbish_is_refused_and_never_a_panic(text in ".{0,200}") {
            prop_assert!(ring().verify(&text, "holon", start()).is_err());
        }
    }
}
