//! Modules of a crate depend on each other in one direction only.
//!
//! Invariant: in no crate do the production imports of its top-level modules, or those of its files, lead back to where they
//! began.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::source::{Import, Source};

/// Every ring, one sentence each.
pub(crate) fn violations(root: &Path) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for file in roots(root)? {
        let imports = Source::read(&file, |path| Ok(fs::read_to_string(path)?))?.imports();
        wrong.extend(sentences(root, &file, &imports));
    }
    Ok(wrong)
}

/// One sentence for each ring of modules and each ring of files, with an import for each step of a way around it.
fn sentences(root: &Path, crate_root: &Path, imports: &BTreeSet<Import>) -> Vec<String> {
    let source = crate_root.parent().unwrap_or(crate_root);
    let shown = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
    let sentence = |what: &str, ring: &Ring<'_>| {
        let step = |import: &&Import| format!("{} imports {}", shown(&import.from), import.name);
        let steps: Vec<_> = ring.circle.iter().map(step).collect();
        let (members, steps) = (ring.members.join(", "), steps.join(", "));
        format!("{}: a ring of {what}, {members}: {steps}", shown(crate_root))
    };
    let modules = rings(imports, |path| top_level(source, path));
    let files = rings(imports, |path| Some(shown(path)));
    let modules = modules.iter().map(|ring| sentence("modules", ring));
    modules.chain(files.iter().map(|ring| sentence("files", ring))).collect()
}

/// The top-level module that a file belongs to; the root file belongs to none.
fn top_level(source: &Path, file: &Path) -> Option<String> {
    let inside = file.strip_prefix(source).ok()?.with_extension("");
    let first = inside.iter().next()?.to_str()?;
    (!matches!(first, "lib" | "main")).then(|| first.to_owned())
}

/// Nodes that all reach each other, and imports that lead from one of them back to itself.
struct Ring<'a> {
    members: Vec<String>,
    circle: Vec<&'a Import>,
}

/// The rings among what `node` makes of files.
fn rings(imports: &BTreeSet<Import>, node: impl Fn(&Path) -> Option<String>) -> Vec<Ring<'_>> {
    let mut edges = Edges::new();
    for import in imports {
        if let (Some(from), Some(to)) = (node(&import.from), node(&import.to))
            && from != to
        {
            edges.entry(from).or_default().entry(to).or_insert(import);
        }
    }
    let mut known = BTreeSet::new();
    let mut found = Vec::new();
    for start in edges.keys() {
        let Some(circle) = circle(&edges, start).filter(|_| !known.contains(start)) else { continue };
        let reached = reached(&edges, start);
        let members: Vec<_> = reached
            .keys()
            .filter(|member| self::reached(&edges, member).contains_key(start))
            .cloned()
            .collect();
        known.extend(members.iter().cloned());
        found.push(Ring { members, circle });
    }
    found
}

type Edges<'a> = BTreeMap<String, BTreeMap<String, &'a Import>>;

/// What can be reached from `start`, each with the node before it on a shortest way.
fn reached(edges: &Edges<'_>, start: &str) -> BTreeMap<String, String> {
    let mut before = BTreeMap::new();
    let mut frontier = vec![start.to_owned()];
    while !frontier.is_empty() {
        let mut next = Vec::new();
        for from in frontier {
            for to in edges.get(&from).into_iter().flat_map(BTreeMap::keys) {
                if !before.contains_key(to) {
                    before.insert(to.clone(), from.clone());
                    next.push(to.clone());
                }
            }
        }
        frontier = next;
    }
    before
}

/// The imports along a shortest way from `start` back to itself.
fn circle<'a>(edges: &Edges<'a>, start: &str) -> Option<Vec<&'a Import>> {
    let before = reached(edges, start);
    let mut circle = Vec::new();
    let mut to = start;
    loop {
        let from = before.get(to)?;
        circle.push(*edges.get(from)?.get(to)?);
        if from == start {
            circle.reverse();
            return Some(circle);
        }
        to = from;
    }
}

/// The root file of every library and program.
fn roots(root: &Path) -> Result<Vec<PathBuf>> {
    let mut packages = ["operator", "xtask", "tests/kind"].map(|name| root.join(name)).to_vec();
    for group in ["crates", "agents", "benches"] {
        packages.extend(entries(&root.join(group))?);
    }
    let mut found = Vec::new();
    for source in packages.iter().map(|package| package.join("src")) {
        found.extend(["lib.rs", "main.rs"].map(|name| source.join(name)));
        let programs = entries(&source.join("bin")).unwrap_or_default();
        found.extend(programs.iter().map(|path| path.join("main.rs")));
        found.extend(programs);
    }
    found.retain(|path| path.is_file());
    found.sort();
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests;
