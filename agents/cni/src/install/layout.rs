//! Name, content and position of our configuration file. Pure.
//!
//! Runtimes use the first configuration by name. Invariants: files of others are never changed; a
//! configuration that is being written does not replace the one we have embedded; one that
//! delegates to others (Multus) stays before ours.

use super::conflist::{self, Entry, Form, Invalid, Named, Role};

/// Possible names of our list; the first suitable one is used. It must sort before the
/// configuration that it embeds, and after one that delegates to others (`00-multus.conf`). The
/// first name precedes all usual names (`05-cilium.conflist`, `10-calico.conflist`).
pub(crate) const OWN_NAMES: [&str; 3] = ["01-ambit.conflist", "00-ambit.conflist", "00-00-ambit.conflist"];

/// A file that runtimes read.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// File name.
    pub name: String,
    /// Content, or why it cannot be read.
    pub text: Result<String, String>,
}

/// The wanted state of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Our list.
    pub own: Named,
    /// A configuration that comes before ours and does not delegate to it, so that pods start
    /// without us.
    pub passed_by: Option<String>,
}

/// Why there is no configuration to embed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No network is configured.
    Missing,
    /// The named file is not a valid configuration.
    Invalid(String, String),
    /// None of our names sorts before the named file.
    Crowded(String),
}

/// The layout for the files of the directory, sorted by name.
///
/// # Errors
/// When there is no configuration to embed; existing files stay.
pub(crate) fn layout(files: &[Found], entry: &Entry) -> Result<Layout, Refusal> {
    let is_own = |file: &&Found| OWN_NAMES.contains(&file.name.as_str());
    let held = files.iter().find(is_own).and_then(|own| conflist::embedded(own.text.as_deref().ok()?));
    let (mut callers, mut invalid) = (Vec::new(), None);
    for file in files.iter().filter(|file| !is_own(file)) {
        let (form, bare) = match bare(file) {
            Ok(Some(bare)) => bare,
            Ok(None) => continue,
            // It is being written or broken: ours keeps the embedded content.
            Err(why) if held.as_ref() == Some(&file.name) => {
                return Err(Refusal::Invalid(file.name.clone(), why));
            }
            Err(why) => {
                invalid.get_or_insert(Refusal::Invalid(file.name.clone(), why));
                continue;
            }
        };
        match conflist::role(form, &bare.text, &OWN_NAMES) {
            Role::Network => return around(form, &bare, &callers, entry),
            // An earlier agent put our plugin into it, and it is read before ours: the plugin stays
            // there.
            Role::CallsOthers if file.text.as_deref().is_ok_and(conflist::contains_ours) => {
                callers.push((file.name.as_str(), Role::CallsOurs));
            }
            role @ (Role::CallsOurs | Role::CallsOthers) => callers.push((file.name.as_str(), role)),
        }
    }
    Err(invalid.unwrap_or(Refusal::Missing))
}

fn around(form: Form, primary: &Named, callers: &[(&str, Role)], entry: &Entry) -> Result<Layout, Refusal> {
    let fits = |own: &&&str| **own < primary.name.as_str() && callers.iter().all(|(caller, _)| caller < *own);
    let name = OWN_NAMES.iter().find(fits).ok_or_else(|| Refusal::Crowded(primary.name.clone()))?;
    let text = conflist::embed(form, primary, entry);
    let text = text.map_err(|error| Refusal::Invalid(primary.name.clone(), error.to_string()))?;
    let first = callers.first().filter(|(_, role)| *role == Role::CallsOthers);
    Ok(Layout {
        own: Named { name: (*name).to_owned(), text },
        passed_by: first.map(|(name, _)| (*name).to_owned()),
    })
}

/// A configuration without what an earlier agent added; `None` for a file that runtimes ignore.
fn bare(file: &Found) -> Result<Option<(Form, Named)>, String> {
    let Some(form) = Form::of(&file.name) else { return Ok(None) };
    let named = Named { name: file.name.clone(), text: file.text.clone()? };
    let read = || -> Result<(Form, Named), Invalid> {
        conflist::validate(form, &named.text)?;
        let bare = if form == Form::List { conflist::without(&named)? } else { None };
        let bare = bare.unwrap_or_else(|| named.clone());
        let form = Form::of(&bare.name).unwrap_or(form);
        conflist::validate(form, &bare.text)?;
        Ok((form, bare))
    };
    read().map(Some).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
