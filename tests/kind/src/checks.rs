//! A table of checks, printed as they are made.

use std::{
    io::{IsTerminal as _, Write as _, stdout},
    time::Instant,
};

use anyhow::Result;

/// Width of the column with the description.
const WHAT: usize = 72;

/// The checks made so far.
#[derive(Debug)]
pub struct Checks {
    start: Instant,
    failed: Vec<String>,
    passed: usize,
}

impl Default for Checks {
    fn default() -> Self {
        Self { start: Instant::now(), failed: Vec::new(), passed: 0 }
    }
}

impl Checks {
    /// Prints what happens next.
    pub fn step(&self, what: &str) {
        println!("{:7.1}s  {what}", self.start.elapsed().as_secs_f64());
        let _ = stdout().flush();
    }

    /// Records one check: a value on success, an error on failure.
    pub fn check(&mut self, what: &str, seen: Result<String>) {
        let (mark, seen) = match seen {
            Ok(seen) => {
                self.passed += 1;
                (green("ok"), seen)
            }
            Err(error) => {
                self.failed.push(what.to_owned());
                (red("FAILED"), format!("{error:#}"))
            }
        };
        println!("          {what:WHAT$} {mark:6}  {seen}");
        let _ = stdout().flush();
    }

    /// Prints the summary; returns whether all checks passed.
    pub fn finish(self, name: &str) -> bool {
        self.failed.iter().for_each(|what| println!("          not so: {what}"));
        println!("{name}: {} checks passed, {} failed", self.passed, self.failed.len());
        self.failed.is_empty()
    }
}

fn green(text: &str) -> String {
    paint(text, "32")
}

fn red(text: &str) -> String {
    paint(text, "31")
}

fn paint(text: &str, colour: &str) -> String {
    if stdout().is_terminal() { format!("\x1b[{colour}m{text:6}\x1b[0m") } else { text.to_owned() }
}
