//! Getting the plugin into the node's CNI configuration, keeping it there, and out again.
//!
//! The plugin stands in a list of our own, which sorts first, embeds the configuration of the cluster's network and
//! follows its changes. It stays over reboots and while no agent runs, whatever others write into their own files.
//! Level-triggered: [`reconcile`] looks at the directories and does what is missing; [`watch`] runs it whenever
//! something changes there. Invariant: our list is there only while the binary is, and the agent has served once; no
//! file of others is written, but to take out what an earlier agent put in.

pub mod conflist;
pub mod files;
pub mod layout;
mod watch;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub use watch::{Installer, watch};

use conflist::{Entry, Form, Named, PLUGIN, Role};
use layout::{Found, Layout, OWN_NAMES, Refusal};

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
    // Only now that ours is there: at no moment does the runtime read a list without our plugin.
    let others = OWN_NAMES.iter().filter(|name| **name != own.name).map(|name| directory.join(name));
    let tidied = others
        .filter(|path| path.exists())
        .try_for_each(|path| files::remove(&path))
        .and_then(|()| restore(directory, Restored::Networks));
    tidied.map_err(|error| Problem::at("CNIConfigNotWritable", directory, &error))?;
    passed_by.map_or(Ok(()), |name| {
        let message = format!(
            "it comes before {} and does not call it, so pods start without the mesh; make it call {0} (Multus: \
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
            let message = "no name of ours sorts before it and behind what calls other plugins; rename it";
            Problem::at("CNIConfigNotFirst", &directory.join(name), &message)
        }
    }
}

/// Takes our list away, and what an earlier agent put into those of others, then the binary. Safe to repeat.
///
/// # Errors
/// The first file that cannot be written; what comes after it is left for the next try.
pub fn remove(paths: &Paths) -> io::Result<()> {
    restore(&paths.conf_dir, Restored::All)?;
    OWN_NAMES.iter().try_for_each(|name| files::remove(&paths.conf_dir.join(name)))?;
    files::remove(&paths.binary())
}

/// Which files of others get back what their owners wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restored {
    /// Those that make a network: the runtime reads ours instead. One that calls others is read before ours.
    Networks,
    /// Every one.
    All,
}

/// Earlier agents put our plugin into the lists of others: they get back what they wrote.
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

/// Writes `to` and, if it has another name, removes `from`: at no moment is there neither.
fn swap(from: &Path, to: &Path, content: &Named) -> io::Result<()> {
    if from != to && !to.exists() {
        // The new file takes over mode and owner of the one it replaces.
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
