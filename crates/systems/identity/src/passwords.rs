//! Passwords: which ones are taken, and how they are kept.
//!
//! Kept as argon2id in a PHC string with the parameters of the OWASP Password Storage Cheat Sheet (19 MiB, two
//! passes, one lane). Taken by the rules of NIST SP 800-63B: at least eight characters, no composition rules, and
//! nothing that is on a list of common passwords or says the handle or name.
//!
//! A hash costs some 20 ms of a core and 19 MiB. So that a storm of logins starves nothing else, only as many run at
//! once as there are permits, on threads of their own, and only so many may wait; the rest is told to come back.
//! An unknown handle costs the same as a known one: its password is checked against a hash that nobody has.

use crate::secret::random;
use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version,
    password_hash::phc::{ParamsString, PasswordHash},
};
use std::{
    collections::HashSet,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::Semaphore;

/// The fewest characters of a password.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// The most characters of a password; hashing time does not depend on it.
pub const PASSWORD_CHARS_MAX: usize = 256;

static COMMON: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    include_str!("data/common_passwords.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect()
});

/// Why a password is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    #[error("a password has at least {PASSWORD_CHARS_MIN} characters")]
    TooShort,
    #[error("a password has at most {PASSWORD_CHARS_MAX} characters")]
    TooLong,
    #[error("this password is among the first that anybody would try; choose another")]
    Common,
    #[error("the handle or name is no password; choose another")]
    Personal,
}

/// Decides whether a password is taken for an account. Microseconds; no I/O.
pub fn check_strength(password: &str, handle: &str, name: &str) -> Result<(), WeakPassword> {
    let chars = password.chars().count();
    if chars < PASSWORD_CHARS_MIN {
        return Err(WeakPassword::TooShort);
    }
    if chars > PASSWORD_CHARS_MAX {
        return Err(WeakPassword::TooLong);
    }
    let lower = password.to_lowercase();
    if is_common(&lower) {
        return Err(WeakPassword::Common);
    }
    // What is left when the handle or name is taken out must be a password too: `ada_lovelace1` is not.
    let squeezed: String = lower.chars().filter(|c| c.is_alphanumeric()).collect();
    for personal in [handle, name] {
        let personal: String = personal
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric())
            .collect();
        if personal.chars().count() < 3 {
            continue;
        }
        let rest = squeezed.replace(&personal, "");
        if rest.len() < squeezed.len() && rest.chars().count() < 4 {
            return Err(WeakPassword::Personal);
        }
    }
    Ok(())
}

/// On the list as it is, or after undoing what people do to a listed one: figures and marks at its end, letters
/// written as figures; or one character, or one run of the alphabet or the figures, over and over.
fn is_common(lower: &str) -> bool {
    let plain: String = lower
        .chars()
        .map(|c| match c {
            '0' => 'o',
            '1' | '!' => 'i',
            '3' => 'e',
            '4' | '@' => 'a',
            '5' | '$' => 's',
            '7' => 't',
            other => other,
        })
        .collect();
    let stem = lower.trim_end_matches(|c: char| !c.is_alphabetic());
    [lower, plain.as_str(), stem]
        .iter()
        .any(|form| COMMON.contains(form))
        || is_run(lower)
}

fn is_run(text: &str) -> bool {
    let chars: Vec<u32> = text.chars().map(u32::from).collect();
    let steps: HashSet<i64> = chars
        .windows(2)
        .map(|pair| i64::from(pair[1]) - i64::from(pair[0]))
        .collect();
    steps.len() == 1 && steps.iter().all(|step| step.abs() <= 1)
}

/// What a hash costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordCost {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

impl PasswordCost {
    /// The OWASP Password Storage Cheat Sheet's first choice for argon2id but one: 19 MiB, two passes, one lane.
    pub const OWASP: Self = Self {
        memory_kib: 19 * 1024,
        passes: 2,
        lanes: 1,
    };
    /// For tests: the least that argon2 allows.
    pub const CHEAPEST: Self = Self {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };
}

/// Why a password was neither hashed nor checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("too many passwords are being checked")]
    Busy,
    #[error("password hashing failed: {0}")]
    Broken(String),
}

/// Hashes and checks passwords, a bounded number at once.
#[derive(Debug)]
pub struct Passwords {
    argon2: Argon2<'static>,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_most: usize,
    /// A hash that no password has: what an unknown handle's password is checked against.
    nobodys: Arc<str>,
}

impl Passwords {
    /// `at_once` hashes run at the same time, `waiting_most` more may wait.
    ///
    /// # Errors
    /// If argon2 does not allow the cost.
    pub fn new(cost: PasswordCost, at_once: usize, waiting_most: usize) -> Result<Self, PasswordError> {
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, None).map_err(broken)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobodys = hash_with(&argon2, &random::<32>())?;
        Ok(Self {
            argon2,
            permits: Arc::new(Semaphore::new(at_once.max(1))),
            waiting: AtomicUsize::new(0),
            waiting_most,
            nobodys: nobodys.into(),
        })
    }

    /// A PHC string with a new salt.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] when too many wait.
    pub async fn hash(&self, password: &str) -> Result<String, PasswordError> {
        let password = password.as_bytes().to_vec();
        let argon2 = self.argon2.clone();
        self.run(move || hash_with(&argon2, &password)).await?
    }

    /// Whether a password is the one of a PHC string, made with whatever parameters; `None` for nobody's, which
    /// takes as long and is always wrong.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] when too many wait; [`PasswordError::Broken`] for a string that is no hash.
    pub async fn verify(&self, password: &str, phc: Option<&str>) -> Result<bool, PasswordError> {
        let known = phc.is_some();
        let phc: Arc<str> = phc.map_or_else(|| self.nobodys.clone(), Arc::from);
        let password = password.as_bytes().to_vec();
        let argon2 = self.argon2.clone();
        let matches = self
            .run(move || {
                use argon2::password_hash::Error;
                let hash = PasswordHash::new(&phc).map_err(broken)?;
                match argon2.verify_password(&password, &hash) {
                    Ok(()) => Ok(true),
                    Err(Error::PasswordInvalid) => Ok(false),
                    Err(error) => Err(broken(error)),
                }
            })
            .await??;
        Ok(matches && known)
    }

    /// Whether a hash was made with other parameters than today's: then hash anew after a login.
    pub fn is_outdated(&self, phc: &str) -> bool {
        let today = ParamsString::try_from(self.argon2.params());
        match (PasswordHash::new(phc), today) {
            (Ok(hash), Ok(today)) => hash.algorithm.as_str() != "argon2id" || hash.params != today,
            _ => true,
        }
    }

    /// Checks that run or wait now.
    pub fn in_hand(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let place = Place::take(&self.waiting, self.waiting_most)?;
        let permit = self.permits.clone().acquire_owned().await.map_err(broken)?;
        // The permit goes along with the work: a caller that goes away leaves no more threads busy than permits.
        let done = tokio::task::spawn_blocking(move || {
            let answer = work();
            drop(permit);
            answer
        });
        let answer = done.await.map_err(broken);
        drop(place);
        answer
    }
}

struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(count: &'a AtomicUsize, most: usize) -> Result<Self, PasswordError> {
        let place = Self(count);
        if count.fetch_add(1, Ordering::Relaxed) >= most {
            return Err(PasswordError::Busy);
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn hash_with(argon2: &Argon2<'_>, password: &[u8]) -> Result<String, PasswordError> {
    let hash: PasswordHash = argon2
        .hash_password_with_salt(password, &random::<16>())
        .map_err(broken)?;
    Ok(hash.to_string())
}

fn broken(error: impl std::fmt::Display) -> PasswordError {
    PasswordError::Broken(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_short_and_personal_passwords_are_refused() {
        for (password, why) in [
            ("short7!", WeakPassword::TooShort),
            ("åäöåäö1", WeakPassword::TooShort),
            ("password", WeakPassword::Common),
            ("Password", WeakPassword::Common),
            ("P@ssw0rd", WeakPassword::Common),
            ("passwords", WeakPassword::Common),
            ("password123!", WeakPassword::Common),
            ("iloveyou2024", WeakPassword::Common),
            ("12345678", WeakPassword::Common),
            ("zzzzzzzzzzzz", WeakPassword::Common),
            ("abcdefghijkl", WeakPassword::Common),
            ("987654321", WeakPassword::Common),
            ("ada_lovelace", WeakPassword::Personal),
            ("AdaLovelace99", WeakPassword::Personal),
            ("Countess Ada", WeakPassword::Personal),
        ] {
            assert_eq!(
                check_strength(password, "ada_lovelace", "Countess Ada"),
                Err(why),
                "{password}"
            );
        }
        let long = "x1".repeat(128);
        assert_eq!(check_strength(&long, "ada", "Ada"), Ok(()));
        assert_eq!(
            check_strength(&(long + "y"), "ada", "Ada"),
            Err(WeakPassword::TooLong)
        );
        for good in [
            "correct horse battery",
            "Tr4v3rtine-lamp",
            "ada likes long walks",
            "🐢🐇🐢🐇🦊🐢🐇🐢",
        ] {
            assert_eq!(check_strength(good, "ada", "Ada"), Ok(()), "{good}");
        }
    }

    #[tokio::test]
    async fn a_hash_is_argon2id_with_the_parameters_of_owasp_and_finds_only_its_password() {
        let passwords = Passwords::new(PasswordCost::OWASP, 1, 10).unwrap();
        let hash = passwords.hash("correct horse battery").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(
            passwords
                .verify("correct horse battery", Some(&hash))
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .verify("correct horse batterz", Some(&hash))
                .await
                .unwrap()
        );
        assert!(!passwords.verify("correct horse battery", None).await.unwrap());
        assert!(!passwords.is_outdated(&hash));
        let cheap = Passwords::new(PasswordCost::CHEAPEST, 1, 10).unwrap();
        assert!(cheap.is_outdated(&hash));
        assert!(cheap.verify("correct horse battery", Some(&hash)).await.unwrap());
        assert_ne!(
            cheap.hash("same password").await.unwrap(),
            cheap.hash("same password").await.unwrap()
        );
    }

    #[tokio::test]
    async fn a_storm_is_bounded_and_leaves_the_door_open() {
        let passwords = Arc::new(Passwords::new(PasswordCost::CHEAPEST, 2, 8).unwrap());
        let storm: Vec<_> = (0..200)
            .map(|_| {
                let passwords = passwords.clone();
                async move { passwords.verify("whatever it is", None).await }
            })
            .collect();
        let answers = futures::future::join_all(storm).await;
        let busy = answers
            .iter()
            .filter(|answer| **answer == Err(PasswordError::Busy))
            .count();
        assert!(busy >= 150, "{busy} were turned away");
        assert!(answers.contains(&Ok(false)));
        assert_eq!(passwords.in_hand(), 0);
        assert_eq!(passwords.verify("whatever it is", None).await, Ok(false));
    }
}
