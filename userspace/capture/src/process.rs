//! Who connected, by `/proc`. An agent chooses its own name and arguments, and may be gone: these facts describe.

use std::{fs::File, io::Read as _, os::fd::OwnedFd};

use chaperone_model::ProcessFacts;
use nix::{
    fcntl::{OFlag, open, openat, readlinkat},
    sys::stat::Mode,
};

use crate::ArgumentMask;

/// How many arguments are kept.
pub(crate) const MAX_ARGUMENTS: usize = 64;
/// How many bytes of all arguments are kept. `stat` is far shorter.
const MAX_BYTES: u64 = 4096;

/// What `/proc` tells of a process that connected `connected_ns` nanoseconds after boot. A process of that id which
/// began later is another one: then nothing is told but the ids. Secrets in its arguments are masked.
pub fn process_facts(pid: u32, uid: u32, connected_ns: u64, mask: &ArgumentMask) -> ProcessFacts {
    facts(pid, uid, connected_ns, |cmdline| masked(cmdline, mask))
}

/// The arguments in a `cmdline`, without their secrets.
pub(crate) fn masked(cmdline: &[u8], mask: &ArgumentMask) -> Vec<String> {
    let mut argv = arguments(cmdline);
    mask.mask(&mut argv);
    argv
}

/// As [`process_facts`]; `argv` makes the arguments of the beginning of `cmdline`.
pub(crate) fn facts(pid: u32, uid: u32, connected_ns: u64, argv: impl FnOnce(&[u8]) -> Vec<String>) -> ProcessFacts {
    let nobody = ProcessFacts { pid, uid, ..ProcessFacts::default() };
    // An open folder stays with its process: once that is gone, everything below fails, even if the id is used again.
    let Ok(folder) =
        open(format!("/proc/{pid}").as_str(), OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
    else {
        return nobody;
    };
    let mut bytes = Vec::with_capacity(1024);
    let started = read(&folder, "stat", &mut bytes).and_then(|()| started_ticks(&String::from_utf8_lossy(&bytes)));
    if started.is_none_or(|ticks| ticks > connected_ns / NANOSECONDS_PER_TICK) {
        return nobody;
    }
    let exe = readlinkat(&folder, "exe").map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    bytes.clear();
    let argv = read(&folder, "cmdline", &mut bytes).map(|()| argv(&bytes)).unwrap_or_default();
    ProcessFacts { pid, uid, exe, argv, command: None }
}

/// When a process began, in ticks since boot; `None` if it is gone.
pub(crate) fn began_ticks(pid: u32) -> Option<u64> {
    started_ticks(&String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/stat")).ok()?))
}

/// The beginning of a file of the process's.
fn read(folder: &OwnedFd, name: &str, into: &mut Vec<u8>) -> Option<()> {
    let file = openat(folder, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    File::from(file).take(MAX_BYTES).read_to_end(into).ok().map(|_| ())
}

/// `USER_HZ`, which is 100 on every architecture that we build for.
pub(crate) const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// Field 22 of `/proc/PID/stat`. The second field is the name, which may contain anything, `)` too.
fn started_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

pub(crate) fn arguments(cmdline: &[u8]) -> Vec<String> {
    let cmdline = cmdline.strip_suffix(&[0]).unwrap_or(cmdline);
    if cmdline.is_empty() {
        return Vec::new();
    }
    cmdline
        .split(|byte| *byte == 0)
        .take(MAX_ARGUMENTS)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_described() {
        let facts = process_facts(std::process::id(), 7, u64::MAX, &ArgumentMask::default());
        assert_eq!(facts.exe, std::env::current_exe().unwrap().to_string_lossy());
        assert_eq!(facts.argv[0], std::env::args().next().unwrap());
        assert_eq!(facts.uid, 7);
    }

    #[test]
    fn a_process_that_began_after_the_connection_is_another_one() {
        let facts = process_facts(std::process::id(), 0, 0, &ArgumentMask::default());
        assert_eq!(facts, ProcessFacts { pid: std::process::id(), ..ProcessFacts::default() });
    }

    #[test]
    fn a_name_may_contain_parentheses() {
        let stat = "1234 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
        assert_eq!(started_ticks(stat), Some(777));
        assert_eq!(started_ticks("no"), None);
    }

    #[test]
    fn arguments_are_bounded() {
        assert_eq!(arguments(b"aws\0s3\0\0ls\0"), ["aws", "s3", "", "ls"]);
        assert!(arguments(b"").is_empty());
        assert_eq!(arguments(&[b'a', 0].repeat(1000)).len(), MAX_ARGUMENTS);
        assert_eq!(arguments(b"\xff\0"), ["\u{fffd}"]);
    }
}
