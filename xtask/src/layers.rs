//! Dependencies point strictly down.
//!
//! Invariant: every package has a layer, depends only on lower layers, and only the named packages may name a fenced library.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result};
use serde::Deserialize;

/// Package name without `ambit-`, and its layer. A new crate must be placed here.
const LAYERS: &[(&str, u8)] = &[
    ("model", 0),
    ("proto", 0),
    ("redirect-common", 0),
    ("api", 1),
    ("netns", 1),
    ("resilience", 1),
    ("route", 1),
    ("runtime", 1),
    ("identity", 2),
    ("hbone", 2),
    ("xds", 2),
    ("zds", 2),
    ("wds", 2),
    ("redirect", 2),
    ("jwt", 2),
    ("store", 3),
    ("index", 3),
    ("proxy", 4),
    ("operator", 5),
    ("ztunnel", 5),
    ("waypoint", 5),
    ("cni", 5),
    ("kind-tests", 6),
    ("waypoint-bench", 6),
    ("control-plane-bench", 6),
    ("xtask", 6),
];

/// A library, and who may name it among its dependencies of any kind.
const FENCES: &[(&str, &[&str])] = &[
    ("rustls", &["identity"]),
    ("tokio-rustls", &["identity"]),
    ("rcgen", &["identity"]),
    ("kube", &["api", "index", "operator", "kind-tests"]),
    ("k8s-openapi", &["api", "index", "operator", "kind-tests", "control-plane-bench"]),
    ("aya", &["redirect", "redirect-common"]),
    ("h2", &["hbone"]),
    (
        "anyhow",
        &[
            "operator",
            "ztunnel",
            "waypoint",
            "cni",
            "kind-tests",
            "waypoint-bench",
            "control-plane-bench",
            "xtask",
        ],
    ),
];

/// Packages that may not wait, read a clock or draw random numbers: decisions live here.
pub(crate) const SYNCHRONOUS: &[&str] =
    &["model", "proto", "redirect-common", "api", "index", "wds", "resilience", "route", "jwt"];

/// Libraries that wait or draw random numbers.
const IMPURE: &[&str] = &["tokio", "rand", "fastrand", "getrandom"];

#[derive(Deserialize)]
struct Manifest {
    package: Package,
    #[serde(flatten)]
    dependencies: Dependencies,
    /// By `cfg` or target triple.
    #[serde(default)]
    target: BTreeMap<String, Dependencies>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[derive(Default)]
struct Dependencies {
    dependencies: BTreeMap<String, toml::Value>,
    dev_dependencies: BTreeMap<String, toml::Value>,
    build_dependencies: BTreeMap<String, toml::Value>,
}

impl Manifest {
    /// The packages that are named anywhere in the manifest, by their own names.
    fn named(&self) -> BTreeSet<&str> {
        let all = self.target.values().chain([&self.dependencies]);
        let all = all.flat_map(|of| [&of.dependencies, &of.dev_dependencies, &of.build_dependencies]);
        all.flatten()
            .map(|(name, value)| value.get("package").and_then(toml::Value::as_str).unwrap_or(name))
            .collect()
    }
}

/// All violations, one sentence each.
pub(crate) fn violations(root: &Path) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for path in manifests(root)? {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let manifest: Manifest = toml::from_str(&text).with_context(|| path.display().to_string())?;
        judge(&manifest, &mut wrong);
    }
    Ok(wrong)
}

fn judge(manifest: &Manifest, wrong: &mut Vec<String>) {
    let name = short(&manifest.package.name);
    let Some(own) = layer(name) else {
        wrong.push(format!("{name} has no layer: place it in xtask/src/layers.rs"));
        return;
    };
    for dependency in manifest.named() {
        let target = short(dependency);
        if let Some(layer) = layer(target).filter(|layer| dependency.starts_with("ambit-") && *layer >= own) {
            wrong.push(format!("{name} (layer {own}) depends on {target} (layer {layer}): only downwards"));
        }
        if FENCES.iter().any(|(library, allowed)| *library == dependency && !allowed.contains(&name)) {
            wrong.push(format!("{name} names {dependency}, which is fenced"));
        }
        if IMPURE.contains(&dependency) && SYNCHRONOUS.contains(&name) {
            wrong.push(format!("{name} is synchronous and names {dependency}"));
        }
    }
}

fn short(name: &str) -> &str {
    name.strip_prefix("ambit-").unwrap_or(name)
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

fn manifests(root: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = vec![
        root.join("operator/Cargo.toml"),
        root.join("xtask/Cargo.toml"),
        root.join("tests/kind/Cargo.toml"),
    ];
    for group in ["crates", "agents", "benches"] {
        for entry in fs::read_dir(root.join(group))? {
            found.push(entry?.path().join("Cargo.toml"));
        }
    }
    // Built for another target by another compiler, with a lockfile of its own.
    found.retain(|path| path.exists() && !path.starts_with(root.join("crates/redirect-ebpf")));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        judge(&toml::from_str(text).unwrap(), &mut wrong);
        wrong
    }

    #[test]
    fn dependencies_point_strictly_down() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert_eq!(violations(root).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn names_a_sideways_edge_a_fenced_library_and_an_unplaced_crate() {
        let sideways =
            judged("package.name = 'ambit-store'\ndependencies = { ambit-index = '1', rustls = '1' }");
        assert_eq!(
            sideways,
            [
                "store (layer 3) depends on index (layer 3): only downwards",
                "store names rustls, which is fenced"
            ]
        );
        assert_eq!(
            judged("package.name = 'ambit-util'"),
            ["util has no layer: place it in xtask/src/layers.rs"]
        );
        assert_eq!(
            judged("package.name = 'ambit-wds'\ndependencies = { tokio = '1' }"),
            ["wds is synchronous and names tokio"]
        );
    }

    #[test]
    fn dependencies_of_every_kind_and_target_count_under_their_own_names() {
        for table in [
            "dev-dependencies",
            "build-dependencies",
            "target.'cfg(unix)'.dependencies",
            "target.x86_64-unknown-linux-gnu.dev-dependencies",
        ] {
            let text = format!(
                "package.name = 'ambit-api'\n[{table}]\nambit-index.workspace = true\nrandom = {{ package = 'rand' }}"
            );
            let expected = [
                "api (layer 1) depends on index (layer 3): only downwards",
                "api is synchronous and names rand",
            ];
            assert_eq!(judged(&text), expected, "{table}");
        }
    }
}
