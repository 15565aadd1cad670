//! Crates that decide are given the time and random numbers by whoever calls them.
//!
//! Invariant: no production code of a synchronous crate reads a clock or draws a random number.

use std::{fs, path::Path};

use anyhow::Result;

use crate::{layers::SYNCHRONOUS, source::Source};

/// Ends of paths that read a clock, whichever library the type is of.
const CLOCKS: &[[&str; 2]] =
    &[["Instant", "now"], ["SystemTime", "now"], ["Timestamp", "now"], ["Utc", "now"], ["Zoned", "now"]];
/// Libraries and functions that draw random numbers.
const RANDOM: &[&str] = &["fastrand", "getrandom", "rand", "thread_rng"];

/// Every use of a clock or of randomness, one sentence each.
pub(crate) fn violations(root: &Path) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for name in SYNCHRONOUS {
        let file = root.join("crates").join(name).join("src/lib.rs");
        let source = Source::read(&file, |path| Ok(fs::read_to_string(path)?))?;
        wrong.extend(impure(root, &source));
    }
    Ok(wrong)
}

fn impure<F: Fn(&Path) -> Result<String>>(root: &Path, source: &Source<F>) -> Vec<String> {
    let shown = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
    let named = source.names().into_iter().filter(|(_, name)| reads_clock(name) || draws(name));
    named
        .map(|(file, name)| {
            format!(
                "{} uses {}: a pure crate takes the time and random numbers as arguments",
                shown(file),
                name.join("::")
            )
        })
        .collect()
}

fn reads_clock(name: &[String]) -> bool {
    name.windows(2).any(|pair| CLOCKS.iter().any(|clock| pair == clock))
}

fn draws(name: &[String]) -> bool {
    let is_random = |part: Option<&String>| part.is_some_and(|part| RANDOM.contains(&part.as_str()));
    is_random(name.first()) || is_random(name.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<String> {
        let source = Source::read(Path::new("/c/lib.rs"), |_| Ok(text.to_owned())).unwrap();
        impure(Path::new("/c"), &source)
    }

    #[test]
    fn pure_crates_read_no_clock_and_draw_no_number() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert_eq!(violations(root).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_clock_or_a_random_number_is_named_and_tests_may_use_both() {
        for (text, name) in [
            ("use std::time; fn f() { g(time::Instant::now()) }", "std::time::Instant::now"),
            ("fn f() { vec![std::time::SystemTime::now()] }", "std::time::SystemTime::now"),
            ("use jiff::Timestamp as Time; const NOW: fn() -> Time = Time::now;", "jiff::Timestamp::now"),
            ("fn f() -> u64 { rand::random() }", "rand::random"),
            ("use x::thread_rng;", "x::thread_rng"),
        ] {
            let said = said(text);
            assert!(
                said.len() == 1 && said[0].starts_with(&format!("lib.rs uses {name}: ")),
                "{text}: {said:?}"
            );
        }
        let fine = "use std::time::Instant; fn f(now: Instant, random: u64) {} \
                    #[cfg(test)] mod tests { fn f() { Instant::now(); rand::random() } }";
        assert_eq!(said(fine), Vec::<String>::new());
    }
}
