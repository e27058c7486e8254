//! What a run showed, kept as JSON, and the table of `docs/reliability.md` made from it.

use crate::{faults::Fault, round::Round};
use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt::Write as _, path::Path};

const BEGIN: &str = "<!-- made by `make chaos`: begin -->\n";
const END: &str = "<!-- made by `make chaos`: end -->\n";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    pub seed: u64,
    /// Requests a second, and people, of each round.
    pub rate: f64,
    pub people: usize,
    pub cores: usize,
    /// Whether it was an optimised build.
    #[serde(default)]
    pub is_release: bool,
    pub rounds: Vec<Round>,
    /// What was wrong when everybody of all rounds was looked at again at the end.
    pub complaints: Vec<String>,
}

impl Results {
    pub fn new(seed: u64, rate: f64, people: usize) -> Self {
        Self {
            seed,
            rate,
            people,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            is_release: !cfg!(debug_assertions),
            rounds: Vec::new(),
            complaints: Vec::new(),
        }
    }

    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Puts the table of the results into the report, between its marks.
///
/// # Errors
/// If one of the files cannot be read or written, or the report has no marks.
pub fn report(results: &Path, report: &Path) -> Result<()> {
    let text =
        std::fs::read_to_string(results).with_context(|| format!("cannot read {}", results.display()))?;
    let results: Results = serde_json::from_str(&text)?;
    let text =
        std::fs::read_to_string(report).with_context(|| format!("cannot read {}", report.display()))?;
    let begin = text.find(BEGIN).map(|at| at + BEGIN.len());
    let (begin, end) = (begin.unwrap_or(0), text.find(END).unwrap_or(0));
    ensure!(
        0 < begin && begin <= end,
        "{} has no marks for the table",
        report.display()
    );
    let whole = format!("{}{}{}", &text[..begin], table(&results), &text[end..]);
    std::fs::write(report, whole).with_context(|| format!("cannot write {}", report.display()))?;
    println!("wrote {}", report.display());
    Ok(())
}

fn table(results: &Results) -> String {
    let mut by_fault: BTreeMap<Fault, Vec<&Round>> = BTreeMap::new();
    for round in &results.rounds {
        by_fault.entry(round.fault).or_default().push(round);
    }
    let mut text = String::from(
        "| fault | rounds | requests | errors seen | given up | s until no errors | s until homes are right | s until \
         counts are | p99 before → during, ms | slowest, s | wrong |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for (fault, rounds) in by_fault {
        let sum = |what: fn(&Round) -> usize| rounds.iter().map(|round| what(round)).sum::<usize>();
        let most = |what: fn(&Round) -> f64| rounds.iter().map(|round| what(round)).fold(0.0, f64::max);
        let range = |what: fn(&Round) -> f64| {
            let least = rounds
                .iter()
                .map(|round| what(round))
                .fold(f64::INFINITY, f64::min);
            format!("{least:.1} – {:.1}", most(what))
        };
        push(
            &mut text,
            format_args!(
                "| {fault} | {} | {} | {} | {} | {} | {} | {} | {:.0} → {:.0} | {:.1} | {} |\n",
                rounds.len(),
                sum(|round| round.requests),
                sum(|round| round.errors),
                sum(|round| round.given_up),
                range(|round| round.recovered),
                range(|round| round.homes_right),
                range(|round| round.all_right),
                most(|round| round.quiet_p99),
                most(|round| round.fault_p99),
                most(|round| round.slowest),
                sum(|round| round.complaints.len()),
            ),
        );
    }
    let acknowledged: usize = results.rounds.iter().map(|round| round.writes_acknowledged).sum();
    let wrong: usize = results.rounds.iter().map(|round| round.complaints.len()).sum();
    push(
        &mut text,
        format_args!(
            "\nOf one run of a {} build on {} cores with seed {}: {} rounds of {} people at {} requests a second, {acknowledged} \
             acknowledged writes; wrong after a round: {wrong}, wrong when everybody was looked at again at the end: {}.\n",
            if results.is_release { "release" } else { "debug" },
            results.cores,
            results.seed,
            results.rounds.len(),
            results.people,
            results.rate,
            results.complaints.len(),
        ),
    );
    text
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    #[expect(clippy::expect_used, reason = "a String takes whatever is written to it")]
    text.write_fmt(arguments).expect("a String takes everything");
}
