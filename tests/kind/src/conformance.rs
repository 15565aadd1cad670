//! Results of the Gateway API's mesh conformance suite, read from its events.
//!
//! Invariant: the suite's own report is not used: seven of its mesh tests are in no profile and
//! never appear there. A test counts as passed only when it and each of its cases passed, and it
//! had cases.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// Parent test of all tests of the suite.
const ROOT: &str = "TestMesh/";

/// The result of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It and all its cases passed.
    Passed,
    /// It, or one of its cases, failed.
    Failed,
    /// It, or one of its cases, was skipped.
    Skipped,
    /// It never ran, or never ended.
    Missing,
}

impl Outcome {
    /// The result as text, for a table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Failed => "FAILED",
            Self::Skipped => "SKIPPED",
            Self::Missing => "MISSING",
        }
    }
}

/// The result of one test.
#[derive(Clone, Debug, Default)]
pub struct Test {
    began: Option<Timestamp>,
    ended: Option<Timestamp>,
    own: Option<Outcome>,
    cases: BTreeMap<String, Outcome>,
}

impl Test {
    /// The overall result.
    pub fn outcome(&self) -> Outcome {
        let of_cases = |wanted| self.cases.values().any(|outcome| *outcome == wanted);
        match self.own {
            None => Outcome::Missing,
            Some(Outcome::Skipped) => Outcome::Skipped,
            Some(_) if of_cases(Outcome::Failed) => Outcome::Failed,
            Some(_) if of_cases(Outcome::Skipped) => Outcome::Skipped,
            Some(Outcome::Passed) if self.cases.is_empty() || of_cases(Outcome::Missing) => Outcome::Missing,
            Some(outcome) => outcome,
        }
    }

    /// Number of cases that passed, and of all cases.
    pub fn cases(&self) -> (usize, usize) {
        let passed = self.cases.values().filter(|outcome| **outcome == Outcome::Passed).count();
        (passed, self.cases.len())
    }

    /// Names of the cases that did not pass.
    pub fn bad_cases(&self) -> impl Iterator<Item = &str> {
        self.cases.iter().filter(|(_, outcome)| **outcome != Outcome::Passed).map(|(name, _)| name.as_str())
    }

    /// Time from its first event to its last; Go's own figure omits parallel cases.
    pub fn took(&self) -> SignedDuration {
        self.began.zip(self.ended).map(|(began, ended)| ended.duration_since(began)).unwrap_or_default()
    }
}

/// The events read so far.
#[derive(Clone, Debug, Default)]
pub struct Events {
    tests: BTreeMap<String, Test>,
}

impl Events {
    /// Reads one line of `test2json`; returns the name of the test that ended with it, if any.
    pub fn read(&mut self, line: &str) -> Option<String> {
        let event: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
        let path = text("Test").strip_prefix(ROOT)?;
        let (name, case) = path.split_once('/').map_or((path, None), |(name, case)| (name, Some(case)));
        let test = self.tests.entry(name.to_owned()).or_default();
        let at: Option<Timestamp> = text("Time").parse().ok();
        test.began = test.began.or(at);
        test.ended = at.or(test.ended);
        let outcome = match text("Action") {
            "pass" => Outcome::Passed,
            "fail" => Outcome::Failed,
            "skip" => Outcome::Skipped,
            // A case that starts and never ends has not passed.
            "run" => {
                case.map(|case| test.cases.insert(case.to_owned(), Outcome::Missing));
                return None;
            }
            _ => return None,
        };
        match case {
            Some(case) => {
                test.cases.insert(case.to_owned(), outcome);
                None
            }
            None => {
                test.own = Some(outcome);
                Some(name.to_owned())
            }
        }
    }

    /// The result of a test.
    pub fn test(&self, name: &str) -> Test {
        self.tests.get(name).cloned().unwrap_or_default()
    }
}

/// Names of the mesh tests, as the suite prints them.
pub fn names(printed: &str) -> Vec<String> {
    printed.lines().filter_map(|line| line.strip_prefix("mesh-test ")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test names with their actions.
    type Told<'a> = &'a [(&'a str, &'a str)];

    fn read(events: Told) -> Events {
        let mut read = Events::default();
        for (second, (test, action)) in events.iter().enumerate() {
            read.read(&format!(
                r#"{{"Time":"2026-11-24T10:00:{second:02}Z","Action":"{action}","Package":"mesh","Test":"{test}"}}"#
            ));
        }
        read
    }

    #[test]
    fn a_test_passes_only_with_all_of_its_cases() {
        let cases: [(&str, Told, Outcome); 7] = [
            ("all passed", &[("/a", "run"), ("/a", "pass"), ("", "pass")], Outcome::Passed),
            ("a case failed", &[("/a", "pass"), ("/b", "fail"), ("", "fail")], Outcome::Failed),
            ("a case was skipped", &[("/a", "pass"), ("/b", "skip"), ("", "pass")], Outcome::Skipped),
            ("skipped", &[("", "run"), ("", "skip")], Outcome::Skipped),
            ("without a case", &[("", "run"), ("", "pass")], Outcome::Missing),
            ("never ended", &[("", "run"), ("/a", "run"), ("/a", "pass")], Outcome::Missing),
            ("failed before its cases", &[("", "run"), ("", "fail")], Outcome::Failed),
        ];
        for (name, events, outcome) in cases {
            let paths: Vec<String> = events.iter().map(|(case, _)| format!("TestMesh/MeshX{case}")).collect();
            let events: Vec<(&str, &str)> =
                paths.iter().zip(events).map(|(path, (_, action))| (path.as_str(), *action)).collect();
            assert_eq!(read(&events).test("MeshX").outcome(), outcome, "{name}");
        }
    }

    #[test]
    fn a_case_that_never_ended_did_not_pass() {
        let test = read(&[("TestMesh/MeshX/a", "run"), ("TestMesh/MeshX", "pass")]).test("MeshX");
        assert_eq!((test.cases(), test.bad_cases().collect::<Vec<_>>()), ((0, 1), vec!["a"]));
        assert_ne!(test.outcome(), Outcome::Passed);
    }

    #[test]
    fn time_is_from_the_first_event_to_the_last() {
        let test = read(&[
            ("TestMesh/MeshX", "run"),
            ("TestMesh/MeshY", "run"),
            ("TestMesh/MeshX/a", "pass"),
            ("TestMesh/MeshX", "pass"),
        ]);
        assert_eq!(test.test("MeshX").took(), SignedDuration::from_secs(3));
    }

    #[test]
    fn names_are_read_among_other_output() {
        assert_eq!(names("mesh-test MeshBasic\nPASS\nmesh-test MeshPorts\n"), ["MeshBasic", "MeshPorts"]);
    }
}
