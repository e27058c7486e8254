//! How far an import is, on standard error: one line that is rewritten on a terminal, a plain line every few
//! seconds elsewhere.

use parking_lot::Mutex;
use std::{
    io::{IsTerminal as _, Write as _},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

const ON_TERMINAL: Duration = Duration::from_millis(200);
const ELSEWHERE: Duration = Duration::from_secs(5);

/// The progress of one phase, such as "follows". Counting is cheap and may be done from any task.
pub struct Progress {
    phase: &'static str,
    total: usize,
    done: AtomicUsize,
    /// Of those done, how many were there before: they tell nothing about the rate.
    found: AtomicUsize,
    began: Instant,
    shown: Mutex<Instant>,
    terminal: bool,
}

impl Progress {
    pub fn start(phase: &'static str, total: usize) -> Self {
        let now = Instant::now();
        Self {
            phase,
            total,
            done: AtomicUsize::new(0),
            found: AtomicUsize::new(0),
            began: now,
            shown: Mutex::new(now),
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Counts something that was made now.
    pub fn made(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.show_now_and_then();
    }

    /// Counts things that were there already.
    pub fn found(&self, count: usize) {
        self.done.fetch_add(count, Ordering::Relaxed);
        self.found.fetch_add(count, Ordering::Relaxed);
        self.show_now_and_then();
    }

    /// Sets what is done, for a phase that goes up and down.
    pub fn set(&self, done: usize) {
        self.done.store(done, Ordering::Relaxed);
        self.show_now_and_then();
    }

    /// The last line of the phase; answers how many were made and how many were there.
    pub fn finish(&self) -> (usize, usize) {
        if self.terminal {
            eprint!("\r\x1b[2K");
        }
        let (done, found) = (
            self.done.load(Ordering::Relaxed),
            self.found.load(Ordering::Relaxed),
        );
        let took = self.began.elapsed().as_secs_f64();
        let there = match found {
            0 => String::new(),
            found => format!(", {} of them there already", grouped(found)),
        };
        eprintln!("  {:<9} {}{there} in {took:.1} s", self.phase, grouped(done));
        (done.saturating_sub(found), found)
    }

    fn show_now_and_then(&self) {
        let every = if self.terminal { ON_TERMINAL } else { ELSEWHERE };
        let Some(mut shown) = self.shown.try_lock() else {
            return;
        };
        if shown.elapsed() < every {
            return;
        }
        *shown = Instant::now();
        let line = self.line(self.began.elapsed());
        let mut out = std::io::stderr().lock();
        let _ = match self.terminal {
            true => write!(out, "\r\x1b[2K  {line}"),
            false => writeln!(out, "  {line}"),
        };
        let _ = out.flush();
    }

    fn line(&self, elapsed: Duration) -> String {
        let (done, found) = (
            self.done.load(Ordering::Relaxed),
            self.found.load(Ordering::Relaxed),
        );
        let rate = done.saturating_sub(found) as f64 / elapsed.as_secs_f64().max(0.001);
        let left = self.total.saturating_sub(done) as f64 / rate;
        let eta = if left.is_finite() {
            format!(", {left:.0} s left")
        } else {
            String::new()
        };
        format!(
            "{:<9} {} of {}, {} a second{eta}",
            self.phase,
            grouped(done),
            grouped(self.total),
            grouped(rate as usize)
        )
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_and_time_left_of_what_is_new() {
        let progress = Progress::start("follows", 11_000);
        progress.found(1_000);
        for _ in 0..5_000 {
            progress.made();
        }
        let line = progress.line(Duration::from_secs(2));
        assert_eq!(line, "follows   6,000 of 11,000, 2,500 a second, 2 s left");
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(
            [0, 999, 1_000, 176_468].map(grouped),
            ["0", "999", "1,000", "176,468"]
        );
    }
}
