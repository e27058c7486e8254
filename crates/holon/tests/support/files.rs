//! A small graph, or the real one, to import; and whether what was imported is right.
#![allow(dead_code, reason = "no test uses all of it")]

use crate::{
    oracle::{self, every_home_is_right},
    support::{Api, Server, holon, succeeds},
};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

/// A ring of people with chords, and some texts for each.
pub struct Files {
    pub edges: PathBuf,
    pub posts: PathBuf,
    people: usize,
    friendships: usize,
    texts: usize,
}

impl Files {
    pub fn write(directory: &Path, people: usize, texts: usize) -> Self {
        let mut edges = String::from("# a ring with chords\n");
        let mut friendships = 0;
        for step in [1, 3, 7] {
            for a in 0..people {
                edges += &format!("{a} {}\n", (a + step) % people);
                friendships += 1;
            }
        }
        let lines: Vec<String> = (0..texts)
            .map(|i| {
                format!(
                    "{{\"topic\":\"t{}\",\"text\":\"text number {i} of {texts}\"}}",
                    i % 5
                )
            })
            .collect();
        let files = Self {
            edges: directory.join("edges.txt"),
            posts: directory.join("posts.jsonl"),
            people,
            friendships,
            texts,
        };
        std::fs::write(&files.edges, edges).unwrap();
        std::fs::write(&files.posts, lines.join("\n")).unwrap();
        files
    }

    pub fn demo() -> Self {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo");
        Self {
            edges: demo.join("facebook_edges.txt.gz"),
            posts: demo.join("posts.jsonl.gz"),
            people: 4_039,
            friendships: 88_234,
            texts: 8_834,
        }
    }

    pub fn command(&self, url: &str, token_file: &Path) -> Command {
        let mut command = holon();
        command.args(["import", "social", "--wait", "--server", url]);
        command
            .arg("--edges")
            .arg(&self.edges)
            .arg("--posts")
            .arg(&self.posts);
        command.arg("--token-file").arg(token_file);
        command
    }

    /// Imports as the administrator whose token is in the server's data directory.
    pub fn import(&self, server: &Server) -> String {
        succeeds(&mut self.command(&server.url, &server.data.join("admin.token")))
    }

    pub fn start(&self, url: &str, data: &Path) -> Child {
        let mut command = self.command(url, &data.join("admin.token"));
        command.stdout(Stdio::null()).spawn().unwrap()
    }

    fn handles(&self) -> Vec<String> {
        (0..self.people).map(|number| format!("u{number}")).collect()
    }

    /// Everything is there once, and every home is as it must be.
    pub async fn all_is_right(&self, api: &Api) {
        self.all_is_right_beside(0, api).await;
    }

    /// The same where other texts were posted, too.
    pub async fn all_is_right_beside(&self, others: usize, api: &Api) {
        let handles = self.handles();
        let world = Arc::new(oracle::read(api, &handles).await);
        assert_eq!(world.follow_count(), 2 * self.friendships);
        assert_eq!(world.post_count(), others + self.texts);
        let texts: std::collections::HashSet<&str> = world
            .posts
            .values()
            .flatten()
            .map(|(_, text)| text.as_str())
            .collect();
        assert_eq!(texts.len(), others + self.texts);
        every_home_is_right(api, &world, &handles).await;
    }
}
