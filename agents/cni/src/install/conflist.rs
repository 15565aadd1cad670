//! The CNI network configuration as text: validation, its role for us, embedding it in our list,
//! and removing what an earlier agent added. Pure.
//!
//! Our list is the text of another configuration with our plugin appended, under the same network
//! name: state that other plugins keep by that name (addresses, cached results) stays valid.
//!
//! Invariant: anything that is not a valid configuration is left unchanged.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Name of the plugin: its `type` in a configuration and its file in the binary directory.
pub(crate) const PLUGIN: &str = "ambit-cni";
/// A plugin that always delegates to other configurations, even if it does not list them.
const MULTUS: &str = "multus";
/// Members in which a plugin lists the configurations it delegates to.
const CALLS: [&str; 2] = ["delegates", "clusterNetwork"];
/// CNI version of a list created from a single configuration without a version.
const VERSION_DEFAULT: &str = "0.3.1";

/// Why a text is not a network configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Invalid {
    /// Not valid JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Valid JSON of the wrong structure.
    #[error("{0}")]
    Shape(&'static str),
}

/// A single plugin (`.conf`, `.json`) or a list of plugins (`.conflist`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A single plugin.
    Single,
    /// A list, `plugins: [...]`.
    List,
}

impl Form {
    /// The form according to the file name; `None` for files that runtimes ignore.
    pub(crate) fn of(name: &str) -> Option<Self> {
        if name.starts_with('.') {
            return None;
        }
        match name.rsplit_once('.')?.1 {
            "conflist" => Some(Self::List),
            "conf" | "json" => Some(Self::Single),
            _ => None,
        }
    }
}

/// Our entry in `plugins`, with everything the plugin needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// Always [`PLUGIN`].
    #[serde(rename = "type")]
    pub plugin: String,
    /// The agent's socket.
    pub socket: String,
    /// The state file with the enrolled namespaces.
    pub state_file: String,
    /// Pods in this namespace never wait for the agent.
    pub system_namespace: String,
    /// Name of the configuration from which our list was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embeds: Option<String>,
    /// Name of the single configuration that an earlier agent replaced by the list.
    #[serde(default, skip_serializing)]
    pub replaces: Option<String>,
}

/// The role of another configuration for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It creates the pod's network itself.
    Network,
    /// It delegates to other configurations (Multus), including ours.
    CallsOurs,
    /// It delegates to other configurations, but not to ours.
    CallsOthers,
}

/// A file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// File name.
    pub name: String,
    /// Content.
    pub text: String,
}

/// Checks that a runtime would accept the text.
///
/// # Errors
/// Why it would not.
pub(crate) fn validate(form: Form, text: &str) -> Result<(), Invalid> {
    let value: Value = serde_json::from_str(text)?;
    if value.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err(Invalid::Shape("it has no name"));
    }
    match form {
        Form::Single => typed(&value),
        Form::List => {
            let plugins = value.get("plugins").and_then(Value::as_array);
            let plugins = plugins.ok_or(Invalid::Shape("it has no list of plugins"))?;
            if plugins.is_empty() {
                return Err(Invalid::Shape("its list of plugins is empty"));
            }
            plugins.iter().try_for_each(typed)
        }
    }
}

fn typed(plugin: &Value) -> Result<(), Invalid> {
    let named = plugin.get("type").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    if named { Ok(()) } else { Err(Invalid::Shape("a plugin has no type")) }
}

/// Creates our list: `file` with `entry` as its last plugin.
///
/// # Errors
/// When `file` is not valid.
pub(crate) fn embed(form: Form, file: &Named, entry: &Entry) -> Result<String, Invalid> {
    validate(form, &file.text)?;
    let entry = Entry { embeds: Some(file.name.clone()), replaces: None, ..entry.clone() };
    let entry = serde_json::to_string(&entry)?;
    match form {
        Form::Single => {
            let value: Value = serde_json::from_str(&file.text)?;
            let text = |key: &str, default: &str| {
                serde_json::to_string(value.get(key).and_then(Value::as_str).unwrap_or(default))
            };
            let (version, name) = (text("cniVersion", VERSION_DEFAULT)?, text("name", "")?);
            let single = &file.text;
            Ok(format!("{{\"cniVersion\":{version},\"name\":{name},\"plugins\":[{single},\n    {entry}]}}\n"))
        }
        Form::List => {
            let end = plugins(&file.text)?.last().ok_or(Invalid::Shape("its list of plugins is empty"))?.1;
            let (before, after) = file.text.split_at(end);
            Ok(format!("{before},\n    {entry}{after}"))
        }
    }
}

/// Name of the configuration from which our list was created.
pub(crate) fn embedded(text: &str) -> Option<String> {
    plugins(text).ok()?.iter().find_map(|span| ours(slice(text, *span))?.embeds)
}

/// The role of another valid configuration; `own` are the possible names of our list.
pub(crate) fn role(form: Form, text: &str, own: &[&str]) -> Role {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let plugins: Vec<&Value> = match form {
        Form::Single => vec![&value],
        Form::List => value.get("plugins").and_then(Value::as_array).into_iter().flatten().collect(),
    };
    let calls = |plugin: &&&Value| {
        plugin.get("type").and_then(Value::as_str) == Some(MULTUS)
            || CALLS.iter().any(|key| plugin.get(key).is_some())
    };
    match plugins.iter().find(calls) {
        None => Role::Network,
        Some(plugin) if names_ours(plugin, own) => Role::CallsOurs,
        Some(_) => Role::CallsOthers,
    }
}

/// Whether a value mentions our plugin or the file of our list.
fn names_ours(value: &Value, own: &[&str]) -> bool {
    match value {
        Value::String(text) => text == PLUGIN || own.iter().any(|name| text.ends_with(name)),
        Value::Array(values) => values.iter().any(|value| names_ours(value, own)),
        Value::Object(members) => members.values().any(|value| names_ours(value, own)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The list without our entry, or the single configuration that it replaced; `None` when our entry
/// is not in it.
///
/// # Errors
/// When the text is no longer a valid list.
pub(crate) fn without(file: &Named) -> Result<Option<Named>, Invalid> {
    let Some(name) = replaced(&file.text)? else {
        return Ok(cut(&file.text)?.map(|text| Named { name: file.name.clone(), text }));
    };
    // The single configuration is between the bracket and the comma before our entry.
    let start = array(&file.text)?.0 + 1;
    let spans = plugins(&file.text)?;
    let position = spans.iter().position(|span| ours(slice(&file.text, *span)).is_some());
    let before = position.and_then(|at| at.checked_sub(1)).and_then(|at| spans.get(at));
    let comma = before.and_then(|span| file.text.get(span.1..)?.find(',').map(|at| span.1 + at));
    let original = comma.and_then(|comma| file.text.get(start..comma));
    match original {
        Some(text) if validate(Form::Single, text).is_ok() => Ok(Some(Named { name, text: text.to_owned() })),
        // Others have added plugins since, so it must stay a list.
        _ => Ok(cut(&file.text)?.map(|text| Named { name: file.name.clone(), text })),
    }
}

/// Whether our plugin is in the text.
pub(crate) fn contains_ours(text: &str) -> bool {
    plugins(text).is_ok_and(|spans| spans.iter().any(|span| ours(slice(text, *span)).is_some()))
}

fn replaced(text: &str) -> Result<Option<String>, Invalid> {
    Ok(plugins(text)?.iter().find_map(|span| ours(slice(text, *span))?.replaces))
}

fn ours(text: &str) -> Option<Entry> {
    let value: Value = serde_json::from_str(text).ok()?;
    if value.get("type").and_then(Value::as_str) != Some(PLUGIN) {
        return None;
    }
    let empty = || Entry {
        plugin: PLUGIN.to_owned(),
        socket: String::new(),
        state_file: String::new(),
        system_namespace: String::new(),
        embeds: None,
        replaces: None,
    };
    Some(serde_json::from_value(value).unwrap_or_else(|_| empty()))
}

/// The text without our entry; `None` if it has no such entry.
fn cut(text: &str) -> Result<Option<String>, Invalid> {
    let mut rest = text.to_owned();
    let mut found = false;
    loop {
        let spans = plugins(&rest)?;
        let Some(at) = spans.iter().position(|span| ours(slice(&rest, *span)).is_some()) else {
            return Ok(found.then_some(rest));
        };
        found = true;
        let own = spans.get(at).copied().unwrap_or_default();
        let before = at.checked_sub(1).and_then(|at| spans.get(at)).map(|span| span.1);
        let after = spans.get(at + 1).map(|span| span.0);
        let (from, to) = match (before, after) {
            // Removes one comma with the entry: the one before it, which we wrote, otherwise the
            // one after it.
            (Some(end), _) => (end + slice(&rest, (end, own.0)).find(',').unwrap_or_default(), own.1),
            (None, Some(next)) => (own.0, next),
            (None, None) => own,
        };
        let (head, tail) = (rest.get(..from).unwrap_or_default(), rest.get(to..).unwrap_or_default());
        rest = format!("{head}{tail}");
    }
}

type Span = (usize, usize);

fn slice(text: &str, (from, to): Span) -> &str {
    text.get(from..to).unwrap_or_default()
}

/// The span of the top-level `plugins` array in a valid JSON text.
fn array(text: &str) -> Result<Span, Invalid> {
    serde_json::from_str::<Value>(text)?;
    let members = children(text, text.find('{').ok_or(Invalid::Shape("it is not an object"))?);
    let member = members.into_iter().rev().find(|span| {
        let member = slice(text, *span);
        member.strip_prefix("\"plugins\"").is_some_and(|rest| rest.trim_start().starts_with(':'))
    });
    let (from, to) = member.ok_or(Invalid::Shape("it has no list of plugins"))?;
    let bracket = slice(text, (from, to)).find('[').ok_or(Invalid::Shape("plugins is not a list"))?;
    Ok((from + bracket, to))
}

fn plugins(text: &str) -> Result<Vec<Span>, Invalid> {
    Ok(children(text, array(text)?.0))
}

/// The spans of the members of the object or array that starts at `open`, without surrounding white
/// space.
fn children(text: &str, open: usize) -> Vec<Span> {
    let mut spans = Vec::new();
    let (mut depth, mut quoted, mut escaped, mut start) = (0_usize, false, false, open + 1);
    for (at, byte) in text.bytes().enumerate().skip(open) {
        if quoted {
            quoted = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
            continue;
        }
        match byte {
            b'"' => quoted = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => {
                push_trimmed(&mut spans, text, (start, at));
                return spans;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 1 => {
                push_trimmed(&mut spans, text, (start, at));
                start = at + 1;
            }
            _ => {}
        }
    }
    spans
}

fn push_trimmed(spans: &mut Vec<Span>, text: &str, span: Span) {
    let whole = slice(text, span);
    let trimmed = whole.trim_start();
    if !trimmed.is_empty() {
        let from = span.0 + whole.len() - trimmed.len();
        spans.push((from, from + trimmed.trim_end().len()));
    }
}

#[cfg(test)]
mod tests;
