//! Cards: posts as they are served, kept ready as bytes.
//!
//! A home page is fifty posts that hundreds of others were just served too. So each post is turned into JSON once and
//! kept; a page is made by putting those bytes in a row, with the viewer's own marks between them. Counts are
//! numbers beside the bytes: an act on this node changes them in place, before it is answered.
//!
//! A card is dropped when its post changes: on this node before the change is acknowledged, on others by a message
//! over the bus, and in any case after [`CARD_FRESH_MS`], which also bounds how old names and foreign counts are. A load that
//! began before a change never brings the old card back: each change moves its shard's epoch, and what was loaded under
//! another epoch is not kept.
//!
//! However many ask for a card that nobody has, this node reads it once ([`crate::flights`]).

use crate::{
    Feed,
    error::FeedError,
    flights::{Flight, Flights},
    model::{Kind, Mention, POSTS, PostRecord, PostRef, by_id, user},
    text,
};
use holon_base::{Id, Tenant, Timestamp};
use holon_contracts::identity::AccountSummary;
use holon_ports::{Consistency, RowKey, StoreError};
use parking_lot::Mutex;
use serde::Serialize;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

/// How long a card is served without being made anew, in milliseconds.
pub const CARD_FRESH_MS: i64 = 30_000;
const SHARDS: usize = 64;

/// How often a post was acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    Likes = 0,
    Reposts = 1,
    Replies = 2,
    Quotes = 3,
}

impl Count {
    pub const ALL: [Self; 4] = [Self::Likes, Self::Reposts, Self::Replies, Self::Quotes];

    /// The name of the counter that has it.
    pub fn counter(self, post: Id) -> String {
        let what = match self {
            Self::Likes => "likes",
            Self::Reposts => "reposts",
            Self::Replies => "replies",
            Self::Quotes => "quotes",
        };
        format!("feed.{what}:{post}")
    }
}

/// A post, ready to be served.
#[derive(Debug)]
pub struct Card {
    pub post: PostRef,
    pub version: u64,
    pub kind: Kind,
    pub created: Timestamp,
    pub reply_to: Option<PostRef>,
    pub repost_of: Option<PostRef>,
    pub quote_of: Option<PostRef>,
    pub has_link: bool,
    pub hashtags: Box<[String]>,
    /// The JSON object up to `counts`, open.
    head: Box<[u8]>,
    counts: [AtomicI64; 4],
    loaded: i64,
}

impl Card {
    pub fn count(&self, count: Count) -> u64 {
        u64::try_from(self.counts[count as usize].load(Ordering::Relaxed)).unwrap_or(0)
    }

    fn weight(&self) -> u64 {
        (self.head.len() + 320) as u64
    }
}

/// What a viewer did to a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    pub liked: bool,
    pub reposted: bool,
    pub bookmarked: bool,
}

/// A card with the cards that are shown inside it.
#[derive(Debug, Clone)]
pub struct Shown {
    pub card: Arc<Card>,
    /// Of a repost.
    pub original: Option<Arc<Card>>,
    /// Of a quote, or of a reposted quote; `None` when it is gone or not for this viewer.
    pub quoted: Option<Arc<Card>>,
}

impl Shown {
    /// The card that actions and counts are of.
    pub fn subject(&self) -> &Card {
        self.original.as_deref().unwrap_or(&self.card)
    }

    /// About how many bytes it is as JSON, rather too many.
    pub fn size(&self) -> usize {
        let cards = [Some(&self.card), self.original.as_ref(), self.quoted.as_ref()];
        cards
            .into_iter()
            .flatten()
            .map(|card| card.head.len() + 200)
            .sum()
    }

    /// Writes the post as JSON without its closing brace, so that the caller can add to it.
    pub fn write_open(&self, out: &mut Vec<u8>, flags: Option<Flags>) {
        let subject = self.subject();
        out.extend_from_slice(&self.card.head);
        if self.original.is_some() {
            out.extend_from_slice(b",\"repostOf\":");
            out.extend_from_slice(&subject.head);
            write_quote(out, subject, self.quoted.as_deref());
            write_end(out, subject, flags);
            out.push(b'}');
        } else {
            write_quote(out, subject, self.quoted.as_deref());
        }
        write_end(out, subject, flags);
    }

    /// Writes the post as a JSON object.
    pub fn write(&self, out: &mut Vec<u8>, flags: Option<Flags>) {
        self.write_open(out, flags);
        out.push(b'}');
    }
}

fn write_quote(out: &mut Vec<u8>, card: &Card, quoted: Option<&Card>) {
    if card.quote_of.is_none() {
        return;
    }
    match quoted {
        Some(quoted) => {
            out.extend_from_slice(b",\"quoteOf\":");
            out.extend_from_slice(&quoted.head);
            write_end(out, quoted, None);
            out.push(b'}');
        }
        None => out.extend_from_slice(b",\"quoteGone\":true"),
    }
}

fn write_end(out: &mut Vec<u8>, card: &Card, flags: Option<Flags>) {
    let mut number = itoa::Buffer::new();
    for (name, count) in [
        (&b",\"counts\":{\"likes\":"[..], Count::Likes),
        (b",\"reposts\":", Count::Reposts),
        (b",\"replies\":", Count::Replies),
        (b",\"quotes\":", Count::Quotes),
    ] {
        out.extend_from_slice(name);
        out.extend_from_slice(number.format(card.count(count)).as_bytes());
    }
    out.push(b'}');
    if let Some(flags) = flags {
        for (name, flag) in [
            (&b",\"viewer\":{\"liked\":"[..], flags.liked),
            (b",\"reposted\":", flags.reposted),
            (b",\"bookmarked\":", flags.bookmarked),
        ] {
            out.extend_from_slice(name);
            out.extend_from_slice(if flag { b"true" } else { b"false" });
        }
        out.push(b'}');
    }
}

/// The first part of a post's JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    id: Id,
    author: HeadAuthor<'a>,
    text: &'a str,
    created: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited: Option<Timestamp>,
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<Id>,
    hashtags: &'a [String],
    mentions: &'a [Mention],
}

#[derive(Serialize)]
struct HeadAuthor<'a> {
    id: Id,
    handle: &'a str,
    name: &'a str,
}

type CardKey = (Tenant, Id);

#[derive(Clone)]
struct ByBytes;

impl quick_cache::Weighter<CardKey, Arc<Card>> for ByBytes {
    fn weight(&self, _: &CardKey, card: &Arc<Card>) -> u64 {
        card.weight()
    }
}

/// The cards of this node, bounded by bytes.
pub(crate) struct Cards {
    kept: quick_cache::sync::Cache<CardKey, Arc<Card>, ByBytes>,
    epochs: Vec<Mutex<u64>>,
    /// By epoch too: who asks after a change does not join a load from before it.
    flights: Flights<(CardKey, u64), Arc<Card>>,
}

impl Cards {
    pub fn new(bytes: u64) -> Self {
        Self {
            kept: quick_cache::sync::Cache::with_weighter((bytes / 800) as usize, bytes, ByBytes),
            epochs: (0..SHARDS).map(|_| Mutex::new(0)).collect(),
            flights: Flights::default(),
        }
    }

    fn shard(&self, id: Id) -> &Mutex<u64> {
        // Low bits are the sequence of a millisecond and mostly 0; multiply to spread them.
        let spread = id.as_u64().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        &self.epochs[spread as usize % SHARDS]
    }

    fn get(&self, key: &CardKey, now: i64) -> Option<Arc<Card>> {
        let card = self.kept.get(key)?;
        (now - card.loaded < CARD_FRESH_MS && now >= card.loaded).then_some(card)
    }

    pub fn epoch(&self, id: Id) -> u64 {
        *self.shard(id).lock()
    }

    fn keep(&self, key: CardKey, card: &Arc<Card>, epoch: u64) {
        let current = self.shard(key.1).lock();
        if *current == epoch {
            self.kept.insert(key, card.clone());
        }
    }

    /// Drops a card, and whatever is being loaded of it.
    pub fn forget(&self, tenant: &Tenant, id: Id) {
        let mut epoch = self.shard(id).lock();
        *epoch += 1;
        self.kept.remove(&(tenant.clone(), id));
    }

    /// Changes a count in place; what is being loaded meanwhile is not kept.
    pub fn adjust(&self, tenant: &Tenant, id: Id, count: Count, delta: i64) {
        let mut epoch = self.shard(id).lock();
        *epoch += 1;
        if let Some(card) = self.kept.get(&(tenant.clone(), id)) {
            card.counts[count as usize].fetch_add(delta, Ordering::Relaxed);
        }
    }

    /// Cards and bytes held.
    pub fn size(&self) -> (usize, u64) {
        (self.kept.len(), self.kept.weight())
    }
}

impl Feed {
    /// The cards of posts, in their order; `None` for what is gone.
    pub(crate) async fn cards(
        &self,
        tenant: &Tenant,
        posts: &[PostRef],
    ) -> Result<Vec<Option<Arc<Card>>>, FeedError> {
        let now = self.clock.now().millis();
        let mut key = (tenant.clone(), Id::MIN);
        let mut cards: Vec<Option<Arc<Card>>> = Vec::with_capacity(posts.len());
        let mut missing = Vec::new();
        for (at, post) in posts.iter().enumerate() {
            key.1 = post.id;
            let card = self.cards.get(&key, now);
            if card.is_none() {
                missing.push(at);
            }
            cards.push(card);
        }
        self.stats
            .card_hits
            .fetch_add((posts.len() - missing.len()) as u64, Ordering::Relaxed);
        self.stats
            .card_misses
            .fetch_add(missing.len() as u64, Ordering::Relaxed);
        if !missing.is_empty() {
            self.load_once(tenant, posts, &missing, &mut cards).await?;
        }
        Ok(cards)
    }

    /// Loads cards that no other request is loading, then waits for those that others load.
    async fn load_once(
        &self,
        tenant: &Tenant,
        posts: &[PostRef],
        missing: &[usize],
        cards: &mut [Option<Arc<Card>>],
    ) -> Result<(), FeedError> {
        let (mut leads, mut follows) = (Vec::new(), Vec::new());
        for &at in missing {
            let id = posts[at].id;
            let key = (tenant.clone(), id);
            match self.cards.flights.join((key.clone(), self.cards.epoch(id))) {
                // Another may have landed between the look and this.
                Flight::Leads(lead) => match self.cards.get(&key, self.clock.now().millis()) {
                    Some(card) => cards[at] = Some(card),
                    None => leads.push((at, lead)),
                },
                Flight::Follows(follow) => follows.push((at, follow)),
            }
        }
        let own: Vec<usize> = leads.iter().map(|(at, _)| *at).collect();
        if !own.is_empty() {
            self.load_cards(tenant, posts, &own, cards).await?;
        }
        for (at, lead) in leads {
            if let Some(card) = &cards[at] {
                lead.land(Arc::clone(card));
            }
        }
        let mut alone = Vec::new();
        for (at, follow) in follows {
            cards[at] = follow.landed().await;
            if cards[at].is_none() {
                alone.push(at);
            }
        }
        if !alone.is_empty() {
            self.load_cards(tenant, posts, &alone, cards).await?;
        }
        Ok(())
    }

    /// Keeps the card of a post that was just made, which its author and followers are about to be shown. `epoch` is from before
    /// the commit, so that whatever happened to the post since keeps the card out.
    pub(crate) async fn keep_new_card(
        &self,
        tenant: &Tenant,
        record: &PostRecord,
        version: u64,
        epoch: u64,
    ) -> Result<(), FeedError> {
        let authors = self.authors(tenant, std::iter::once(record.author)).await?;
        let loaded = self.clock.now().millis();
        let card = make_card(record, version, authors.get(&record.author), [0; 4], loaded)?;
        let key = (tenant.clone(), record.id);
        self.authors_of_posts.insert(key.clone(), record.author);
        self.cards.keep(key, &Arc::new(card), epoch);
        Ok(())
    }

    async fn load_cards(
        &self,
        tenant: &Tenant,
        posts: &[PostRef],
        missing: &[usize],
        cards: &mut [Option<Arc<Card>>],
    ) -> Result<(), FeedError> {
        let epochs: Vec<u64> = missing.iter().map(|at| self.cards.epoch(posts[*at].id)).collect();
        let keys: Vec<RowKey> = missing
            .iter()
            .map(|at| RowKey::new(POSTS, user(tenant, posts[*at].author), by_id(posts[*at].id)))
            .collect();
        let rows = self.ports.store.get_many(&keys, Consistency::Strong).await?;
        let mut found: Vec<(usize, u64, u64, PostRecord)> = Vec::with_capacity(rows.len());
        for ((at, epoch), row) in missing.iter().zip(epochs).zip(rows) {
            if let Some(row) = row {
                found.push((*at, epoch, row.version, row.json()?));
            }
        }
        let authors = self
            .authors(tenant, found.iter().map(|(.., record)| record.author))
            .await?;
        let ids: Vec<Id> = found.iter().map(|(.., record)| record.id).collect();
        let counts = self.counts(tenant, &ids).await?;
        let loaded = self.clock.now().millis();
        for ((at, epoch, version, record), counts) in found.into_iter().zip(counts) {
            let card = Arc::new(make_card(
                &record,
                version,
                authors.get(&record.author),
                counts,
                loaded,
            )?);
            self.cards.keep((tenant.clone(), record.id), &card, epoch);
            cards[at] = Some(card);
        }
        Ok(())
    }

    /// The accounts with these ids, those that are there.
    pub(crate) async fn authors(
        &self,
        tenant: &Tenant,
        ids: impl Iterator<Item = Id>,
    ) -> Result<HashMap<Id, AccountSummary>, FeedError> {
        let mut ids: Vec<Id> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        let accounts = self.accounts.by_ids(tenant, &ids).await?;
        Ok(ids
            .into_iter()
            .zip(accounts)
            .filter_map(|(id, account)| Some((id, account?)))
            .collect())
    }

    /// Cards with what is shown inside them. A repost whose original is gone is gone too; a quoted post that is
    /// gone, or that `hides` says is not for the viewer, leaves the quote with `quoteGone`.
    pub(crate) async fn shown(
        &self,
        tenant: &Tenant,
        posts: &[(PostRef, Option<PostRef>)],
        hides: impl Fn(Id) -> bool,
    ) -> Result<Vec<Option<Shown>>, FeedError> {
        let mut wanted: Vec<PostRef> = posts.iter().map(|(post, _)| *post).collect();
        wanted.extend(posts.iter().filter_map(|(_, original)| *original));
        let mut cards = self.cards(tenant, &wanted).await?;
        let originals = cards.split_off(posts.len());
        let mut originals = originals.into_iter();
        let mut shown: Vec<Option<Shown>> = Vec::with_capacity(posts.len());
        for (card, (_, original)) in cards.into_iter().zip(posts) {
            let original_card = if original.is_some() {
                originals.next().flatten()
            } else {
                None
            };
            shown.push(match card {
                Some(card) if original.is_none() || original_card.is_some() => Some(Shown {
                    card,
                    original: original_card,
                    quoted: None,
                }),
                _ => None,
            });
        }
        let quoted_by: Vec<(usize, PostRef)> = shown
            .iter()
            .enumerate()
            .filter_map(|(at, shown)| Some((at, shown.as_ref()?.subject().quote_of?)))
            .filter(|(_, quoted)| !hides(quoted.author))
            .collect();
        if !quoted_by.is_empty() {
            let wanted: Vec<PostRef> = quoted_by.iter().map(|(_, quoted)| *quoted).collect();
            for ((at, _), card) in quoted_by.iter().zip(self.cards(tenant, &wanted).await?) {
                if let Some(shown) = &mut shown[*at] {
                    shown.quoted = card;
                }
            }
        }
        Ok(shown)
    }
}

fn make_card(
    record: &PostRecord,
    version: u64,
    author: Option<&AccountSummary>,
    counts: [i64; 4],
    loaded: i64,
) -> Result<Card, FeedError> {
    // An account that is being erased is gone before its posts are.
    let (handle, name) = author.map_or(("deleted", ""), |author| (&author.handle, &author.name));
    let head = Head {
        id: record.id,
        author: HeadAuthor {
            id: record.author,
            handle,
            name,
        },
        text: &record.text,
        created: record.created,
        edited: record.edited,
        kind: record.kind,
        reply_to: record.reply_to.map(|to| to.id),
        hashtags: &record.hashtags,
        mentions: &record.mentions,
    };
    let mut json = serde_json::to_vec(&head).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    json.pop();
    Ok(Card {
        post: PostRef {
            id: record.id,
            author: record.author,
        },
        version,
        kind: record.kind,
        created: record.created,
        reply_to: record.reply_to,
        repost_of: record.repost_of,
        quote_of: record.quote_of,
        has_link: text::has_link(&record.text),
        hashtags: record.hashtags.clone().into(),
        head: json.into_boxed_slice(),
        counts: counts.map(AtomicI64::new),
        loaded,
    })
}
