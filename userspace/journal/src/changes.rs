//! Waiting for another process to write the journal.

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};

use crate::{JournalError, error::Context as _};

/// Tells when the journal's files change: for following it from outside of the daemon.
///
/// Make it before reading to the end, or a change in between is missed.
#[derive(Debug)]
pub struct Changes {
    inotify: Inotify,
    dir: PathBuf,
}

impl Changes {
    /// Begins to watch the journal in `dir`.
    pub fn watch(dir: &Path) -> Result<Self, JournalError> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let inotify = Inotify::init(flags).context("watch", dir)?;
        inotify.add_watch(dir, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE).context("watch", dir)?;
        Ok(Self { inotify, dir: dir.to_owned() })
    }

    /// Blocks until something was written since the last time, or `timeout` is over; tells which.
    pub fn wait(&self, timeout: Duration) -> Result<bool, JournalError> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(JournalError::io("watch", &self.dir, error)),
        }
        // Many events become one change.
        while self.inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
        Ok(true)
    }

    /// The descriptor that becomes readable on a change, for an event loop.
    pub fn as_raw_fd(&self) -> i32 {
        self.inotify.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_told_and_silence_too() {
        let dir = tempfile::tempdir().unwrap();
        let changes = Changes::watch(dir.path()).unwrap();
        assert!(!changes.wait(Duration::from_millis(1)).unwrap());
        std::fs::write(dir.path().join("x"), "y").unwrap();
        assert!(changes.wait(Duration::from_secs(5)).unwrap());
        assert!(!changes.wait(Duration::from_millis(1)).unwrap());
    }
}
