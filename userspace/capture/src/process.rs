//! Who connected, by `/proc`. An agent chooses its own name and arguments, and may be gone: these facts describe. Nothing
//! here takes a lock that the process can keep; for its arguments see [`crate::arguments`].

use std::{fs::File, io::Read as _, os::fd::OwnedFd};

use nix::{
    fcntl::{OFlag, open, openat, readlinkat},
    sys::stat::Mode,
};

use crate::ArgumentMask;

/// How many arguments are kept.
pub(crate) const MAX_ARGUMENTS: usize = 64;
/// How many bytes of all arguments are kept. `stat` is far shorter.
const MAX_BYTES: u64 = 4096;

/// The arguments in a `cmdline`, without their secrets.
pub(crate) fn masked(cmdline: &[u8], mask: &ArgumentMask) -> Vec<String> {
    let mut argv = arguments(cmdline);
    mask.mask(&mut argv);
    argv
}

/// The folder in `/proc` of a process that connected `connected_ns` nanoseconds after boot; a process of that id which
/// began later is another one. An open folder stays with its process: once that is gone, everything in it fails, even if
/// the id is used again.
pub(crate) fn folder(pid: u32, connected_ns: u64) -> Option<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC;
    let folder = open(format!("/proc/{pid}").as_str(), flags, Mode::empty()).ok()?;
    let mut stat = Vec::with_capacity(1024);
    read(&folder, "stat", &mut stat)?;
    let started = started_ticks(&String::from_utf8_lossy(&stat))?;
    (started <= connected_ns / NANOSECONDS_PER_TICK).then_some(folder)
}

/// The executable of a process; empty if it is gone.
pub(crate) fn exe(folder: &OwnedFd) -> String {
    readlinkat(folder, "exe").map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
}

/// When a process began, in ticks since boot; `None` if it is gone.
pub(crate) fn began_ticks(pid: u32) -> Option<u64> {
    started_ticks(&String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/stat")).ok()?))
}

/// The beginning of a file of the process's.
pub(crate) fn read(folder: &OwnedFd, name: &str, into: &mut Vec<u8>) -> Option<()> {
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
        let folder = folder(std::process::id(), u64::MAX).unwrap();
        assert_eq!(exe(&folder), std::env::current_exe().unwrap().to_string_lossy());
        let mut cmdline = Vec::new();
        read(&folder, "cmdline", &mut cmdline).unwrap();
        assert_eq!(masked(&cmdline, &ArgumentMask::default())[0], std::env::args().next().unwrap());
    }

    #[test]
    fn a_process_that_began_after_the_connection_is_another_one() {
        assert!(folder(std::process::id(), 0).is_none());
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
