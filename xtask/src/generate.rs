//! Files generated from Rust types: `crds/` and `config/`.
//!
//! Invariant: the committed files equal the generated ones; `check` names each file that differs.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// All generated files: path relative to the root, and content.
fn files() -> Result<Vec<(String, String)>> {
    Ok(ambit_operator::manifests::files()?)
}

/// Writes all files.
pub(crate) fn write(root: &Path) -> Result<()> {
    for (name, text) in files()? {
        let path = root.join(&name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, text).with_context(|| name)?;
    }
    Ok(())
}

/// The files that are out of date.
pub(crate) fn stale(root: &Path) -> Result<Vec<String>> {
    let differs =
        |name: &str, text: &str| fs::read_to_string(root.join(name)).is_ok_and(|found| found == text);
    let stale = files()?.into_iter().filter(|(name, text)| !differs(name, text));
    Ok(stale.map(|(name, _)| format!("{name} is not what the types give: run make gen")).collect())
}
