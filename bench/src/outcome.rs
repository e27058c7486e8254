//! What a scenario found: lines with their samples, verdicts against the aims, and how to read them.

use crate::machine::Machine;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// One run of one contender.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    pub value: f64,
    /// What else was seen, such as `p99 ms`; the line shows the medians.
    pub detail: Vec<(&'static str, f64)>,
}

impl Sample {
    pub fn new(value: f64) -> Self {
        Self {
            value,
            detail: Vec::new(),
        }
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, value: f64) -> Self {
        self.detail.push((name, value));
        self
    }
}

/// All runs of one contender.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    pub name: String,
    pub unit: String,
    /// In the order of the rounds.
    pub samples: Vec<f64>,
    /// Medians over the rounds.
    pub detail: BTreeMap<String, f64>,
    #[serde(skip)]
    details: BTreeMap<&'static str, Vec<f64>>,
}

impl Line {
    pub fn new(name: impl Into<String>, unit: &str) -> Self {
        Self {
            name: name.into(),
            unit: unit.into(),
            samples: Vec::new(),
            detail: BTreeMap::new(),
            details: BTreeMap::new(),
        }
    }

    pub fn push(&mut self, sample: Sample) {
        self.samples.push(sample.value);
        for (name, value) in sample.detail {
            let values = self.details.entry(name).or_default();
            values.push(value);
            self.detail.insert(name.into(), median(values));
        }
    }

    pub fn median(&self) -> f64 {
        median(&self.samples)
    }

    pub fn least(&self) -> f64 {
        self.samples.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn most(&self) -> f64 {
        self.samples.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

/// The middle value; the mean of the two middle ones of an even number; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// A figure against its aim.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict {
    pub what: String,
    pub value: f64,
    /// The same figure from the least and the most favourable pair of runs in one round.
    pub low: f64,
    pub high: f64,
    /// `×` for a ratio, else `MB` or `s`.
    pub unit: String,
    pub aim: f64,
    /// Whether the aim is a ceiling rather than a floor.
    pub at_most: bool,
}

impl Verdict {
    /// The ratio of two lines' medians. Its range is that of the ratios of the single rounds.
    pub fn ratio(what: impl Into<String>, ours: &Line, peer: &Line, aim: f64) -> Self {
        let rounds = ours
            .samples
            .iter()
            .zip(&peer.samples)
            .map(|(ours, peer)| ours / peer);
        let (low, high) = rounds.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), ratio| {
            (low.min(ratio), high.max(ratio))
        });
        Self {
            what: what.into(),
            value: ours.median() / peer.median(),
            low,
            high,
            unit: "×".into(),
            aim,
            at_most: false,
        }
    }

    /// The median of a line, which must stay below a ceiling.
    pub fn ceiling(what: impl Into<String>, line: &Line, aim: f64) -> Self {
        Self {
            what: what.into(),
            value: line.median(),
            low: line.least(),
            high: line.most(),
            unit: line.unit.clone(),
            aim,
            at_most: true,
        }
    }

    pub fn reached(&self) -> bool {
        if self.at_most {
            self.value <= self.aim
        } else {
            self.value >= self.aim
        }
    }

    pub fn aim_text(&self) -> String {
        let sign = if self.at_most { "≤" } else { "≥" };
        format!("{sign} {} {}", plain(self.aim), self.unit)
    }
}

/// What a scenario found, as it is kept in `bench/results/<scenario>.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    pub scenario: String,
    pub title: String,
    /// What is compared, and how: one statement each.
    pub method: Vec<String>,
    /// What a reader must know before quoting a figure.
    pub caveats: Vec<String>,
    pub recorded: String,
    pub machine: Machine,
    pub versions: BTreeMap<String, String>,
    pub lines: Vec<Line>,
    pub verdicts: Vec<Verdict>,
}

impl Outcome {
    /// Writes the JSON, and the table to standard output.
    pub fn publish(&self, results: &Path) -> Result<()> {
        std::fs::create_dir_all(results).with_context(|| format!("cannot make {}", results.display()))?;
        let path = results.join(format!("{}.json", self.scenario));
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        print!("{}", self.table());
        Ok(())
    }

    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is no outcome of a scenario", path.display()))
    }

    fn table(&self) -> String {
        let mut rows = vec![[
            "".to_owned(),
            "median".into(),
            "least".into(),
            "most".into(),
            "".into(),
            "".into(),
        ]];
        for line in &self.lines {
            rows.push([
                line.name.clone(),
                figure(line.median()),
                figure(line.least()),
                figure(line.most()),
                line.unit.clone(),
                details(line),
            ]);
        }
        let mut text = format!("\n{}\n", self.title);
        text.push_str(&align(&rows));
        for verdict in &self.verdicts {
            text.push_str(&format!(
                "  {}: {} {} ({} to {}), aim {}: {}\n",
                verdict.what,
                figure(verdict.value),
                verdict.unit,
                figure(verdict.low),
                figure(verdict.high),
                verdict.aim_text(),
                if verdict.reached() { "reached" } else { "missed" },
            ));
        }
        text
    }
}

/// Details as `name value`, comma-separated.
pub fn details(line: &Line) -> String {
    let mut parts = Vec::new();
    for (name, value) in &line.detail {
        parts.push(format!("{name} {}", figure(*value)));
    }
    parts.join(", ")
}

fn align(rows: &[[String; 6]]) -> String {
    let mut widths = [0; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (column, (width, cell)) in widths.iter().zip(row).enumerate() {
            let width = *width;
            // Figures to the right, words to the left.
            let cell = match column {
                1..=3 => format!(" {cell:>width$} "),
                _ => format!(" {cell:<width$} "),
            };
            line.push_str(&cell);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A figure with three digits that matter, and thousands set apart.
pub fn figure(value: f64) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text.as_str(), None),
    };
    let (sign, digits) = match whole.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", whole),
    };
    let mut grouped = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if let Some(fraction) = fraction {
        grouped.push('.');
        grouped.push_str(fraction);
    }
    grouped
}

/// An aim as it was set: without decimals that say nothing.
fn plain(value: f64) -> String {
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn figures_keep_three_digits_and_set_thousands_apart() {
        for (value, text) in [
            (1_234_567.4, "1,234,567"),
            (999.6, "1,000"),
            (12.34, "12.3"),
            (1.5, "1.50"),
            (0.1234, "0.123"),
            (-4321.0, "-4,321"),
        ] {
            assert_eq!(figure(value), text);
        }
    }

    #[test]
    fn a_ratio_is_of_medians_and_its_range_of_rounds() {
        let mut ours = Line::new("ours", "x/s");
        let mut peer = Line::new("peer", "x/s");
        for (a, b) in [(10.0, 5.0), (30.0, 5.0), (20.0, 10.0)] {
            ours.push(Sample::new(a));
            peer.push(Sample::new(b));
        }
        let verdict = Verdict::ratio("ours over peer", &ours, &peer, 4.0);
        assert_eq!((verdict.value, verdict.low, verdict.high), (4.0, 2.0, 6.0));
        assert!(verdict.reached());
    }
}
