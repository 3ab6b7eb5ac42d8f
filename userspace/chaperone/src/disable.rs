//! `chaperone disable`: takes the hooks off. It works where the daemon doesn't: with a configuration that is wrong, by what is
//! kept of the one that was in force; and, said expressly, without a record.

use std::{collections::BTreeSet, os::unix::net::UnixDatagram, path::Path, process::ExitCode};

use anyhow::Context as _;
use chaperone_capture::{ForeignPrograms, Whose, beside, remove_pins};
use chaperone_journal::{Journal, JournalConfig};
use chaperone_model::{Event, HooksRemoved};
use time::OffsetDateTime;

use crate::{
    config::{self, Config, Paths},
    in_force,
};

pub fn run(path: &Path, unrecorded: bool) -> anyhow::Result<ExitCode> {
    let kept = in_force::kept(path);
    let (paths, journal) = match (Config::read(path), &kept) {
        (Ok(config), _) => (config.paths.clone(), config.journal()),
        (Err(error), Some((kept, by))) => {
            eprintln!("chaperone: {error}");
            eprintln!("chaperone: going by what was in force last, {}", by.display());
            (kept.paths.clone(), kept.journal.config())
        }
        (Err(error), None) => {
            eprintln!("chaperone: {error}");
            eprintln!("chaperone: it isn't kept what was in force; going by the defaults");
            (Paths::default(), config::Journal::default().config())
        }
    };
    // Those that were attached before `paths.bpffs` was changed, too.
    let mut folders = BTreeSet::from([paths.bpffs.clone()]);
    folders.extend(kept.map(|(kept, _)| kept.paths.bpffs));
    if folders.iter().any(|folder| folder.exists()) {
        // Before it is so: what can't be recorded isn't done, unless it shall be.
        match record(journal) {
            Err(error) if unrecorded => tell_unrecorded(&error),
            Err(error) => {
                return Err(error.context(
                    "taking the hooks off can't be recorded, so they stay on; \
                     `chaperone disable --unrecorded` takes them off all the same",
                ));
            }
            Ok(()) => {}
        }
    }
    let mut there_were_some = false;
    for folder in &folders {
        there_were_some |= remove_pins(folder)?;
    }
    // Else the next daemon that can't start would refuse agents again.
    in_force::forget(path).context("the hooks are off; forgetting what was in force")?;
    let left = left(&paths.bpffs);
    for line in &left {
        eprintln!("chaperone: {line}");
    }
    let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    match (there_were_some, left.is_empty()) {
        (true, true) => {
            println!("the hooks are off: agents reach AWS by themselves again, and nothing of it is recorded");
        }
        (true, false) => println!("the hooks that were pinned in {} are off", folders.join(", ")),
        (false, _) => println!("there were no hooks in {}", folders.join(", ")),
    }
    Ok(if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Hooks for which nothing listens: agents of theirs are refused still. Those of other daemons that live aren't meant.
fn left(bpffs: &Path) -> Vec<String> {
    let found = match beside(bpffs) {
        Ok(found) => found,
        Err(error) => return vec![format!("it isn't known whether other hooks are left: {error:#}")],
    };
    let folders: BTreeSet<_> = found
        .into_iter()
        .filter_map(|ForeignPrograms { whose, .. }| match whose {
            Whose::Chaperones { folder, lives: false } => Some(folder),
            _ => None,
        })
        .collect();
    let told = |folder: &std::path::PathBuf| {
        let folder = folder.display();
        format!(
            "hooks are left, pinned in {folder}, and no daemon has them: their agents are refused still; `rm -r {folder}` takes \
             them off"
        )
    };
    folders.iter().map(told).collect()
}

fn record(journal: JournalConfig) -> anyhow::Result<()> {
    let (journal, _) = Journal::open(journal)
        .context("opening the journal (does the daemon run? `systemctl stop chaperone` first)")?;
    let event = Event::HooksRemoved(HooksRemoved { at: OffsetDateTime::now_utc(), login_uid: login_uid() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        journal.append(&event, true).await.context("recording that the hooks are taken off")?;
        journal.close().await.context("closing the journal")
    })
}

/// `(uid_t) -1` where nobody has logged in.
fn login_uid() -> Option<u32> {
    let text = std::fs::read_to_string("/proc/self/loginuid").ok()?;
    text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
}

/// To standard error and the system's log.
fn tell_unrecorded(error: &anyhow::Error) {
    let by = login_uid().map_or_else(|| "nobody who logged in".to_owned(), |uid| format!("login uid {uid}"));
    let line = format!("the hooks are taken off, by {by}, and the journal doesn't have it: {error:#}");
    eprintln!("chaperone: {line}");
    // `LOG_AUTH | LOG_WARNING`; where nobody takes it, standard error has it.
    let said = UnixDatagram::unbound()
        .and_then(|log| log.send_to(format!("<36>chaperone[{}]: {line}", std::process::id()).as_bytes(), "/dev/log"));
    if let Err(error) = said {
        eprintln!("chaperone: the system's log couldn't be told: {error}");
    }
}
