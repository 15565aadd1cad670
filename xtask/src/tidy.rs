//! What no compiler checks about a file: its length, its header, that it is compiled at all.
//!
//! Invariant: an exception is a line in `xtask/tidy.toml` with a reason, and one that is no longer needed is an error too.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Production lines (tests not counted) a file may have.
const LINES_MAX: usize = 400;
/// Lines a test file may have: longer ones ask several questions, and split by question.
const TEST_LINES_MAX: usize = 800;
/// Words that say nothing about what a room holds.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "shared"];

/// All violations, one sentence each.
pub(crate) fn violations(root: &Path) -> Result<Vec<String>> {
    let mut long: BTreeMap<String, String> =
        toml::from_str(&fs::read_to_string(root.join("xtask/tidy.toml"))?)?;
    let mut wrong = Vec::new();
    let mut files = Vec::new();
    for group in ["crates", "agents", "operator", "benches", "xtask", "tests/kind"] {
        collect(&root.join(group), &mut files)?;
    }
    for path in &files {
        let name = path.strip_prefix(root)?.display().to_string();
        let text = fs::read_to_string(path).with_context(|| name.clone())?;
        judge(&name, &text, &mut long, &mut wrong);
    }
    wrong
        .extend(long.keys().map(|name| format!("{name} needs no exception: take it out of xtask/tidy.toml")));
    wrong.extend(orphans(&files)?);
    Ok(wrong)
}

fn judge(name: &str, text: &str, long: &mut BTreeMap<String, String>, wrong: &mut Vec<String>) {
    let production = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let lines = production.lines().count();
    let is_test = name.contains("/tests/") || name.ends_with("tests.rs");
    let max = if is_test { TEST_LINES_MAX } else { LINES_MAX };
    if lines > max && long.remove(name).is_none() {
        wrong.push(format!(
            "{name} has {lines} lines besides its unit tests, over {max}: split it into modules"
        ));
    }
    let header = text.lines().find(|line| !line.starts_with("#![") && !line.is_empty());
    if !header.is_some_and(|line| line.starts_with("//!")) && !name.ends_with("tests.rs") {
        wrong.push(format!("{name} opens without `//!`: say its purpose and its invariant"));
    }
    let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if EMPTY_NAMES.contains(&stem) {
        wrong.push(format!("{name} is named after nothing"));
    }
}

/// Files that no `mod` names and that are no target's root: they would rot uncompiled.
fn orphans(files: &[PathBuf]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for path in files {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let Some(folder) = path.parent() else { continue };
        let is_root = matches!(stem, "main" | "lib" | "build")
            || !folder.components().any(|part| part.as_os_str() == "src");
        if is_root || folder.ends_with("bin") {
            continue;
        }
        let parents = [folder.join("lib.rs"), folder.join("main.rs"), folder.with_extension("rs")];
        let declared = parents
            .iter()
            .filter_map(|parent| fs::read_to_string(parent).ok())
            .any(|text| text.lines().any(|line| line.trim_end().ends_with(&format!("mod {stem};"))));
        if !declared {
            wrong.push(format!("{} is in no `mod`: it is never compiled", path.display()));
        }
    }
    Ok(wrong)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !matches!(name, "target" | "testdata") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_short_headed_and_compiled() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert_eq!(violations(root).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn names_what_is_wrong_with_a_file() {
        let mut wrong = Vec::new();
        let long = format!("//! Purpose.\n{}", "//\n".repeat(LINES_MAX));
        judge("crates/x/src/a.rs", &long, &mut BTreeMap::new(), &mut wrong);
        judge("crates/x/src/util.rs", "fn f() {}", &mut BTreeMap::new(), &mut wrong);
        judge("crates/x/src/a/tests.rs", &long, &mut BTreeMap::new(), &mut wrong);
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        judge("crates/x/src/a/tests.rs", &long.repeat(2), &mut BTreeMap::new(), &mut wrong);
        assert_eq!(wrong.len(), 4, "{wrong:?}");
    }
}
