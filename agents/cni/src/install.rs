//! Getting the plugin into the node's CNI configuration, keeping it there, and out again.
//!
//! Level-triggered: [`reconcile`] looks at the directories and does what is missing; [`watch`] runs it whenever
//! something changes there. Invariant: the entry is added only while the binary is in place and the agent serves,
//! and is gone before the binary is; a configuration that is not valid is never written to.

pub mod conflist;
pub mod files;
mod watch;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub use watch::{Installer, watch};

use conflist::{Entry, Form, Named, PLUGIN};

use crate::Problem;

/// Where things are on the node.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Directory of network configurations.
    pub conf_dir: PathBuf,
    /// Directory of plugin binaries.
    pub bin_dir: PathBuf,
    /// The plugin binary in this image.
    pub plugin_source: PathBuf,
}

/// Whether pods that start on this node pass by the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The plugin is in the configuration that the runtime uses.
    Installed,
    /// It is not, for this reason; it will be as soon as the reason is gone.
    Waiting(Problem),
}

impl Paths {
    fn binary(&self) -> PathBuf {
        self.bin_dir.join(PLUGIN)
    }
}

/// Puts binary and entry where they are missing.
pub fn reconcile(paths: &Paths, entry: &Entry) -> State {
    match try_reconcile(paths, entry) {
        Ok(()) => State::Installed,
        Err(problem) => State::Waiting(problem),
    }
}

fn try_reconcile(paths: &Paths, entry: &Entry) -> Result<(), Problem> {
    let binary = paths.binary();
    if !files::same_content(&paths.plugin_source, &binary) {
        files::install_executable(&paths.plugin_source, &binary)
            .map_err(|error| Problem::at("CNIBinaryNotInstalled", &binary, &error))?;
    }
    let Candidate { form, file } = choose(&paths.conf_dir)?;
    let path = paths.conf_dir.join(&file.name);
    let wanted =
        conflist::with(form, &file, entry).map_err(|error| Problem::at("CNIConfigInvalid", &path, &error))?;
    let Some(wanted) = wanted else { return Ok(()) };
    let target = paths.conf_dir.join(&wanted.name);
    if form == Form::Single && target.exists() {
        let message = "a list of the same name stands beside it; remove one of the two";
        return Err(Problem::at("CNIConfigInvalid", &path, &message));
    }
    swap(&path, &target, &wanted).map_err(|error| Problem::at("CNIConfigNotWritable", &target, &error))?;
    tracing::info!(path = %target.display(), "The CNI plugin is in the node's network configuration");
    Ok(())
}

/// Takes every entry of ours out, then the binary. Safe to repeat.
///
/// # Errors
/// The first file that cannot be written; what comes after it is left for the next try.
pub fn remove(paths: &Paths) -> io::Result<()> {
    for name in names(&paths.conf_dir)? {
        let path = paths.conf_dir.join(&name);
        let Some(text) = files::read_bounded(&path)? else { continue };
        if Form::of(&name) != Some(Form::List) || !conflist::contains_ours(&text) {
            continue;
        }
        let bare = conflist::without(&Named { name, text }).map_err(io::Error::other)?;
        if let Some(bare) = bare {
            swap(&path, &paths.conf_dir.join(&bare.name), &bare)?;
        }
    }
    files::remove(&paths.binary())
}

/// Writes `to` and, if it has another name, removes `from`: at no moment is there neither.
fn swap(from: &Path, to: &Path, content: &Named) -> io::Result<()> {
    if from != to && !to.exists() {
        // The new file takes over mode and owner of the one it replaces.
        fs::copy(from, to)?;
    }
    files::replace(to, content.text.as_bytes())?;
    if from == to { Ok(()) } else { files::remove(from) }
}

struct Candidate {
    form: Form,
    file: Named,
}

/// The configuration that kubelet's runtime uses: the first by name that is valid.
fn choose(directory: &Path) -> Result<Candidate, Problem> {
    let names = names(directory).map_err(|error| Problem::at("CNIConfigMissing", directory, &error))?;
    let mut invalid = None;
    for name in names {
        let path = directory.join(&name);
        let Some(form) = Form::of(&name) else { continue };
        let text = match files::read_bounded(&path) {
            Ok(Some(text)) => text,
            Ok(None) => continue,
            Err(error) => {
                invalid.get_or_insert(Problem::at("CNIConfigInvalid", &path, &error));
                continue;
            }
        };
        match conflist::validate(form, &text) {
            Ok(()) => return Ok(Candidate { form, file: Named { name, text } }),
            Err(error) => {
                invalid.get_or_insert(Problem::at("CNIConfigInvalid", &path, &error));
            }
        }
    }
    let missing =
        || Problem::at("CNIConfigMissing", directory, &"no network configuration; install a CNI plugin");
    Err(invalid.unwrap_or_else(missing))
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.retain(|name| Form::of(name).is_some());
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests;
