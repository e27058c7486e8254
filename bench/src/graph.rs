//! The graph of 4,039 people and their texts, read as `holon import social` reads them: a friendship is a follow each
//! way, and text number *i* is posted by account *(i · 2654435761) mod n*.

use anyhow::{Context as _, Result};
use flate2::read::GzDecoder;
use serde::Deserialize;
use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

/// Where the files are, from the root of the project.
pub const EDGES: &str = "demo/facebook_edges.txt.gz";
pub const POSTS: &str = "demo/posts.jsonl.gz";

/// People, who follows whom, and what each posts.
pub struct Graph {
    /// By account: its followers, who are also those it follows.
    pub followers: Vec<Vec<usize>>,
    pub texts: Vec<String>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

impl Graph {
    /// Reads the two files, compressed with gzip.
    pub fn read(edges: &Path, posts: &Path) -> Result<Self> {
        let mut followers: Vec<Vec<usize>> = Vec::new();
        for line in lines(edges)? {
            let line = line?;
            let mut numbers = line.split_whitespace().map(str::parse::<usize>);
            let (Some(Ok(a)), Some(Ok(b))) = (numbers.next(), numbers.next()) else {
                anyhow::bail!("{}: {line:?} is no friendship", edges.display());
            };
            let accounts = a.max(b) + 1;
            if followers.len() < accounts {
                followers.resize(accounts, Vec::new());
            }
            followers[a].push(b);
            followers[b].push(a);
        }
        let mut texts = Vec::new();
        for line in lines(posts)? {
            texts.push(serde_json::from_str::<Text>(&line?)?.text);
        }
        Ok(Self { followers, texts })
    }

    pub fn accounts(&self) -> usize {
        self.followers.len()
    }

    /// Who posts a text.
    pub fn author(&self, text: usize) -> usize {
        (text as u64 * 2_654_435_761 % self.accounts() as u64) as usize
    }

    /// Accounts whose home holds at least so many posts, their own among them.
    pub fn with_home_of(&self, posts: usize) -> Vec<usize> {
        let mut posted = vec![0; self.accounts()];
        for text in 0..self.texts.len() {
            posted[self.author(text)] += 1;
        }
        let home = |account: &usize| {
            let followed: usize = self.followers[*account]
                .iter()
                .map(|friend| posted[*friend])
                .sum();
            posted[*account] + followed >= posts
        };
        (0..self.accounts()).filter(home).collect()
    }
}

fn lines(path: &Path) -> Result<impl Iterator<Item = std::io::Result<String>>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(BufReader::new(GzDecoder::new(file)).lines())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_is_as_its_readme_says() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let graph = Graph::read(&root.join(EDGES), &root.join(POSTS)).unwrap();
        assert_eq!(graph.accounts(), 4_039);
        assert_eq!(graph.followers.iter().map(Vec::len).sum::<usize>(), 2 * 88_234);
        assert_eq!(graph.texts.len(), 8_834);
        let first_authors: std::collections::HashSet<_> = (0..4_039).map(|text| graph.author(text)).collect();
        assert_eq!(
            first_authors.len(),
            4_039,
            "everybody posts once before anybody posts twice"
        );
        assert!(graph.with_home_of(50).len() > 1_000);
    }
}
