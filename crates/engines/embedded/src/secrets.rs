//! Secrets of the deployment: random, made when first asked for, kept in files that only the owner may read.

use crate::EngineError;
use parking_lot::Mutex;
use rand::Rng as _;
use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

#[derive(Debug)]
pub(crate) struct Secrets {
    dir: PathBuf,
    making: Mutex<()>,
}

impl Secrets {
    pub fn open(dir: &Path) -> Self {
        Self {
            dir: dir.join("secrets"),
            making: Mutex::new(()),
        }
    }

    pub fn get(&self, name: &str) -> Result<[u8; 32], EngineError> {
        let _one_at_a_time = self.making.lock();
        let path = self.dir.join(name);
        let io = |source| EngineError::Io {
            path: path.clone(),
            source,
        };
        match fs::read(&path) {
            Ok(bytes) => {
                return bytes.try_into().map_err(|_| EngineError::Corrupt {
                    path: path.clone(),
                    detail: "a secret is 32 bytes".into(),
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        let mut secret = [0; 32];
        rand::rng().fill_bytes(&mut secret);
        self.write(name, secret)?;
        Ok(secret)
    }

    /// Every secret that was made, by name.
    pub fn all(&self) -> Result<Vec<(String, [u8; 32])>, EngineError> {
        let io = |source| EngineError::Io {
            path: self.dir.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
            // What was being written when the process died is none.
            if is_name(&name) {
                names.push(name);
            }
        }
        names.sort_unstable();
        let secrets = names.into_iter().map(|name| Ok((name.clone(), self.get(&name)?)));
        secrets.collect()
    }

    /// Takes a secret over from elsewhere.
    pub fn put(&self, name: &str, secret: [u8; 32]) -> Result<(), EngineError> {
        if !is_name(name) {
            return Err(EngineError::Options(format!("{name:?} is no secret's name")));
        }
        let _one_at_a_time = self.making.lock();
        self.write(name, secret)
    }

    fn write(&self, name: &str, secret: [u8; 32]) -> Result<(), EngineError> {
        let path = self.dir.join(name);
        let io = |source| EngineError::Io {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(&self.dir).map_err(io)?;
        // Written aside and renamed, so that a crash leaves a whole secret or none.
        let aside = self.dir.join(format!("{name}.new"));
        let _ = fs::remove_file(&aside);
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&aside).map_err(io)?;
        file.write_all(&secret).map_err(io)?;
        file.sync_all().map_err(io)?;
        fs::rename(&aside, &path).map_err(io)?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(io)
    }
}

/// 1 to 64 of `a-z`, `0-9` and `-`.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}
