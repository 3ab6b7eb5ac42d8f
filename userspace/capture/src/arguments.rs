//! The arguments of processes: those that they were executed with, as the hooks told, and for processes from before those
//! that `/proc` tells, for which nobody waits long.
//!
//! Reading `cmdline` takes the lock of the process's memory (fs/proc/base.c, `get_mm_cmdline`, and mm/memory.c,
//! `__access_remote_vm`), as `environ` and `maps` do. A process can keep that lock for as long as it likes. What is read of
//! a process elsewhere, `stat` and the links `exe`, `cwd` and `ns/net`, doesn't take it.

use std::{
    collections::{HashMap, VecDeque},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use chaperone_model::CommandId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::process;

/// Commands whose arguments are kept: some 4 KiB each at most.
const MAX_COMMANDS: usize = 1024;
/// How many processes' arguments are read at once, each in a thread, those that get nowhere included.
const MAX_READERS: usize = 8;
/// How long a reader is waited for. It takes some microseconds, unless the process keeps it waiting.
const PATIENCE: Duration = Duration::from_millis(50);

/// The masked arguments of the latest commands, and the readers of others'.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    kept: Mutex<FdStore>,
    readers: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct FdStore {
    by_command: HashMap<CommandId, Vec<String>>,
    /// The oldest first.
    order: VecDeque<CommandId>,
}

impl Arguments {
    /// Those that this command's process was executed with, masked, if they are kept.
    pub(crate) fn of(&self, command: CommandId) -> Option<Vec<String>> {
        self.kept.lock().by_command.get(&command).cloned()
    }

    /// Keeps a command's arguments, which are masked.
    pub(crate) fn keep(&self, command: CommandId, arguments: Vec<String>) {
        let mut kept = self.kept.lock();
        if kept.by_command.insert(command, arguments).is_none() {
            kept.order.push_back(command);
        }
        if kept.order.len() > MAX_COMMANDS
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.by_command.remove(&oldest);
        }
    }

    /// The beginning of the `cmdline` of a process, by its folder in `/proc`; nothing if it doesn't come in time.
    pub(crate) async fn read(&self, process: OwnedFd) -> Vec<u8> {
        let (done, read) = oneshot::channel();
        // Who waited may have given up.
        self.start(process, |cmdline| drop(done.send(cmdline)));
        tokio::time::timeout(PATIENCE, read).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// As [`read`](Self::read); blocks.
    pub(crate) fn read_blocking(&self, process: OwnedFd) -> Vec<u8> {
        let (done, read) = mpsc::channel();
        self.start(process, move |cmdline| drop(done.send(cmdline)));
        read.recv_timeout(PATIENCE).unwrap_or_default()
    }

    /// Reads in a thread of its own, if there is one to be had; `done` isn't called without.
    fn start(&self, process: OwnedFd, done: impl FnOnce(Vec<u8>) + Send + 'static) {
        let Some(reader) = Reader::new(&self.readers) else { return };
        let read = move || {
            let mut cmdline = Vec::new();
            let found = process::read(&process, "cmdline", &mut cmdline);
            // Whoever hears of it may start the next one.
            drop(reader);
            done(found.map(|()| cmdline).unwrap_or_default());
        };
        if let Err(error) = std::thread::Builder::new().name("arguments".to_owned()).spawn(read) {
            tracing::warn!(%error, "no thread to read a process's arguments");
        }
    }
}

/// One of a bounded number.
struct Reader(Arc<AtomicUsize>);

impl Reader {
    fn new(readers: &Arc<AtomicUsize>) -> Option<Self> {
        let one_more = |running: usize| (running < MAX_READERS).then_some(running + 1);
        readers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok().map(|_| Self(readers.clone()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, path::Path};

    use nix::{
        fcntl::{OFlag, open},
        sys::stat::Mode,
        unistd::mkfifo,
    };

    use super::*;

    fn command(number: u64) -> CommandId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        CommandId::from_bytes(bytes)
    }

    fn folder(path: &Path) -> OwnedFd {
        open(path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap()
    }

    /// A pipe stands in for a process that keeps its lock: opening it waits until somebody writes.
    #[test]
    fn nobody_waits_for_a_process_that_keeps_its_arguments_to_itself() {
        let stuck = tempfile::tempdir().unwrap();
        mkfifo(&stuck.path().join("cmdline"), Mode::S_IRWXU).unwrap();
        let free = tempfile::tempdir().unwrap();
        fs::write(free.path().join("cmdline"), b"aws\0s3\0").unwrap();
        let arguments = Arguments::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        assert_eq!(runtime.block_on(arguments.read(folder(free.path()))), b"aws\0s3\0");
        assert_eq!(arguments.readers.load(Ordering::Relaxed), 0);
        for _ in 0..MAX_READERS / 2 {
            assert!(arguments.read_blocking(folder(stuck.path())).is_empty());
            assert!(runtime.block_on(arguments.read(folder(stuck.path()))).is_empty());
        }
        // As many threads as there may be, and no more: others go without.
        assert_eq!(arguments.readers.load(Ordering::Relaxed), MAX_READERS);
        assert!(arguments.read_blocking(folder(free.path())).is_empty());
        assert_eq!(arguments.readers.load(Ordering::Relaxed), MAX_READERS);
        let mut pipe = fs::OpenOptions::new().write(true).open(stuck.path().join("cmdline")).unwrap();
        pipe.write_all(b"late").unwrap();
        drop(pipe);
        // One that opens the pipe after the others have read it waits for the next writer.
        while arguments.readers.load(Ordering::Relaxed) > 0 {
            let writer = OFlag::O_WRONLY | OFlag::O_NONBLOCK;
            drop(open(&stuck.path().join("cmdline"), writer, Mode::empty()));
            std::thread::yield_now();
        }
        assert_eq!(arguments.read_blocking(folder(free.path())), b"aws\0s3\0");
    }

    #[test]
    fn what_is_kept_is_the_latest_commands() {
        let arguments = Arguments::default();
        for number in 0..3000 {
            arguments.keep(command(number), vec!["x".to_owned()]);
            arguments.keep(command(number), vec!["y".to_owned()]);
        }
        let kept = arguments.kept.lock();
        assert_eq!((kept.by_command.len(), kept.order.len()), (MAX_COMMANDS, MAX_COMMANDS));
        drop(kept);
        assert_eq!(arguments.of(command(2999)), Some(vec!["y".to_owned()]));
        assert_eq!(arguments.of(command(0)), None);
    }
}
