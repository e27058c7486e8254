//! Disks that can be filled: each server of one shard keeps its data in a file system of its own, in memory and small.
//!
//! To mount one needs root.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Enough for a shard's rows and log, little enough to be filled at once.
const SIZE: &str = "size=768m,mode=0700";
const BALLAST: &str = "ballast";

#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error(
        "cannot mount a small disk at {path}, which needs root: {detail}; run as root, or leave out the fault disk-full"
    )]
    Mount { path: PathBuf, detail: String },
    #[error("{path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("there is no small disk for {0}")]
    Unknown(String),
}

/// The disks of a shard; unmounted when this is dropped, which must be after the cluster's end.
pub struct Disk {
    shard: String,
    mounts: Vec<PathBuf>,
}

impl Disk {
    /// Makes the disks of a shard's two servers, before the cluster in this directory is started.
    ///
    /// # Errors
    /// [`DiskError::Mount`] where this may not mount.
    pub fn mount(cluster: &Path, shard: &str) -> Result<Self, DiskError> {
        let mut disk = Self {
            shard: shard.to_owned(),
            mounts: Vec::new(),
        };
        for number in 1..=2 {
            let path = cluster.join(format!("postgres-{shard}{number}"));
            std::fs::create_dir_all(&path).map_err(|error| DiskError::File {
                path: path.clone(),
                error,
            })?;
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", SIZE, "holon-chaos"])
                .arg(&path)
                .output();
            let detail = match mounted {
                Ok(output) if output.status.success() => {
                    disk.mounts.push(path);
                    continue;
                }
                Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                Err(error) => error.to_string(),
            };
            return Err(DiskError::Mount { path, detail });
        }
        Ok(disk)
    }

    pub fn shard(&self) -> &str {
        &self.shard
    }

    /// Fills the disk of a server to the last byte, until the answer is dropped.
    ///
    /// # Errors
    /// If it cannot be filled.
    pub fn fill(&self, server: &str) -> Result<Filled, DiskError> {
        let mount = self.mounts.iter().find(|path| path.ends_with(server));
        let mount = mount.ok_or_else(|| DiskError::Unknown(server.to_owned()))?;
        let filled = Filled(mount.join(BALLAST));
        let at = |error| DiskError::File {
            path: filled.0.clone(),
            error,
        };
        let mut file = File::create(&filled.0).map_err(at)?;
        let block = vec![1_u8; 1 << 20];
        let mut size = block.len();
        // Smaller and smaller pieces, until not one byte more goes in.
        while size > 0 {
            match file.write(&block[..size]) {
                Ok(written) if written > 0 => {}
                Ok(_) => size /= 2,
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => size /= 2,
                Err(error) => return Err(at(error)),
            }
        }
        Ok(filled)
    }
}

/// What fills a disk.
pub struct Filled(PathBuf);

impl Drop for Filled {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for path in &self.mounts {
            let unmounted = Command::new("umount").arg("--lazy").arg(path).status();
            if !unmounted.is_ok_and(|status| status.success()) {
                eprintln!("cannot unmount {}", path.display());
            }
        }
    }
}
