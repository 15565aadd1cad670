//! Installs the plugin into the node's CNI configuration, keeps it there, and removes it.
//!
//! The plugin is in a network configuration list of our own, which sorts first, embeds the
//! configuration of the cluster's network and follows its changes. It stays there across reboots
//! and while no agent runs, whatever other programs write to their own files. Level-triggered:
//! [`reconcile`] compares the directories with the wanted state and fixes the difference; [`watch`]
//! runs it at every change. Invariant: our list exists only while the binary does, and only after
//! the agent has served once. Files of others are never written, except to remove what an earlier
//! agent added.

pub(crate) mod conflist;
pub(crate) mod files;
pub(crate) mod layout;
mod watch;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub(crate) use watch::{Installer, watch};

use conflist::{Entry, Form, Named, PLUGIN, Role};
use layout::{Found, Layout, OWN_NAMES, Refusal};

use crate::Problem;

/// Paths on the node.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    /// Directory of network configurations.
    pub conf_dir: PathBuf,
    /// Directory of plugin binaries.
    pub bin_dir: PathBuf,
    /// The plugin binary in this image.
    pub plugin_source: PathBuf,
}

/// Whether new pods on this node go through the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InstallState {
    /// The plugin is in the configuration that the runtime uses.
    Installed,
    /// It is not, for this reason; retried when anything changes.
    Waiting(Problem),
}

impl Paths {
    fn binary(&self) -> PathBuf {
        self.bin_dir.join(PLUGIN)
    }
}

/// Installs the binary and the configuration where they are missing.
pub(crate) fn reconcile(paths: &Paths, entry: &Entry) -> InstallState {
    match try_reconcile(paths, entry) {
        Ok(()) => InstallState::Installed,
        Err(problem) => InstallState::Waiting(problem),
    }
}

fn try_reconcile(paths: &Paths, entry: &Entry) -> Result<(), Problem> {
    let binary = paths.binary();
    if !files::same_content(&paths.plugin_source, &binary) {
        files::install_executable(&paths.plugin_source, &binary)
            .map_err(|error| Problem::at("CNIBinaryNotInstalled", &binary, &error))?;
    }
    let directory = &paths.conf_dir;
    let files = read(directory).map_err(|error| Problem::at("CNIConfigMissing", directory, &error))?;
    let Layout { own, passed_by } =
        layout::layout(&files, entry).map_err(|refusal| problem(directory, refusal))?;
    let path = directory.join(&own.name);
    let is_there = |found: &Found| found.name == own.name && found.text.as_ref() == Ok(&own.text);
    if !files.iter().any(is_there) {
        files::replace(&path, own.text.as_bytes())
            .map_err(|error| Problem::at("CNIConfigNotWritable", &path, &error))?;
        tracing::info!(path = %path.display(), "The CNI plugin is in the node's network configuration");
    }
    // Only after ours is in place, so that the runtime always reads a list with our plugin.
    let others = OWN_NAMES.iter().filter(|name| **name != own.name).map(|name| directory.join(name));
    let tidied = others
        .filter(|path| path.exists())
        .try_for_each(|path| files::remove(&path))
        .and_then(|()| restore(directory, Restored::Networks));
    tidied.map_err(|error| Problem::at("CNIConfigNotWritable", directory, &error))?;
    passed_by.map_or(Ok(()), |name| {
        let message = format!(
            "it comes before {} and does not delegate to it, so pods start without the mesh; make it delegate to {0} (Multus: \
             restart it, or set its --multus-master-cni-file-name)",
            own.name
        );
        Err(Problem::at("CNIConfigNotFirst", &directory.join(name), &message))
    })
}

fn problem(directory: &Path, refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Missing => {
            Problem::at("CNIConfigMissing", directory, &"no network configuration; install a CNI plugin")
        }
        Refusal::Invalid(name, why) => Problem::at("CNIConfigInvalid", &directory.join(name), &why),
        Refusal::Crowded(name) => {
            let message = "none of our file names sorts before it and after configurations that delegate to others; rename it";
            Problem::at("CNIConfigNotFirst", &directory.join(name), &message)
        }
    }
}

/// Removes our list and what an earlier agent added to those of others, then the binary.
/// Idempotent.
///
/// # Errors
/// The first file that cannot be written; the rest is left for the next attempt.
pub(crate) fn remove(paths: &Paths) -> io::Result<()> {
    restore(&paths.conf_dir, Restored::All)?;
    OWN_NAMES.iter().try_for_each(|name| files::remove(&paths.conf_dir.join(name)))?;
    files::remove(&paths.binary())
}

/// Which files of others are restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restored {
    /// Those that create a network, because the runtime reads ours instead. One that delegates to
    /// others is read before ours.
    Networks,
    /// All files.
    All,
}

/// Restores the original content of lists into which earlier agents put our plugin.
fn restore(directory: &Path, which: Restored) -> io::Result<()> {
    for name in names(directory)? {
        if Form::of(&name) != Some(Form::List) || OWN_NAMES.contains(&name.as_str()) {
            continue;
        }
        let path = directory.join(&name);
        let Some(text) = files::read_bounded(&path)? else { continue };
        let is_network = conflist::role(Form::List, &text, &OWN_NAMES) == Role::Network;
        if !conflist::contains_ours(&text) || (which == Restored::Networks && !is_network) {
            continue;
        }
        let bare = conflist::without(&Named { name, text }).map_err(io::Error::other)?;
        if let Some(bare) = bare {
            swap(&path, &directory.join(&bare.name), &bare)?;
        }
    }
    Ok(())
}

/// Writes `to`, then removes `from` if its name differs: at least one of them exists at any time.
fn swap(from: &Path, to: &Path, content: &Named) -> io::Result<()> {
    if from != to && !to.exists() {
        // The new file keeps mode and owner of the one it replaces.
        fs::copy(from, to)?;
    }
    files::replace(to, content.text.as_bytes())?;
    if from == to { Ok(()) } else { files::remove(from) }
}

fn read(directory: &Path) -> io::Result<Vec<Found>> {
    let found = names(directory)?.into_iter().filter_map(|name| {
        let text = files::read_bounded(&directory.join(&name)).map_err(|error| error.to_string());
        text.transpose().map(|text| Found { name, text })
    });
    Ok(found.collect())
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
