//! `kubectl` as a function.
//!
//! Invariant: every call is limited by [`CALL_MAX`], and its error contains the command and its
//! output.

use std::{
    io::Write as _,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// `kubectl --request-timeout` of calls that do not wait for anything.
const CALL_MAX: &str = "30s";

/// The program: `$KUBECTL`, or `kubectl` from the path.
fn program() -> String {
    #[expect(clippy::disallowed_methods, reason = "test programs are configured by the environment")]
    std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".into())
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it and returns its output.
///
/// # Errors
/// When it fails, with its error output.
pub fn run(args: &[&str]) -> Result<String> {
    let output =
        command(args).output().with_context(|| format!("kubectl is not to be had as {}", program()))?;
    if !output.status.success() {
        bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs it and parses the output of `-o json`.
///
/// # Errors
/// When it fails or does not print JSON.
pub fn json(args: &[&str]) -> Result<Value> {
    let text = run(&[args, &["-o", "json", "--request-timeout", CALL_MAX]].concat())?;
    Ok(serde_json::from_str(&text)?)
}

/// Applies a manifest by server-side apply.
///
/// # Errors
/// When the API server rejects it.
pub fn apply(manifest: &str) -> Result<String> {
    feed(
        &["apply", "--server-side", "--force-conflicts", "--field-manager=ambit-test", "-f", "-"],
        &document(manifest),
    )
}

/// Deletes the objects of a manifest and waits until they are gone.
///
/// # Errors
/// When they cannot be deleted.
pub fn delete(manifest: &str) -> Result<String> {
    feed(&["delete", "--ignore-not-found", "--wait=true", "--timeout=90s", "-f", "-"], &document(manifest))
}

/// kubectl treats input that starts with a brace as JSON; a document marker makes it YAML in either
/// style.
fn document(manifest: &str) -> String {
    format!("---\n{manifest}")
}

/// Runs it with `input` on standard input.
///
/// # Errors
/// When it fails, with its error output.
pub fn feed(args: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new(program())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("kubectl is not to be had as {}", program()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts it and leaves it running; the caller must end it.
///
/// # Errors
/// When it cannot be started.
pub fn start(args: &[&str]) -> Result<Child> {
    Ok(command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)
}

/// Runs a command in a pod: returns its success and its output.
///
/// # Errors
/// When kubectl cannot be run at all.
pub fn exec(namespace: &str, target: &str, args: &[&str]) -> Result<(bool, String)> {
    let all = [&["exec", "-n", namespace, target, "--"], args].concat();
    let output = command(&all).output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

/// The items of a list.
///
/// # Errors
/// When it fails or is not a list.
pub fn items(args: &[&str]) -> Result<Vec<Value>> {
    let list = json(args)?;
    list.get("items").and_then(Value::as_array).cloned().context("kubectl returned no list")
}

/// A string in an object, empty if absent. `path` is a JSON pointer (RFC 6901).
pub fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}
