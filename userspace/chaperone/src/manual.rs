//! `chaperone manual`: the pages of the manual and the shells' completions, from the command line's own definition, below
//! a folder as they lie below `/usr`. Packages are made of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;

/// Where each shell looks, below `/usr`.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "share/bash-completion/completions/chaperone"),
    (Shell::Fish, "share/fish/vendor_completions.d/chaperone.fish"),
    (Shell::Zsh, "share/zsh/vendor-completions/_chaperone"),
];

pub fn write(folder: &Path) -> anyhow::Result<ExitCode> {
    let mut cli = Cli::command();
    // Else a page's name is the subcommand's alone.
    cli.build();
    pages(&cli, "chaperone", &folder.join("share/man/man1"))?;
    for (shell, place) in COMPLETIONS {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "chaperone", &mut script);
        put(&folder.join(place), &script)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One page for each command that isn't hidden: `chaperone-trust-install.1`.
fn pages(command: &clap::Command, name: &str, folder: &Path) -> anyhow::Result<()> {
    let page = clap_mangen::Man::new(command.clone().disable_help_subcommand(true))
        .date("")
        .source(concat!("chaperone ", env!("CARGO_PKG_VERSION")))
        .manual("Chaperone");
    let mut text = Vec::new();
    page.render(&mut text).with_context(|| format!("making the manual's page of `{name}`"))?;
    put(&folder.join(format!("{name}.1")), &text)?;
    for inner in command.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help") {
        pages(inner, &format!("{name}-{}", inner.get_name()), folder)?;
    }
    Ok(())
}

fn put(path: &PathBuf, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_shown_has_a_page_and_each_shell_its_completions() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let man = folder.path().join("share/man/man1");
        let page = fs::read_to_string(man.join("chaperone-trust-install.1")).unwrap();
        assert!(page.contains("\\-\\-renew") && page.contains("chaperone"), "{page}");
        assert!(man.join("chaperone.1").exists() && !man.join("chaperone-enter.1").exists());
        for (_, place) in COMPLETIONS {
            let script = fs::read_to_string(folder.path().join(place)).unwrap();
            assert!(script.contains("approvals"), "{place}");
        }
        // Twice the same: packages are reproducible.
        let again = tempfile::tempdir().unwrap();
        write(again.path()).unwrap();
        for each in fs::read_dir(&man).unwrap() {
            let name = each.unwrap().file_name();
            let other = again.path().join("share/man/man1").join(&name);
            assert_eq!(fs::read(man.join(&name)).unwrap(), fs::read(other).unwrap(), "{}", name.display());
        }
    }
}
