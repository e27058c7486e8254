//! The graph of 4,039 people and their texts, read as `holon import social` reads them: a friendship is a follow each
//! way, and text number *i* is posted by account *(i · 2654435761) mod n*.

use anyhow::{Context as _, Result};
use flate2::read::GzDecoder;
use rand::{SeedableRng as _, rngs::SmallRng, seq::SliceRandom as _};
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Read as _, Write as _},
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

    /// A graph `factor` times as large with the same distribution of degrees: the configuration model (Newman, Strogatz &
    /// Watts, "Random graphs with arbitrary degree distributions", 2001). Everybody is there `factor` times with their ends of
    /// friendships, and ends are joined at random; what joins somebody with themselves, or two people twice, is left
    /// out (some 1 % of the demo's). With factor 1 it is the graph itself.
    pub fn grown(&self, factor: usize, seed: u64) -> Self {
        let texts = (0..self.texts.len() * factor)
            .map(|number| self.texts[number % self.texts.len()].clone())
            .collect();
        if factor == 1 {
            let followers = self.followers.clone();
            return Self { followers, texts };
        }
        let accounts = self.accounts() * factor;
        let mut ends = Vec::new();
        for account in 0..accounts {
            let degree = self.followers[account % self.accounts()].len();
            ends.extend(std::iter::repeat_n(account, degree));
        }
        ends.shuffle(&mut SmallRng::seed_from_u64(seed));
        let mut friends = vec![BTreeSet::new(); accounts];
        for pair in ends.chunks_exact(2) {
            if pair[0] != pair[1] {
                friends[pair[0]].insert(pair[1]);
                friends[pair[1]].insert(pair[0]);
            }
        }
        let followers = friends
            .into_iter()
            .map(|of_one| of_one.into_iter().collect())
            .collect();
        Self { followers, texts }
    }

    /// Writes the two files that `holon import social` reads.
    pub fn write(&self, edges: &Path, posts: &Path) -> Result<()> {
        let mut file = BufWriter::new(File::create(edges)?);
        for (account, friends) in self.followers.iter().enumerate() {
            for friend in friends.iter().filter(|friend| account < **friend) {
                writeln!(file, "{account} {friend}")?;
            }
        }
        file.flush()?;
        let mut file = BufWriter::new(File::create(posts)?);
        for text in &self.texts {
            serde_json::to_writer(&mut file, &serde_json::json!({"topic": "", "text": text}))?;
            writeln!(file)?;
        }
        Ok(file.flush()?)
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

/// The lines of a file, plain or compressed with gzip.
fn lines(path: &Path) -> Result<std::io::Lines<Box<dyn BufRead>>> {
    let open = || File::open(path).with_context(|| format!("cannot read {}", path.display()));
    let mut start = Vec::new();
    open()?.take(2).read_to_end(&mut start)?;
    let reader: Box<dyn BufRead> = match start[..] {
        [0x1f, 0x8b] => Box::new(BufReader::new(GzDecoder::new(open()?))),
        _ => Box::new(BufReader::new(open()?)),
    };
    Ok(reader.lines())
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

    #[test]
    fn a_grown_graph_has_the_same_degrees() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let graph = Graph::read(&root.join(EDGES), &root.join(POSTS)).unwrap();
        let grown = graph.grown(3, 1);
        assert_eq!(grown.accounts(), 3 * graph.accounts());
        assert_eq!(grown.texts.len(), 3 * graph.texts.len());
        let sum = |graph: &Graph| graph.followers.iter().map(Vec::len).sum::<usize>();
        let share = sum(&grown) as f64 / sum(&graph) as f64;
        assert!((2.9..=3.0).contains(&share), "{share}");

        let directory = tempfile::tempdir().unwrap();
        let (edges, posts) = (directory.path().join("edges"), directory.path().join("posts"));
        grown.write(&edges, &posts).unwrap();
        let read = Graph::read(&edges, &posts).unwrap();
        assert_eq!(read.texts, grown.texts);
        assert_eq!(sum(&read), sum(&grown));
    }
}
