//! What agents execute, as the hooks tell it: a stream of commands that begin and end.
//!
//! Everything here describes and never authorises. The kernel's word are the ids, the process, the arguments as they were
//! given, and the file's inode; path, working directory and digest are read from `/proc` a moment later, for as long as
//! the process still runs that file. Nothing here waits for a file: digests come later (digests.rs).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    mem::offset_of,
    os::fd::AsFd as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aya::maps::{HashMap as KernelMap, MapData, MapError, RingBuf};
use chaperone_ebpf_abi::{
    CGROUP_NAMED, COMMAND_ENDED, COMMAND_FOUND, COMMAND_STARTED, CgroupNamed, CommandEnd, CommandStart, Counter,
    MAX_ARGUMENTS, NAMESPACE_UNKNOWN, NO_COMMAND,
};
use chaperone_model::{CgroupId, CommandExit, CommandId};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    time::{ClockId, clock_gettime},
};
use parking_lot::Mutex;

use crate::{
    ArgumentMask, CaptureError, Counters, ExecutableDigest,
    arguments::Arguments,
    digests::Digests,
    executable::{Executable, Running},
    hooks::Misses,
    paths::Paths,
    process,
};

/// Something about a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandEvent {
    /// Its process is gone, or executed something else.
    Ended {
        /// The command.
        id: CommandId,
        /// When.
        at: SystemTime,
        /// How.
        exit: CommandExit,
    },
    /// So many beginnings and ends were not told, since there was no room.
    Lost(u64),
    /// At most so many more beginnings or ends, of anybody's processes, passed the hooks by.
    Missed(u64),
    /// This process is in another network namespace than the daemon: [`Capture::listen_for`](crate::Capture::listen_for).
    Namespace {
        /// Process id.
        pid: u32,
    },
    /// It began.
    Started(Box<StartedCommand>),
}

/// A command that began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartedCommand {
    /// Its id.
    pub id: CommandId,
    /// The command whose process executed it; `None` if that isn't an agent's, or older than the enrolment.
    pub parent: Option<CommandId>,
    /// When.
    pub at: SystemTime,
    /// Process id.
    pub pid: u32,
    /// The parent process's id.
    pub parent_pid: u32,
    /// User id.
    pub uid: u32,
    /// The process's cgroup.
    pub cgroup: CgroupId,
    /// The path that it has, or had; `None` if it was gone before anybody saw it.
    pub path: Option<String>,
    /// The enrolled cgroup: that one or an ancestor.
    pub enrolled: CgroupId,
    /// The path that the enrolled cgroup has, or had; `None` if it was gone before anybody saw it, and no rule named it.
    pub enrolled_path: Option<String>,
    /// Path of the executed file; the name as it was given if the process was gone already.
    pub exe: String,
    /// SHA-256 of that file.
    pub exe_sha256: ExecutableDigest,
    /// Arguments, masked.
    pub argv: Vec<String>,
    /// Whether there were more of them.
    pub argv_cut: bool,
    /// The working directory; empty if the process was gone already.
    pub directory: String,
    /// Whether nobody saw it begin: the process was there before, and made a socket.
    pub found: bool,
}

/// The stream of commands. One reader at a time.
pub struct Commands {
    ring: RingBuf<MapData>,
    losses: Losses,
    shares: Shares,
    mask: Arc<ArgumentMask>,
    arguments: Arc<Arguments>,
    digests: Digests,
    paths: Paths,
    home: String,
    probes: Probes,
    /// Commands of theirs, which haven't ended.
    probing: HashSet<[u8; 16]>,
}

/// What the hooks could not tell.
pub(crate) struct Losses {
    counters: Counters,
    told: u64,
    misses: Misses,
    missed: u64,
}

impl Losses {
    /// `told`: how many losses are recorded already.
    pub(crate) fn new(counters: Counters, told: u64, misses: Misses) -> Self {
        Self { counters, told, misses, missed: 0 }
    }
}

/// What was read of each enrolled cgroup's share of the buffer, which gives it that much room again.
pub(crate) struct Shares {
    written: KernelMap<MapData, u64, u64>,
    read: KernelMap<MapData, u64, u64>,
    /// Of the batch that is being read, by enrolled cgroup, in bytes.
    batch: HashMap<u64, u64>,
}

impl Shares {
    pub(crate) fn new(written: KernelMap<MapData, u64, u64>, read: KernelMap<MapData, u64, u64>) -> Self {
        Self { written, read, batch: HashMap::new() }
    }

    fn note(&mut self, enrolled: u64, bytes: usize) {
        if enrolled != 0 {
            *self.batch.entry(enrolled).or_default() += bytes as u64;
        }
    }

    fn give_back(&mut self) -> Result<(), CaptureError> {
        let failed = |error| CaptureError::map("giving back a share of the commands' buffer")(error);
        let value = |map: &KernelMap<MapData, u64, u64>, enrolled| match map.get(&enrolled, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed(error)),
        };
        for (enrolled, bytes) in self.batch.drain() {
            // Of a cgroup that is gone nothing is kept.
            if value(&self.written, enrolled)?.is_none() {
                continue;
            }
            let before = value(&self.read, enrolled)?.unwrap_or(0);
            self.read.insert(enrolled, before + bytes, 0).map_err(failed)?;
        }
        Ok(())
    }
}

/// The self-test's cgroups: what is executed there is no agent's.
pub(crate) type Probes = Arc<Mutex<BTreeSet<u64>>>;

impl std::fmt::Debug for Commands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commands").field("told", &self.losses.told).finish_non_exhaustive()
    }
}

/// How many are looked at together.
const BATCH: usize = 256;

impl Commands {
    pub(crate) fn new(
        ring: RingBuf<MapData>,
        losses: Losses,
        shares: Shares,
        mask: Arc<ArgumentMask>,
        arguments: Arc<Arguments>,
        probes: Probes,
        cgroup_root: PathBuf,
    ) -> Self {
        let home = std::fs::read_link("/proc/thread-self/ns/net").unwrap_or_default();
        let home = home.to_string_lossy().into_owned();
        Self {
            ring,
            losses,
            shares,
            mask,
            arguments,
            digests: Digests::default(),
            paths: Paths::new(cgroup_root),
            home,
            probes,
            probing: HashSet::new(),
        }
    }

    /// Waits for something to read, but no longer than `patience`.
    pub fn wait(&self, patience: Duration) -> io::Result<()> {
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN)], patience) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What there is to read now, at most a few hundred. Waits for nothing.
    pub fn read(&mut self) -> Result<Vec<CommandEvent>, CaptureError> {
        let clock = Clock::now().map_err(CaptureError::system("reading the clocks"))?;
        let (mut read, mut events) = (Vec::new(), Vec::new());
        while read.len() < BATCH
            && let Some(record) = self.ring.next()
        {
            let parsed = parse(&record);
            match &parsed {
                Some(Record::Start(start, _)) => self.shares.note(start.enrolled, record.len()),
                Some(Record::Named { above, .. }) => self.shares.note(*above, record.len()),
                _ => {}
            }
            match parsed {
                Some(Record::Start(start, _)) if self.probes.lock().contains(&start.enrolled) => {
                    self.probing.insert(start.id);
                }
                Some(Record::End(end)) if self.probing.remove(&end.id) => {}
                // One that was too long, or couldn't be read, is told as empty: it is looked for then.
                Some(Record::Named { id, path, .. }) if path.starts_with('/') => {
                    self.paths.remember(CgroupId(id), path);
                }
                Some(Record::Named { .. }) => {}
                Some(Record::Start(start, arguments)) => {
                    let running = Running::open(&start);
                    if running.as_ref().is_some_and(|running| running.netns != self.home) {
                        events.push(CommandEvent::Namespace { pid: start.pid });
                    }
                    read.push(Parsed::Start(start, arguments.to_vec(), running));
                }
                Some(Record::End(end)) => read.push(Parsed::End(end)),
                Some(Record::Namespace(pid)) => events.push(CommandEvent::Namespace { pid }),
                // Of another version, which was there before.
                None => read.push(Parsed::Unreadable),
            }
        }
        self.shares.give_back()?;
        for parsed in read {
            match parsed {
                Parsed::Start(start, arguments, running) => {
                    self.started(&clock, &start, &arguments, running, &mut events);
                }
                Parsed::End(end) => events.push(CommandEvent::Ended {
                    id: CommandId::from_bytes(end.id),
                    at: clock.at(end.at_ns),
                    exit: exit(end.status),
                }),
                Parsed::Unreadable => events.push(CommandEvent::Lost(1)),
            }
        }
        let losses = &mut self.losses;
        let lost = losses.counters.get(Counter::CommandLost)?;
        if lost > losses.told {
            events.push(CommandEvent::Lost(lost - losses.told));
            losses.told = lost;
        }
        let missed = losses.misses.count().map_err(CaptureError::system("asking what the hooks missed"))?;
        if missed > losses.missed {
            events.push(CommandEvent::Missed(missed - losses.missed));
            losses.missed = missed;
        }
        Ok(events)
    }

    fn started(
        &mut self,
        clock: &Clock,
        start: &CommandStart,
        arguments: &[u8],
        running: Option<Running>,
        into: &mut Vec<CommandEvent>,
    ) {
        let at = clock.at(start.at_ns);
        let parent = (start.parent != NO_COMMAND).then(|| CommandId::from_bytes(start.parent));
        let found = start.kind == COMMAND_FOUND;
        let file_name = start.file_name.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut command = StartedCommand {
            id: CommandId::from_bytes(start.id),
            parent,
            at,
            pid: start.pid,
            parent_pid: start.parent_pid,
            uid: start.uid,
            cgroup: CgroupId(start.cgroup),
            exe: String::from_utf8_lossy(file_name).into_owned(),
            path: self.paths.of(CgroupId(start.cgroup)),
            enrolled: CgroupId(start.enrolled),
            enrolled_path: self.paths.of(CgroupId(start.enrolled)),
            exe_sha256: ExecutableDigest::none(),
            argv: process::arguments(arguments),
            argv_cut: start.arguments_total > start.arguments,
            directory: String::new(),
            found,
        };
        if found && let Some(folder) = process::folder(start.pid, start.at_ns) {
            command.argv = process::arguments(&self.arguments.read_blocking(folder));
        }
        let executable = match running {
            Some(Running { executable, exe, directory, .. }) => {
                (command.exe, command.directory) = (exe, directory);
                Some(executable)
            }
            None => Executable::named(&command.exe, start),
        };
        if let Some(executable) = executable {
            command.exe_sha256 = self.digests.of(executable, start.enrolled);
        }
        command.argv_cut |= command.argv.len() == process::MAX_ARGUMENTS;
        self.mask.mask(&mut command.argv);
        if !(found && command.argv.is_empty()) {
            self.arguments.keep(command.id, command.argv.clone());
        }
        if start.replaces != 0
            && let Some(id) = parent
        {
            into.push(CommandEvent::Ended { id, at, exit: CommandExit::Replaced });
        }
        into.push(CommandEvent::Started(Box::new(command)));
    }
}

enum Parsed {
    Start(Box<CommandStart>, Vec<u8>, Option<Running>),
    End(CommandEnd),
    Unreadable,
}

enum Record<'a> {
    Start(Box<CommandStart>, &'a [u8]),
    End(CommandEnd),
    Namespace(u32),
    Named { id: u64, above: u64, path: String },
}

fn parse(record: &[u8]) -> Option<Record<'_>> {
    let kind = u32::from_ne_bytes(record.get(..4)?.try_into().ok()?);
    match kind {
        COMMAND_STARTED | COMMAND_FOUND => {
            let (head, rest) = record.split_at_checked(size_of::<CommandStart>())?;
            // SAFETY: as many bytes as the type has, which is `repr(C)` integers without padding.
            let start = unsafe { head.as_ptr().cast::<CommandStart>().read_unaligned() };
            let length = (start.arguments as usize).min(MAX_ARGUMENTS);
            Some(Record::Start(Box::new(start), rest.get(..length)?))
        }
        COMMAND_ENDED => {
            let head = record.get(..size_of::<CommandEnd>())?;
            // SAFETY: as above.
            Some(Record::End(unsafe { head.as_ptr().cast::<CommandEnd>().read_unaligned() }))
        }
        CGROUP_NAMED => {
            let number = |at: usize| Some(u64::from_ne_bytes(record.get(at..)?.first_chunk().copied()?));
            let (id, above) = (number(offset_of!(CgroupNamed, id))?, number(offset_of!(CgroupNamed, above))?);
            let path = record.get(offset_of!(CgroupNamed, path)..)?.split(|byte| *byte == 0).next().unwrap_or_default();
            Some(Record::Named { id, above, path: String::from_utf8_lossy(path).into_owned() })
        }
        NAMESPACE_UNKNOWN => Some(Record::Namespace(u32::from_ne_bytes(record.get(4..8)?.try_into().ok()?))),
        _ => None,
    }
}

/// wait(2): the low seven bits are the signal, or 0, and then the next byte is the code.
fn exit(status: u32) -> CommandExit {
    match status & 0x7f {
        0 => CommandExit::Code(status >> 8 & 0xff),
        signal => CommandExit::Signal(signal),
    }
}

/// From the time since boot to the time of day.
struct Clock {
    now: SystemTime,
    since_boot: Duration,
}

impl Clock {
    fn now() -> io::Result<Self> {
        let since_boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
        Ok(Self { now: SystemTime::now(), since_boot })
    }

    fn at(&self, since_boot_ns: u64) -> SystemTime {
        let ago = self.since_boot.saturating_sub(Duration::from_nanos(since_boot_ns));
        self.now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// What the hooks add to the time since boot for their ids, in nanoseconds.
pub(crate) fn booted_ns() -> io::Result<u64> {
    let clock = Clock::now()?;
    let booted = clock.at(0).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(booted.as_nanos()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_wait() {
        assert_eq!(exit(0), CommandExit::Code(0));
        assert_eq!(exit(3 << 8), CommandExit::Code(3));
        assert_eq!(exit(9), CommandExit::Signal(9));
        assert_eq!(exit(0x8b), CommandExit::Signal(11));
    }

    #[test]
    fn records_that_are_cut_off_are_none() {
        let mut record = vec![0; size_of::<CommandStart>() + 8];
        record[0] = 1;
        record[4] = 9;
        assert!(parse(&record).is_none());
        record[4] = 8;
        assert!(parse(&record).is_some());
        for length in 0..size_of::<CommandStart>() {
            assert!(parse(&record[..length]).is_none());
        }
        record[0] = 7;
        assert!(parse(&record).is_none());
    }
}
