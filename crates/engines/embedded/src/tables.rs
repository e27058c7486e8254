//! Tables: the names that were created, and the number that stands for each in keys.

use holon_ports::StoreError;
use parking_lot::RwLock;
use std::collections::HashMap;

/// The number of each table, by name.
#[derive(Debug, Default)]
pub(crate) struct Tables(RwLock<HashMap<Box<str>, u16>>);

impl Tables {
    pub fn id(&self, name: &str) -> Result<u16, StoreError> {
        self.0
            .read()
            .get(name)
            .copied()
            .ok_or_else(|| StoreError::NoSuchTable(name.to_owned()))
    }

    pub fn insert(&self, name: &str, id: u16) {
        self.0.write().insert(name.into(), id);
    }

    pub fn is_there(&self, name: &str) -> bool {
        self.0.read().contains_key(name)
    }

    /// The number for the next table; `None` when all 65,535 are taken.
    pub fn next_id(&self) -> Option<u16> {
        match self.0.read().values().max() {
            Some(last) => last.checked_add(1),
            None => Some(1),
        }
    }
}

/// 1 to 64 of `a-z`, `0-9`, `.` and `_`.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'_';
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}
