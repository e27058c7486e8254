//! Comparing what is served with what it should be: the plain definition of a home, computed from rows with none of
//! the machinery that serves it.

use crate::{
    Feed,
    error::FeedError,
    model::{
        BLOCKED_BY, BLOCKS, Entry, FOLLOWERS, FOLLOWS, Kind, MUTES, Mirror, OUTBOX, POSTS, PostRecord,
        Switch, id_of, id_of_desc, owner_of,
    },
};
use holon_base::{Id, Tenant};
use holon_contracts::feed::POSTS_TOPIC;
use holon_ports::{Partition, Row, StoreError, Table};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Rows read at once in a walk.
const CHUNK: usize = 5_000;

/// Everything that the definition of a home speaks of, read from the rows of one tenant. Holds it all in memory:
/// about 100 bytes for each post and follow.
#[derive(Debug, Default)]
pub struct Oracle {
    posts: HashMap<Id, PostRecord>,
    by_author: HashMap<Id, Vec<Id>>,
    follows: HashMap<Id, HashSet<Id>>,
    /// Pairs between whom a block stands, both ways round.
    blocks: HashSet<(Id, Id)>,
    mutes: HashSet<(Id, Id)>,
}

impl Oracle {
    /// The home of somebody, newest first, by the definition.
    pub fn home(&self, reader: Id) -> Vec<Id> {
        let nobody = HashSet::new();
        let follows = self.follows.get(&reader).unwrap_or(&nobody);
        let hidden = |author: Id| {
            author != reader
                && (self.blocks.contains(&(reader, author)) || self.mutes.contains(&(reader, author)))
        };
        let authors: HashSet<Id> = follows.iter().copied().chain([reader]).collect();
        let mut home: Vec<Id> = authors
            .into_iter()
            .filter(|author| !hidden(*author))
            .flat_map(|author| self.by_author.get(&author).into_iter().flatten())
            .filter(|id| match self.posts.get(id).and_then(|post| post.repost_of) {
                Some(original) => self.posts.contains_key(&original.id) && !hidden(original.author),
                None => true,
            })
            .copied()
            .collect();
        home.sort_unstable_by(|a, b| b.cmp(a));
        home
    }

    /// Everybody who posted or follows somebody.
    pub fn people(&self) -> BTreeSet<Id> {
        self.by_author
            .keys()
            .chain(self.follows.keys())
            .copied()
            .collect()
    }
}

impl Feed {
    /// Walks a table to its end.
    pub(crate) async fn walk(
        &self,
        table: Table,
        mut each: impl FnMut(&Partition, &Row) -> Result<(), StoreError>,
    ) -> Result<(), FeedError> {
        let mut cursor = None;
        loop {
            let (rows, next) = self.ports.store.walk(table, cursor, CHUNK).await?;
            for (partition, row) in &rows {
                each(partition, row)?;
            }
            if next.is_none() {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Reads the rows of every tenant that the definition speaks of. Complete only while nobody writes.
    ///
    /// # Errors
    /// If rows cannot be read.
    pub async fn oracles(&self) -> Result<HashMap<Tenant, Oracle>, FeedError> {
        let mut oracles: HashMap<Tenant, Oracle> = HashMap::new();
        fn of<'a>(oracles: &'a mut HashMap<Tenant, Oracle>, tenant: &Tenant) -> &'a mut Oracle {
            oracles.entry(tenant.clone()).or_default()
        }
        let owner = |partition: &Partition| {
            owner_of(partition, "user:").ok_or_else(|| StoreError::Corrupt("partition is nobody's".into()))
        };
        self.walk(POSTS, |partition, row| {
            let record: PostRecord = row.json()?;
            let oracle = of(&mut oracles, &partition.tenant);
            oracle
                .by_author
                .entry(owner(partition)?)
                .or_default()
                .push(record.id);
            oracle.posts.insert(record.id, record);
            Ok(())
        })
        .await?;
        self.walk(FOLLOWS, |partition, row| {
            let oracle = of(&mut oracles, &partition.tenant);
            oracle
                .follows
                .entry(owner(partition)?)
                .or_default()
                .insert(id_of(&row.sort)?);
            Ok(())
        })
        .await?;
        self.walk(BLOCKS, |partition, row| {
            if row.json::<Switch>()?.on {
                let (blocker, blocked) = (owner(partition)?, id_of(&row.sort)?);
                let oracle = of(&mut oracles, &partition.tenant);
                oracle.blocks.extend([(blocker, blocked), (blocked, blocker)]);
            }
            Ok(())
        })
        .await?;
        self.walk(MUTES, |partition, row| {
            let oracle = of(&mut oracles, &partition.tenant);
            oracle.mutes.insert((owner(partition)?, id_of(&row.sort)?));
            Ok(())
        })
        .await?;
        Ok(oracles)
    }

    /// The ids of somebody's whole home as it is served, page by page.
    ///
    /// # Errors
    /// If it cannot be served.
    pub async fn served_home(&self, tenant: &Tenant, reader: Id, page: usize) -> Result<Vec<Id>, FeedError> {
        let mut ids = Vec::new();
        let mut before = None;
        loop {
            let reader = self.reader(tenant, reader).await?;
            let served = self.home_page(&reader, before, page).await?;
            ids.extend(served.items.iter().map(|item| item.at.id));
            before = served.next;
            if before.is_none() {
                return Ok(ids);
            }
        }
    }

    pub(crate) async fn check_all(&self) -> Result<Vec<String>, FeedError> {
        let mut faults = Vec::new();
        let oracles = self.oracles().await?;
        self.check_outboxes(&oracles, &mut faults).await?;
        self.check_graph(&oracles, &mut faults).await?;
        let waiting: u64 = self
            .ports
            .log
            .progress("feed.fanout", POSTS_TOPIC)
            .await?
            .iter()
            .map(|progress| progress.next.saturating_sub(progress.committed))
            .sum();
        for (tenant, oracle) in &oracles {
            for person in oracle.people() {
                let (served, expected) = (self.served_home(tenant, person, 200).await?, oracle.home(person));
                if served == expected {
                    continue;
                }
                let wrong = served.iter().filter(|id| !expected.contains(id)).count();
                let missing = expected.iter().filter(|id| !served.contains(id)).count();
                faults.push(format!(
                    "home of {person} in {tenant}: {missing} posts missing, {wrong} too many, of {} ({waiting} events not fanned out)",
                    expected.len()
                ));
            }
        }
        Ok(faults)
    }

    async fn check_outboxes(
        &self,
        oracles: &HashMap<Tenant, Oracle>,
        faults: &mut Vec<String>,
    ) -> Result<(), FeedError> {
        let mut listed: HashSet<(Tenant, Id)> = HashSet::new();
        self.walk(OUTBOX, |partition, row| {
            let id = id_of_desc(&row.sort)?;
            let post = oracles
                .get(&partition.tenant)
                .and_then(|oracle| oracle.posts.get(&id));
            match post {
                None => faults.push(format!(
                    "outbox of {} lists post {id}, which is not there",
                    partition.entity
                )),
                Some(post) if Entry::decode(&row.bytes())? != post.entry() => {
                    faults.push(format!(
                        "outbox of {} has post {id} otherwise than it is",
                        partition.entity
                    ));
                }
                Some(_) => {}
            }
            listed.insert((partition.tenant.clone(), id));
            Ok(())
        })
        .await?;
        for (tenant, oracle) in oracles {
            for (id, post) in &oracle.posts {
                if !listed.contains(&(tenant.clone(), *id)) {
                    faults.push(format!("post {id} is in no outbox"));
                }
                let points_nowhere = match post.kind {
                    Kind::Post => false,
                    Kind::Reply => post.reply_to.is_none(),
                    Kind::Repost => post.repost_of.is_none(),
                    Kind::Quote => post.quote_of.is_none(),
                };
                if points_nowhere {
                    faults.push(format!("post {id} does not say what it is about"));
                }
            }
        }
        Ok(())
    }

    async fn check_graph(
        &self,
        oracles: &HashMap<Tenant, Oracle>,
        faults: &mut Vec<String>,
    ) -> Result<(), FeedError> {
        let mut followers: HashSet<(Tenant, Id, Id)> = HashSet::new();
        self.walk(FOLLOWERS, |partition, row| {
            if let Some(followee) = owner_of(partition, "followers:") {
                followers.insert((partition.tenant.clone(), id_of(&row.sort)?, followee));
            }
            Ok(())
        })
        .await?;
        let mut mirrored: HashSet<(Tenant, Id, Id)> = HashSet::new();
        self.walk(BLOCKED_BY, |partition, row| {
            if let (true, Some(blocked)) = (row.json::<Mirror>()?.on, owner_of(partition, "user:")) {
                mirrored.insert((partition.tenant.clone(), id_of(&row.sort)?, blocked));
            }
            Ok(())
        })
        .await?;
        for (tenant, oracle) in oracles {
            for (follower, followees) in &oracle.follows {
                for followee in followees {
                    if !followers.remove(&(tenant.clone(), *follower, *followee)) {
                        faults.push(format!(
                            "{follower} follows {followee}, whose list does not say so"
                        ));
                    }
                }
            }
            for (_, blocker, blocked) in mirrored.iter().filter(|(of, ..)| of == tenant) {
                if !oracle.blocks.contains(&(*blocker, *blocked)) {
                    faults.push(format!(
                        "{blocked} counts as blocked by {blocker}, who does not block them"
                    ));
                }
            }
        }
        for (_, follower, followee) in followers {
            faults.push(format!(
                "list of {followee} has {follower}, who does not follow them"
            ));
        }
        Ok(())
    }
}
