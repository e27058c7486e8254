//! Makes `docs/benchmarks.md` from the results: nothing in it that was not measured.

use crate::outcome::{Outcome, details, figure};
use anyhow::{Context as _, Result, ensure};
use std::{fmt::Write as _, path::Path};

/// The scenarios, in the order of the report.
const SCENARIOS: [&str; 10] = [
    "commits",
    "reads",
    "events",
    "home",
    "fanout",
    "footprint",
    "postgres",
    "stream",
    "homes",
    "growth",
];

pub fn write(results: &Path, report: &Path) -> Result<()> {
    let mut outcomes = Vec::new();
    for scenario in SCENARIOS {
        let path = results.join(format!("{scenario}.json"));
        if path.exists() {
            outcomes.push(Outcome::read(&path)?);
        }
    }
    ensure!(
        !outcomes.is_empty(),
        "there are no results in {}",
        results.display()
    );
    std::fs::write(report, text(&outcomes)).with_context(|| format!("cannot write {}", report.display()))?;
    println!("wrote {}", report.display());
    Ok(())
}

fn text(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "# Benchmarks\n\n\
         Made by `make bench` (`holon-bench report`) from [bench/results](../bench/results); not written by hand.\n\n\
         Every scenario runs Holon and its peer in turn on the same machine, several rounds, and states speed as the ratio of \
         two medians of that run. The range behind a ratio is that of the single rounds. Absolute figures are of the machine \
         named with them.\n\n\
         | scenario | figure | range | aim | |\n|---|--:|--:|--:|---|\n",
    );
    for outcome in outcomes {
        for verdict in &outcome.verdicts {
            let reached = if verdict.reached() {
                "reached"
            } else {
                "**missed**"
            };
            push(
                &mut text,
                format_args!(
                    "| [{}](#{}): {} | **{} {}** | {} – {} | {} | {reached} |\n",
                    outcome.scenario,
                    anchor(&outcome.title),
                    verdict.what,
                    figure(verdict.value),
                    verdict.unit,
                    figure(verdict.low),
                    figure(verdict.high),
                    verdict.aim_text(),
                ),
            );
        }
    }
    for outcome in outcomes {
        section(&mut text, outcome);
    }
    text
}

fn section(text: &mut String, outcome: &Outcome) {
    push(text, format_args!("\n## {}\n\n", outcome.title));
    text.push_str("| | median | least | most | | |\n|---|--:|--:|--:|---|---|\n");
    for line in &outcome.lines {
        push(
            text,
            format_args!(
                "| {} | {} | {} | {} | {} | {} |\n",
                line.name,
                figure(line.median()),
                figure(line.least()),
                figure(line.most()),
                line.unit,
                details(line),
            ),
        );
    }
    text.push_str("\nHow:\n\n");
    for statement in &outcome.method {
        push(text, format_args!("- {statement}\n"));
    }
    text.push_str("\nTo keep in mind:\n\n");
    for caveat in &outcome.caveats {
        push(text, format_args!("- {caveat}\n"));
    }
    let machine = &outcome.machine;
    let versions: Vec<String> = outcome
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    push(
        text,
        format_args!(
            "\nRecorded {} on {}, {} cores, {} GB, {} (Linux {}, {}); an append of 4 KiB with `fdatasync` takes {} µs there. {}.\n",
            outcome.recorded,
            machine.processor,
            machine.cores,
            machine.memory_gb,
            machine.system,
            machine.kernel,
            machine.file_system,
            machine.sync_microseconds,
            versions.join(", "),
        ),
    );
}

/// The anchor that Markdown viewers give a heading.
fn anchor(title: &str) -> String {
    title
        .chars()
        .filter_map(|letter| match letter {
            ' ' => Some('-'),
            letter if letter.is_alphanumeric() || letter == '-' => Some(letter.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    #[expect(clippy::expect_used, reason = "a String takes whatever is written to it")]
    text.write_fmt(arguments).expect("a String takes everything");
}
