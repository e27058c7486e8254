//! The tables that are there: the relation that holds each, and the statements that read it.

use holon_ports::StoreError;
use parking_lot::RwLock;
use std::{collections::HashMap, sync::Arc};

/// Relations are named like their table, up to this length: PostgreSQL cuts names at 63 bytes, and a function's name
/// is the relation's and a suffix.
const RELATION_BYTES: usize = 55;

/// One table of Holon, as SQL.
#[derive(Debug)]
pub(crate) struct TableSql {
    pub relation: String,
    pub get: String,
    pub get_many: String,
    pub walk: String,
    scans: [String; 4],
}

// Each read answers at least one row: the shard's fence, which says whether the reader's directory is recent enough.
// It comes from the same snapshot as the rows.
const VALUE: &str = "r.kind, r.bytes, r.counter, r.version, r.expires";

impl TableSql {
    fn new(relation: String) -> Self {
        let get = format!(
            "SELECT f.fence, {VALUE} FROM holon.shard f LEFT JOIN holon.\"{relation}\" r \
             ON r.tenant = $1 AND r.entity = $2 AND r.sort = $3 AND (r.expires IS NULL OR r.expires > $4)"
        );
        let get_many = format!(
            "SELECT f.fence, r.* FROM holon.shard f LEFT JOIN LATERAL ( \
                SELECT {VALUE}, k.place FROM unnest($1::text[], $2::text[], $3::bytea[]) \
                    WITH ORDINALITY AS k (tenant, entity, sort, place) \
                JOIN holon.\"{relation}\" r ON r.tenant = k.tenant AND r.entity = k.entity AND r.sort = k.sort \
                WHERE r.expires IS NULL OR r.expires > $4) r ON true"
        );
        let scan = |has_end: bool, reverse: bool| {
            let end = if has_end { "AND r.sort < $6" } else { "" };
            let order = if reverse { "DESC" } else { "ASC" };
            format!(
                "SELECT f.fence, r.* FROM holon.shard f LEFT JOIN LATERAL ( \
                    SELECT {VALUE}, r.sort FROM holon.\"{relation}\" r \
                    WHERE r.tenant = $1 AND r.entity = $2 AND r.sort >= $3 {end} \
                        AND (r.expires IS NULL OR r.expires > $4) \
                    ORDER BY r.sort {order} LIMIT $5) r ON true"
            )
        };
        let walk = format!(
            "SELECT f.fence, r.* FROM holon.shard f LEFT JOIN LATERAL ( \
                SELECT {VALUE}, r.sort, r.tenant, r.entity FROM holon.\"{relation}\" r \
                WHERE (r.tenant, r.entity, r.sort) > ($1, $2, $3) AND (r.expires IS NULL OR r.expires > $4) \
                ORDER BY r.tenant, r.entity, r.sort LIMIT $5) r ON true"
        );
        Self {
            scans: [
                scan(false, false),
                scan(false, true),
                scan(true, false),
                scan(true, true),
            ],
            relation,
            get,
            get_many,
            walk,
        }
    }

    pub fn scan(&self, has_end: bool, reverse: bool) -> &str {
        &self.scans[usize::from(has_end) * 2 + usize::from(reverse)]
    }
}

/// By name.
#[derive(Debug, Default)]
pub(crate) struct Tables(RwLock<HashMap<Box<str>, Arc<TableSql>>>);

impl Tables {
    pub fn get(&self, name: &str) -> Result<Arc<TableSql>, StoreError> {
        self.0
            .read()
            .get(name)
            .cloned()
            .ok_or_else(|| StoreError::NoSuchTable(name.to_owned()))
    }

    pub fn insert(&self, name: &str) {
        self.0
            .write()
            .entry(name.into())
            .or_insert_with(|| Arc::new(TableSql::new(relation_of(name))));
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.read().keys().map(|name| name.to_string()).collect();
        names.sort_unstable();
        names
    }

    pub fn is_there(&self, name: &str) -> bool {
        self.0.read().contains_key(name)
    }
}

/// 1 to 64 of `a-z`, `0-9`, `.` and `_`.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'_';
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

/// Names that the schema uses itself have no `.`, so a table without one gets a suffix; so does one that is too long.
/// No table's name has a `~`.
pub(crate) fn relation_of(name: &str) -> String {
    if name.contains('.') && name.len() <= RELATION_BYTES {
        return name.to_owned();
    }
    if name.len() < RELATION_BYTES {
        return format!("{name}~");
    }
    let hash = crate::directory::fnv(name.bytes());
    format!("{}~{hash:016x}", &name[..RELATION_BYTES - 17])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_short_and_differ() {
        let names = [
            "feed.posts".to_owned(),
            "outbox".to_owned(),
            "x.".to_owned() + &"y".repeat(53),
            "x.".to_owned() + &"y".repeat(54),
            "x.".to_owned() + &"y".repeat(62),
            "z".repeat(55),
            "z".repeat(54),
            "z".repeat(64),
        ];
        let relations: Vec<String> = names.iter().map(|name| relation_of(name)).collect();
        assert_eq!(relations[..2], ["feed.posts", "outbox~"]);
        for (i, relation) in relations.iter().enumerate() {
            assert!(relation.len() <= RELATION_BYTES);
            assert!(!relations[..i].contains(relation), "{relation}");
        }
    }
}
