//! The checker of the whole, on journals and on what nodes may show: what is right passes, and each way to be wrong is
//! named.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use holon_chaos::{
    expected::Expected,
    journal::{self, Action, Attempt, Entry, Journal, Outcome},
    judge::judge,
    observe::{Seen, SeenPerson, SeenPost},
};
use std::collections::BTreeMap;

/// What Ann, Bob and Cid did: Bob and Cid follow Ann, Cid no more; Ann wrote three texts, of which one is gone and one
/// may be there; Bob likes the one that is there.
fn entries() -> Vec<Entry> {
    let mut clock = 0;
    let mut entry = |person: &str, action: Action, outcome: Outcome| {
        clock += 10;
        let is_unknown = outcome == Outcome::Unknown;
        let attempt = Attempt {
            node: 0,
            started: clock,
            ended: clock + 5,
            status: (!is_unknown).then_some(200),
            error: String::new(),
        };
        Entry {
            person: person.into(),
            action,
            attempts: vec![attempt],
            outcome,
        }
    };
    let follow = || Action::Follow { handle: "ann".into() };
    let post = |text: &str| Action::Post { text: text.into() };
    let like = || Action::Like {
        post: 1,
        author: "ann".into(),
    };
    vec![
        entry("bob", follow(), Outcome::Done),
        entry("cid", follow(), Outcome::Done),
        entry("ann", post("one"), Outcome::Posted { post: 1 }),
        entry("ann", post("two"), Outcome::Posted { post: 2 }),
        entry("ann", post("three"), Outcome::Unknown),
        entry("ann", Action::Delete { post: 2 }, Outcome::Done),
        entry("bob", like(), Outcome::Done),
        entry("cid", like(), Outcome::Unknown),
        entry("cid", Action::Unfollow { handle: "ann".into() }, Outcome::Done),
        entry(
            "ann",
            Action::Home,
            Outcome::Seen {
                posts: vec![(3, "ann".into()), (1, "ann".into())],
                is_all: true,
            },
        ),
    ]
}

fn people() -> Vec<String> {
    ["ann", "bob", "cid"].map(str::to_owned).to_vec()
}

/// What a node shows when `three` was written as post 3, if it was, and Cid's like was counted, if it was.
fn seen(node: &str, three: bool, cids_like: bool) -> Seen {
    let likers: Vec<String> = match cids_like {
        true => vec!["bob".into(), "cid".into()],
        false => vec!["bob".into()],
    };
    let post = |id: u64, text: &str, is_liked: bool| SeenPost {
        id,
        author: "ann".into(),
        text: text.into(),
        likes: if id == 1 { likers.len() as u64 } else { 0 },
        is_liked,
    };
    let posts = |liked: bool| {
        let mut posts = vec![post(1, "one", liked)];
        if three {
            posts.insert(0, post(3, "three", false));
        }
        posts
    };
    let mut people: BTreeMap<String, SeenPerson> = BTreeMap::new();
    people.insert(
        "ann".into(),
        SeenPerson {
            followers: vec!["bob".into()],
            posts: posts(false),
            home: posts(false),
            post_count: posts(false).len() as u64,
            follower_count: 1,
            ..SeenPerson::default()
        },
    );
    people.insert(
        "bob".into(),
        SeenPerson {
            following: vec!["ann".into()],
            home: posts(true),
            following_count: 1,
            ..SeenPerson::default()
        },
    );
    people.insert("cid".into(), SeenPerson::default());
    Seen {
        node: node.into(),
        people,
        likers: BTreeMap::from([(1, likers)]),
    }
}

fn judged(entries: &[Entry], nodes: &[Seen]) -> Vec<String> {
    let expected = Expected::of(&people(), entries);
    let mut all = expected.complaints.clone();
    all.extend(judge(&expected, nodes).into_all());
    all
}

#[test]
fn what_is_right_passes_either_way_where_nobody_was_told() {
    for (three, like) in [(false, false), (true, false), (true, true), (false, true)] {
        let mut entries = entries();
        if !three {
            entries.pop();
        }
        let wrong = judged(
            &entries,
            &[seen("node-1", three, like), seen("node-2", three, like)],
        );
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

/// Changes what one node shows, and expects to be told so.
fn is_told(change: impl FnOnce(&mut Seen), words: &str) {
    let mut second = seen("node-2", true, true);
    change(&mut second);
    let wrong = judged(&entries(), &[seen("node-1", true, true), second]);
    assert!(
        wrong.iter().any(|line| line.contains(words)),
        "{words}: {wrong:#?}"
    );
}

fn person<'a>(seen: &'a mut Seen, handle: &str) -> &'a mut SeenPerson {
    seen.people.get_mut(handle).unwrap()
}

#[test]
fn what_a_node_shows_wrong_is_named() {
    is_told(
        |node| person(node, "bob").home.clear(),
        "node-2: the home of bob: 2 missing, such as [1, 3]",
    );
    is_told(
        |node| person(node, "bob").home.reverse(),
        "node-2: the home of bob is out of order",
    );
    is_told(
        |node| {
            let home = &mut person(node, "bob").home;
            let again = home[0].clone();
            home.push(again);
        },
        "the home of bob: 1 are listed twice",
    );
    is_told(
        |node| person(node, "cid").home = seen("", true, true).people["ann"].home.clone(),
        "the home of cid: 2 too many",
    );
    is_told(
        |node| person(node, "bob").home[1].is_liked = false,
        "in the home of bob, post 1 is shown as not liked by them, and is liked",
    );
    is_told(
        |node| person(node, "ann").posts[1].likes = 3,
        "post 1 of ann is said to have 3 likes, and has 2",
    );
    is_told(
        |node| person(node, "ann").follower_count = 2,
        "ann is said to have 2 followers, and has 1",
    );
    is_told(
        |node| person(node, "ann").followers.push("cid".into()),
        "node-2: the followers of ann: 1 too many",
    );
    is_told(
        |node| {
            person(node, "ann").posts.remove(0);
        },
        "node-2: the posts of ann: 1 missing",
    );
}

/// Changes what all nodes show, and expects to be told so.
fn is_told_of_all(change: impl Fn(&mut Seen), words: &str) {
    let mut nodes = [seen("node-1", true, true), seen("node-2", true, true)];
    nodes.iter_mut().for_each(change);
    let wrong = judged(&entries(), &nodes);
    assert!(
        wrong.iter().any(|line| line.contains(words)),
        "{words}: {wrong:#?}"
    );
}

#[test]
fn what_is_lost_doubled_or_made_up_is_named() {
    is_told_of_all(
        |node| {
            person(node, "ann").posts.remove(1);
        },
        "ann posted \"one\": acknowledged, and lost",
    );
    is_told_of_all(
        |node| person(node, "bob").following.clear(),
        "bob follows ann: acknowledged, and lost",
    );
    is_told_of_all(
        |node| person(node, "cid").following.push("ann".into()),
        "cid follows ann: acknowledged as taken back (or refused), and there",
    );
    is_told_of_all(
        |node| {
            let mut again = person(node, "ann").posts[1].clone();
            again.id = 9;
            person(node, "ann").posts.push(again);
        },
        "ann posted \"one\" once, and it is there 2 times: [1, 9]",
    );
    is_told_of_all(
        |node| person(node, "ann").posts[0].text = "two".into(),
        "ann posted \"two\": acknowledged as taken back (or refused), and there",
    );
    is_told_of_all(
        |node| person(node, "ann").posts[0].text = "four".into(),
        "\"four\", and never wrote that",
    );
    is_told_of_all(
        |node| {
            node.likers.insert(1, vec!["cid".into()]);
        },
        "bob likes post 1: acknowledged, and lost",
    );
    is_told_of_all(
        |node| {
            node.likers
                .insert(1, vec!["ann".into(), "bob".into(), "cid".into()]);
        },
        "ann likes post 1, and never asked to",
    );
}

#[test]
fn what_clients_saw_wrong_is_named() {
    let home = |posts: &[(u64, &str)]| Outcome::Seen {
        posts: posts
            .iter()
            .map(|(id, author)| (*id, (*author).to_owned()))
            .collect(),
        is_all: true,
    };
    let told = |person: &str, seen: Outcome, words: &str| {
        let mut entries = entries();
        let last = entries.last_mut().unwrap();
        last.person = person.into();
        last.outcome = seen;
        let wrong = Expected::of(&people(), &entries).complaints;
        assert!(
            wrong.iter().any(|line| line.contains(words)),
            "{words}: {wrong:#?}"
        );
    };
    told(
        "ann",
        home(&[]),
        "ann was told that post 1 is there, and their home, read afterwards, lacked it",
    );
    told(
        "ann",
        home(&[(2, "ann"), (1, "ann")]),
        "ann was told that post 2 is gone, and their home, read afterwards, showed it",
    );
    told("ann", home(&[(1, "ann"), (3, "ann")]), "out of order");
    told(
        "cid",
        home(&[(1, "ann")]),
        "cid follows ann no more, and their home, read afterwards, showed post 1",
    );
    told(
        "bob",
        home(&[(7, "bob")]),
        "post 7 of bob was seen in a home, and bob never wrote it",
    );
    told(
        "ann",
        Outcome::Refused {
            status: 404,
            problem: "not-found".into(),
        },
        "nothing in the journal says why",
    );
}

#[test]
fn a_journal_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.jsonl");
    let journal = Journal::create(&path).unwrap();
    for entry in entries() {
        journal.write(&entry).unwrap();
    }
    assert_eq!(journal::read(&path).unwrap(), entries());
}
