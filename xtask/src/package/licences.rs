//! The licences of all that is linked into the program: their texts, as the crates' authors ship them.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use super::sbom::Crate;

/// In Debian's form.
pub const COPYRIGHT: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: chaperone

Files: *
Copyright: the Chaperone authors
License: Apache-2.0 or MIT
 Both texts are beside this file, in LICENSE-APACHE and LICENSE-MIT; on Debian the first is also in
 /usr/share/common-licenses/Apache-2.0. The program also has in it what THIRD-PARTY-LICENSES lists, each under the terms
 that are given there; sbom.cdx.json has the same for programs.
";

/// Each crate with its licence, then each text once with the crates that it is of.
pub fn texts(crates: &[Crate]) -> Result<String> {
    let mut out =
        String::from("What /usr/bin/chaperone is made of besides its own sources, and under which terms.\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for each in crates.iter().filter(|it| !it.own) {
        let name = format!("{} {}", each.name, each.version);
        let entries = fs::read_dir(&each.folder).with_context(|| format!("listing {}", each.folder.display()))?;
        let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        files.retain(|path| path.is_file() && path.file_name().and_then(|it| it.to_str()).is_some_and(is_licence));
        files.sort();
        let licence = each.licence.as_deref().unwrap_or("see its text below");
        let note = if files.is_empty() { "; its authors ship no text, only the name of the licence" } else { "" };
        // A string takes everything.
        let _ = writeln!(out, "{name}: {licence}{note}");
        for file in files {
            let text = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            let text = String::from_utf8_lossy(&text).replace("\r\n", "\n").trim().to_owned();
            let names = texts.entry(text).or_default();
            if !names.contains(&name) {
                names.push(name.clone());
            }
        }
    }
    for (text, names) in texts {
        let _ = write!(out, "\n{}\n{}:\n\n{text}\n", "=".repeat(100), names.join(", "));
    }
    Ok(out)
}

fn is_licence(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"].iter().any(|word| name.starts_with(word))
        && Path::new(&name).extension().is_none_or(|it| it != "RS")
}
