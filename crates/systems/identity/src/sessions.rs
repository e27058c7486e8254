//! Sessions and their refresh tokens.
//!
//! A session is one sign-in on one device. Its access tokens live minutes and are checked against it, so that ending
//! the session ends them; its refresh token gets new ones. A refresh token is good for one use: each use makes the
//! next one (RFC 9700, 4.14.2). One that comes a second time was stolen or its successor was: the whole session, the
//! *family* of its tokens, ends.
//!
//! A refresh token names its session and its place in the family (a generation) and carries an HMAC over both and the
//! session's random salt. So nothing that opens anything is stored, not even as a hash; a made-up token is told from
//! an old genuine one, and only the latter ends the session, or a stranger who knows a session's id could.
//!
//! One case is forgiven. When an answer was lost on its way, a client sends the same token again, at once. Within
//! [`REPEAT_GRACE`] the token just used gets the *same* successor again, not another one: there is never a second
//! line of tokens. A thief who repeats a token that fast gets the successor that its owner has too, and the second use of
//! that one ends the session.

use crate::{
    model::SessionRecord,
    secret::{Secret, decode, encode, same},
};
use holon_base::{Id, Tenant, Timestamp};
use std::time::Duration;

/// How long after its use a refresh token still gets the successor that it already has.
pub const REPEAT_GRACE: Duration = Duration::from_secs(10);
/// The most sessions of an account that somebody signed in to; the oldest ends when one more begins.
pub const SESSIONS_MAX: usize = 100;
/// The longest refresh token that is looked at, in bytes.
pub const REFRESH_BYTES_MAX: usize = 256;

/// A refresh token, taken apart and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshToken {
    pub tenant: Tenant,
    pub account: Id,
    pub session: Id,
    pub generation: u64,
    mac: Vec<u8>,
}

impl RefreshToken {
    /// Takes `hr_<tenant>.<account>.<session>.<generation>.<mac>` apart.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > REFRESH_BYTES_MAX {
            return None;
        }
        let mut parts = text.strip_prefix("hr_")?.split('.');
        let token = Self {
            tenant: Tenant::new(parts.next()?).ok()?,
            account: parts.next()?.parse().ok()?,
            session: parts.next()?.parse().ok()?,
            generation: parts.next()?.parse().ok()?,
            mac: decode(parts.next()?)?,
        };
        parts.next().is_none().then_some(token)
    }

    /// Whether this deployment made it for this session.
    pub(crate) fn is_genuine(&self, secret: &Secret, salt: &str) -> bool {
        same(
            &self.mac,
            &mac(
                secret,
                &self.tenant,
                self.account,
                self.session,
                self.generation,
                salt,
            ),
        )
    }
}

/// The refresh token of a session in a generation.
pub(crate) fn refresh_token(
    secret: &Secret,
    tenant: &Tenant,
    account: Id,
    session: &SessionRecord,
) -> String {
    let mac = mac(
        secret,
        tenant,
        account,
        session.id,
        session.generation,
        &session.salt,
    );
    format!(
        "hr_{tenant}.{account}.{}.{}.{}",
        session.id,
        session.generation,
        encode(&mac)
    )
}

fn mac(secret: &Secret, tenant: &Tenant, account: Id, session: Id, generation: u64, salt: &str) -> [u8; 32] {
    secret.derive(
        "refresh",
        &[
            tenant.as_str().as_bytes(),
            &account.as_u64().to_be_bytes(),
            &session.as_u64().to_be_bytes(),
            &generation.to_be_bytes(),
            salt.as_bytes(),
        ],
    )
}

/// What is to be done about a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Move the session to the next generation.
    Advance,
    /// Answer the present generation's token once more.
    Repeat,
    /// End the session.
    Reused,
    /// Refuse; the token proves nothing.
    Refuse,
}

/// Decides about a refresh token that came in for a session. Pure.
pub(crate) fn judge(
    secret: &Secret,
    session: &SessionRecord,
    token: &RefreshToken,
    now: Timestamp,
) -> Refresh {
    if session.minted_by.is_some() || !token.is_genuine(secret, &session.salt) {
        return Refresh::Refuse;
    }
    if token.generation == session.generation {
        return Refresh::Advance;
    }
    let is_last = token.generation + 1 == session.generation;
    if is_last && now.since(session.last_used) <= REPEAT_GRACE && session.last_used <= now {
        return Refresh::Repeat;
    }
    Refresh::Reused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionRecord {
        SessionRecord {
            id: Id::from_u64(9),
            created: Timestamp::from_millis(1_000),
            last_used: Timestamp::from_millis(1_000),
            expires: Timestamp::from_millis(9_000_000),
            user_agent: String::new(),
            address: String::new(),
            generation: 0,
            salt: "salt".into(),
            minted_by: None,
        }
    }

    fn token(session: &SessionRecord) -> RefreshToken {
        let text = refresh_token(
            &Secret::new([1; 32]),
            &Tenant::default(),
            Id::from_u64(4),
            session,
        );
        RefreshToken::parse(&text).unwrap()
    }

    #[test]
    fn each_token_is_good_once_and_its_second_use_ends_the_family() {
        let secret = Secret::new([1; 32]);
        let mut session = session();
        let now = Timestamp::from_millis(50_000);
        let first = token(&session);
        assert_eq!(judge(&secret, &session, &first, now), Refresh::Advance);
        session.generation = 1;
        session.last_used = now;
        let second = token(&session);
        // The lost answer, in time and too late.
        assert_eq!(
            judge(&secret, &session, &first, now.plus(REPEAT_GRACE)),
            Refresh::Repeat
        );
        let late = now.plus(REPEAT_GRACE + Duration::from_millis(1));
        assert_eq!(judge(&secret, &session, &first, late), Refresh::Reused);
        assert_eq!(judge(&secret, &session, &second, now), Refresh::Advance);
        session.generation = 2;
        assert_eq!(
            judge(&secret, &session, &first, now),
            Refresh::Reused,
            "older than the last"
        );
    }

    #[test]
    fn a_made_up_token_ends_nothing() {
        let secret = Secret::new([1; 32]);
        let mut session = session();
        session.generation = 5;
        for generation in [0, 4, 5, 6] {
            let mut forged = token(&session);
            forged.generation = generation;
            forged.mac = vec![0; 32];
            assert_eq!(
                judge(&secret, &session, &forged, session.last_used),
                Refresh::Refuse
            );
        }
        let elsewhere = RefreshToken {
            session: Id::from_u64(10),
            ..token(&session)
        };
        assert_eq!(
            judge(&secret, &session, &elsewhere, session.last_used),
            Refresh::Refuse
        );
        let salted = SessionRecord {
            salt: "other".into(),
            ..session.clone()
        };
        assert_eq!(
            judge(&secret, &salted, &token(&session), session.last_used),
            Refresh::Refuse
        );
        for rubbish in [
            "",
            "hr_",
            "hr_main.1.2.3",
            "hr_main.1.2.3.AA.5",
            "hk_main.1.2.3.AA",
            "hr_Main.1.2.3.AA",
        ] {
            assert_eq!(RefreshToken::parse(rubbish), None, "{rubbish}");
        }
    }
}
