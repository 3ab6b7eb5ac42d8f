//! What the host must be for the hooks and for signing: other programs in the hooks' places, the clock, randomness.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use chaperone_capture::{ForeignPrograms, Whose, beside, clock_is_synchronized};

use super::{Finding, finding};

fn warning(check: &'static str, found: String) -> Finding {
    Finding { check, ok: true, warning: true, found }
}

/// AWS takes a signature for five minutes.
pub fn clock() -> Finding {
    match clock_is_synchronized() {
        Ok(true) => finding("clock", Ok::<_, String>("synchronized".to_owned())),
        Ok(false) => warning(
            "clock",
            "nobody sets this host's clock (`timedatectl` says more): AWS refuses signatures that are more than five minutes \
             off; run an NTP client, such as chrony or systemd-timesyncd"
                .to_owned(),
        ),
        Err(error) => warning("clock", format!("it can't be asked whether it is synchronized: {error}")),
    }
}

/// Without randomness, keys wait. random(4): only then a reader that doesn't wait gets `EAGAIN`.
pub fn entropy() -> Finding {
    let read = || {
        let mut random = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/random")?;
        random.read_exact(&mut [0; 16])
    };
    finding("randomness", match read() {
        Ok(()) => Ok("there is enough".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(
            "the kernel's generator isn't seeded: making keys, and so the daemon's start, waits for it; give a virtual machine \
             a virtio-rng device, or wait"
                .to_owned(),
        ),
        Err(error) => Err(format!("/dev/random can't be read: {error}; it must be there, as every host has it")),
    })
}

/// Other daemons' hooks and others' programs where the hooks are.
pub fn beside_the_hooks(bpffs: &Path, findings: &mut Vec<Finding>) {
    const CHECK: &str = "beside the hooks";
    let found = match beside(bpffs) {
        Ok(found) if found.is_empty() => return findings.push(finding(CHECK, Ok::<_, String>("nothing".to_owned()))),
        Ok(found) => found,
        Err(error) => return findings.push(finding(CHECK, Err::<String, _>(format!("{error:#}")))),
    };
    let (mut folders, mut unpinned) = (BTreeMap::new(), BTreeSet::new());
    for ForeignPrograms { hook, program, name, whose } in found {
        match whose {
            Whose::Chaperones { folder, lives } => drop(folders.insert(folder, lives)),
            Whose::Unpinned => drop(unpinned.insert(format!("{hook} (program {program})"))),
            Whose::Others => findings.push(warning(
                CHECK,
                format!(
                    "the program `{name}` ({program}) is attached where the hook `{hook}` is: it may refuse what agents do, or \
                     send it elsewhere; `bpftool prog show id {program}` tells more"
                ),
            )),
        }
    }
    for (folder, lives) in folders {
        let folder = folder.display();
        findings.push(if lives {
            warning(CHECK, format!("another daemon's hooks, pinned in {folder}: what it captures this one doesn't"))
        } else {
            finding(
                CHECK,
                Err::<String, _>(format!(
                    "hooks of a daemon that is gone are attached, pinned in {folder}: their agents are refused, whatever this \
                     daemon does; `rm -r {folder}` takes them off"
                )),
            )
        });
    }
    if !unpinned.is_empty() {
        let hooks = unpinned.into_iter().collect::<Vec<_>>().join(", ");
        findings.push(warning(
            CHECK,
            format!(
                "hooks of a daemon that isn't known here: {hooks}; one in another mount namespace, or one whose pins are gone: if \
                 it doesn't run, agents of its are refused"
            ),
        ));
    }
}
