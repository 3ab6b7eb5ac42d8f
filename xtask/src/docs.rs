//! `cargo xtask docs`: the documentation as a site, by MkDocs, with every link and every place in a page checked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    links::{pages, targets},
    place,
    setup::{self, Package},
};

const PYTHON: [Package; 2] = [
    Package { name: "python3", why: "runs MkDocs", shows: "/usr/bin/python3" },
    Package { name: "python3-venv", why: "MkDocs' own environment", shows: "/usr/lib/python3.11/ensurepip" },
];

/// Makes the site in `site` in the target folder.
pub fn run() -> Result<()> {
    let target = place::target()?;
    let (venv, work, site) = (target.join("docs/venv"), target.join("docs/pages"), target.join("site"));
    fs::create_dir_all(target.join("docs")).context("making the site's folder")?;
    setup::packages(&PYTHON)?;
    setup::python(&venv, "docs-requirements.txt", "MkDocs")?;
    lay_out(&place::root(), &work)?;
    let config = target.join("docs/mkdocs.yml");
    let text = fs::read_to_string(place::root().join("docs/mkdocs.yml")).context("reading docs/mkdocs.yml")?;
    fs::write(&config, format!("{text}docs_dir: pages\n")).with_context(|| format!("writing {}", config.display()))?;
    let mut mkdocs = Command::new(venv.join("bin/python"));
    // Not `--quiet`: it silences warnings, and then --strict ends nothing.
    mkdocs.args(["-m", "mkdocs", "build", "--strict", "--clean", "--config-file"]).arg(&config);
    mkdocs.arg("--site-dir").arg(&site).env("NO_MKDOCS_2_WARNING", "1");
    setup::run(&mut mkdocs)?;
    println!("docs: {}", site.join("index.html").display());
    Ok(())
}

/// The pages, and the files that they link to, where they are in the repository.
fn lay_out(root: &Path, work: &Path) -> Result<()> {
    if work.exists() {
        fs::remove_dir_all(work).with_context(|| format!("removing {}", work.display()))?;
    }
    for page in pages() {
        put(root, work, &page)?;
        let text = fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
        for link in targets(&text) {
            let file = page.parent().unwrap_or(root).join(link);
            if file.extension().is_none_or(|extension| extension != "md") && file.is_file() {
                put(root, work, &fs::canonicalize(&file).with_context(|| format!("finding {}", file.display()))?)?;
            }
        }
    }
    Ok(())
}

fn put(root: &Path, work: &Path, file: &Path) -> Result<PathBuf> {
    let to = work.join(file.strip_prefix(root).context("a page links to a file outside of the repository")?);
    let folder = to.parent().context("BUG: a file without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    fs::copy(file, &to).with_context(|| format!("copying {}", file.display()))?;
    Ok(to)
}
