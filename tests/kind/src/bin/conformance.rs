//! `make conformance`: runs the Gateway API's mesh conformance suite. Rerunnable: it removes what
//! it created.
//!
//!
//!     conformance [--control] SUITE OUT
//!
//! SUITE is the suite's program, OUT the directory for its events and report. With `--control` it
//! runs without a mesh: then every test except those in [`WITHOUT_MESH`] must fail, which shows
//! that the tests prove something.
//!
//! Invariant: success is determined from the suite's events, never from its report.

#![expect(clippy::print_stdout, reason = "a gate speaks to a person")]

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use ambit_kind_tests::{
    Result,
    conformance::{Events, Outcome, Test, names},
    kubectl, mesh, waypoint,
};
use anyhow::{Context as _, bail, ensure};

/// Namespaces of the suite.
const NAMESPACES: [&str; 2] = ["gateway-conformance-mesh", "gateway-conformance-mesh-consumer"];
/// Tests that may pass without a mesh: plain requests without routes.
const WITHOUT_MESH: &[&str] = &["MeshBasic"];
/// Successes in a row per case: the suite's default of three can happen by luck when a Service has
/// two pods.
const SUCCESSES: u32 = 20;
/// Seconds for them: each request is an `exec`, and many cases run at once.
const CONSISTENT_SECONDS: u32 = 25;
/// Concurrent cases; Go's default is the number of cores.
const PARALLEL: u32 = 32;

/// What the suite runs against.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Against {
    Mesh,
    Nothing,
}

fn main() -> ExitCode {
    match run() {
        Ok(failed) => ExitCode::from(u8::from(failed > 0)),
        Err(error) => {
            println!("conformance: {error:#}\n0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<usize> {
    let (against, suite, out) = arguments()?;
    fs::create_dir_all(&out)?;
    let expected = names(&printed_by(&suite, &["-test.run", "^TestNames$"])?);
    ensure!(!expected.is_empty(), "the suite named no mesh test");
    remove()?;
    if against == Against::Mesh {
        mesh::require_ready()?;
        prepare()?;
    }
    println!("{:44} {:>7} {:>7} {:>7}", "MESH TEST", "RESULT", "CASES", "SECONDS");
    let events = run_suite(against, &suite, &out, &expected)?;
    remove()?;
    let bad = expected.iter().filter(|name| !is_right(against, name, &events.test(name))).count();
    println!("events and report: {}", out.display());
    println!("{} passed, {bad} failed", expected.len() - bad);
    Ok(bad)
}

fn arguments() -> Result<(Against, PathBuf, PathBuf)> {
    let all: Vec<String> = std::env::args().skip(1).collect();
    let (flags, paths): (Vec<_>, Vec<_>) = all.into_iter().partition(|word| word.starts_with("--"));
    let against = match flags.as_slice() {
        [] => Against::Mesh,
        [flag] if flag == "--control" => Against::Nothing,
        other => bail!("unknown {other:?}"),
    };
    let [suite, out] = paths.as_slice() else { bail!("usage: conformance [--control] SUITE OUT") };
    Ok((against, suite.into(), out.into()))
}

fn printed_by(program: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| program.display().to_string())?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a test ended as expected.
fn is_right(against: Against, name: &str, test: &Test) -> bool {
    match against {
        Against::Mesh => test.outcome() == Outcome::Passed,
        Against::Nothing if WITHOUT_MESH.contains(&name) => test.outcome() == Outcome::Passed,
        Against::Nothing => test.outcome() == Outcome::Failed,
    }
}

/// Creates the namespaces first, so that no test includes the start of a waypoint. The suite
/// applies its own definitions over them, with the same labels.
fn prepare() -> Result<()> {
    for namespace in NAMESPACES {
        kubectl::apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}, labels: {{istio.io/dataplane-mode: ambient, {}: {}}}}}}}",
            waypoint::LABEL,
            waypoint::NAME
        ))?;
    }
    for namespace in NAMESPACES {
        let took = waypoint::until_programmed(namespace)?;
        println!("waypoint of {namespace} after {:.1}s", took.as_secs_f64());
    }
    Ok(())
}

fn remove() -> Result<()> {
    let args = [&["delete", "namespace", "--ignore-not-found", "--wait", "--timeout=120s"], &NAMESPACES[..]];
    kubectl::run(&args.concat()).map(|_| ())
}

/// Runs the suite and prints each test when it ends.
fn run_suite(against: Against, suite: &Path, out: &Path, expected: &[String]) -> Result<Events> {
    let report = out.join("report.yaml");
    let mut child = Command::new("go")
        .args(["tool", "test2json", "-t", "-p", "mesh"])
        .arg(suite)
        .args(["-test.v=test2json", "-test.run=^TestMesh$", "-test.timeout=30m"])
        .arg(format!("-test.parallel={PARALLEL}"))
        .args(["--organization=ambit", "--project=ambit", "--url=https://ambit.dev", "--contact=https://ambit.dev"])
        .arg(concat!("--version=v", env!("CARGO_PKG_VERSION")))
        .arg(format!("--report-output={}", report.display()))
        .args(labels(against))
        .arg(format!(
            "--timeout-config-overrides=MaxTimeToConsistency:{CONSISTENT_SECONDS};RequiredConsecutiveSuccesses:{SUCCESSES};NamespacesMustBeReady:120"
        ))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("go tool test2json")?;
    let mut file = File::create(out.join("events.json"))?;
    let mut events = Events::default();
    let stdout = child.stdout.take().context("no output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        writeln!(file, "{line}")?;
        if let Some(ended) = events.read(&line).filter(|ended| expected.contains(ended)) {
            print_row(&ended, &events.test(&ended));
        }
    }
    child.wait()?;
    for name in expected.iter().filter(|name| events.test(name).outcome() == Outcome::Missing) {
        print_row(name, &events.test(name));
    }
    Ok(events)
}

fn labels(against: Against) -> Option<String> {
    let labels = format!("istio.io/dataplane-mode=ambient,{}={}", waypoint::LABEL, waypoint::NAME);
    (against == Against::Mesh).then(|| format!("--namespace-labels={labels}"))
}

fn print_row(name: &str, test: &Test) {
    let (passed, all) = test.cases();
    let cases = format!("{passed}/{all}");
    println!("{name:44} {:>7} {cases:>7} {:7.1}", test.outcome().as_str(), test.took().as_secs_f64());
    test.bad_cases().for_each(|case| println!("    not: {case}"));
}
