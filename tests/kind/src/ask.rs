//! HTTP requests from a pod, each on a new connection, with their results: a status or an error.

use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::kubectl;

/// The requests to send.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// URL of the requests.
    pub url: &'a str,
    /// Number of requests.
    pub times: usize,
    /// Pause between two requests.
    pub every: Duration,
    /// HTTP method.
    pub method: &'a str,
    /// Request headers; `Host` sets the authority.
    pub headers: &'a [(&'a str, &'a str)],
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Self { url: "", times: 1, every: Duration::ZERO, method: "GET", headers: &[] }
    }
}

/// The result of a request.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// HTTP status; `None` when there was no response, for the reason in [`Self::error`].
    pub status: Option<u16>,
    /// Why there was no response.
    pub error: String,
    /// Response headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Response body.
    pub body: String,
}

impl Ask<'_> {
    /// Sends the requests from a pod with the shop's image.
    ///
    /// # Errors
    /// When the pod cannot be reached, or prints something else.
    pub fn from(&self, namespace: &str, target: &str) -> Result<Vec<Reply>> {
        let (times, every) = (self.times.to_string(), format!("{}ms", self.every.as_millis()));
        let mut args = vec!["/bin/shop", "ask", "-n", &times, "-every", &every, "-X", self.method];
        let headers: Vec<String> =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        headers.iter().for_each(|header| args.extend(["-H", header]));
        args.push(self.url);
        let (ok, text) = kubectl::exec(namespace, target, &args)?;
        if !ok {
            bail!("{target} in {namespace} cannot ask {}: {}", self.url, text.trim());
        }
        let replies: Vec<Reply> = text.lines().filter_map(Reply::parse).collect();
        ensure!(replies.len() == self.times, "asked {} {} times, got {text}", self.url, self.times);
        Ok(replies)
    }
}

impl Reply {
    fn parse(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let headers = line.get("headers").and_then(Value::as_object).into_iter().flatten();
        let headers = headers.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        let status = line.get("status").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        Some(Self { status, error: text("error"), headers: headers.collect(), body: text("body") })
    }

    /// Whether the response has this status.
    pub fn is(&self, status: u16) -> bool {
        self.status == Some(status)
    }

    /// A text in the shop's response, by JSON pointer; empty if absent.
    pub fn text(&self, pointer: &str) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        kubectl::text(&body, pointer).to_owned()
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status} {}", self.body),
            None => f.write_str(&self.error),
        }
    }
}

/// Number of results per status; `error` counts requests without a response.
pub fn tally(replies: &[Reply]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for reply in replies {
        let key = reply.status.map_or_else(|| "error".to_owned(), |status| status.to_string());
        *counts.entry(key).or_default() += 1;
    }
    counts
}

/// The only result, if it has this status.
///
/// # Errors
/// The actual result.
pub fn expect(replies: &[Reply], status: u16) -> Result<&Reply> {
    let reply = replies.first().context("nothing was asked")?;
    ensure!(reply.is(status), "wanted {status}, got {reply}");
    Ok(reply)
}
