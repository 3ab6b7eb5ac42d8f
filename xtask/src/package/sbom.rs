//! What the program is made of: `cargo tree`'s crates, and a CycloneDX document of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::place;

/// A crate in the program.
#[derive(Clone, Debug)]
pub struct Crate {
    pub name: String,
    pub version: String,
    /// Its SPDX expression.
    pub licence: Option<String>,
    /// Its sources.
    pub folder: PathBuf,
    /// Whether it is one of this workspace's.
    pub own: bool,
    /// Of what the registry has of it.
    sha256: Option<String>,
}

/// All that `cargo tree` lists below `chaperone` for this machine's architecture, sorted.
pub fn crates() -> Result<Vec<Crate>> {
    let listed = cargo(&["tree", "--locked", "-p", "chaperone", "-e", "normal", "--prefix", "none", "-f", "{p}"])?;
    let wanted: BTreeSet<_> = listed.lines().filter_map(named).collect();
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--locked", "--format-version", "1"])?)
        .context("reading `cargo metadata`")?;
    let lock: toml::Table = fs::read_to_string(place::root().join("Cargo.lock"))
        .context("reading Cargo.lock")?
        .parse()
        .context("reading Cargo.lock")?;
    let sums: BTreeMap<_, _> = lock["package"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| Some(((text(it.get("name")?)?, text(it.get("version")?)?), text(it.get("checksum")?)?)))
        .collect();
    let mut crates: Vec<_> = metadata["packages"]
        .as_array()
        .context("`cargo metadata` names no packages")?
        .iter()
        .filter_map(|package| {
            let of = |key: &str| package[key].as_str().map(str::to_owned);
            let key = (of("name")?, of("version")?);
            wanted.contains(&key).then(|| Crate {
                licence: of("license"),
                folder: of("manifest_path")
                    .map(PathBuf::from)
                    .and_then(|it| Some(it.parent()?.to_owned()))
                    .unwrap_or_default(),
                own: package["source"].is_null(),
                sha256: sums.get(&key).cloned(),
                name: key.0,
                version: key.1,
            })
        })
        .collect();
    ensure!(
        crates.len() == wanted.len(),
        "BUG: `cargo tree` lists {} crates, and `cargo metadata` knows {} of them",
        wanted.len(),
        crates.len()
    );
    crates.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    Ok(crates)
}

/// CycloneDX 1.5, without a time or a serial number, so that it is the same each time.
pub fn document(version: &str, crates: &[Crate]) -> Result<Vec<u8>> {
    let component = |it: &Crate| {
        let place = format!("pkg:cargo/{}@{}", it.name, it.version);
        let mut component = json!({
            "type": if it.name == "chaperone" { "application" } else { "library" },
            "bom-ref": place, "name": it.name, "version": it.version, "purl": place, "scope": "required",
        });
        if let Some(licence) = &it.licence {
            // `/` is how `OR` was written before SPDX expressions.
            component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
        }
        if let Some(sum) = &it.sha256 {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
        }
        component
    };
    let (main, others): (Vec<_>, Vec<_>) = crates.iter().partition(|it| it.name == "chaperone");
    let document = json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": { "component": main.first().map_or(json!({ "name": "chaperone", "version": version }), |it| component(it)) },
        "components": others.into_iter().map(component).collect::<Vec<_>>(),
    });
    serde_json::to_vec_pretty(&document).context("writing the SBOM")
}

/// `serde v1.0.1 (proc-macro)`.
fn named(line: &str) -> Option<(String, String)> {
    let mut words = line.split(' ');
    Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
}

fn text(value: &toml::Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn cargo(arguments: &[&str]) -> Result<String> {
    super::said(place::cargo().args(arguments).stdin(Stdio::null()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sbom_lists_what_cargo_tree_does_and_each_crate_of_others_with_its_digest_and_licence() {
        let crates = crates().unwrap();
        let document: Value = serde_json::from_slice(&document("0", &crates).unwrap()).unwrap();
        let tree =
            cargo(&["tree", "--locked", "-p", "chaperone", "-e", "normal", "--prefix", "none", "--no-dedupe"]).unwrap();
        let tree: BTreeSet<_> = tree.lines().filter_map(named).filter(|(name, _)| name != "chaperone").collect();
        let of = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
        let components = document["components"].as_array().unwrap();
        let listed: BTreeSet<_> = components.iter().map(|it| (of(it, "name"), of(it, "version"))).collect();
        assert_eq!(listed, tree);
        for it in crates.iter().filter(|it| !it.own) {
            assert!(it.sha256.is_some() && it.licence.is_some(), "{it:?}");
        }
    }
}
