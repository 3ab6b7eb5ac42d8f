//! Hearing of cgroups that appear and are held.

use std::{io, os::fd::AsFd as _, time::Duration};

use aya::maps::{MapData, RingBuf};
use chaperone_model::CgroupId;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Tells of cgroups that appeared and are held. One reader at a time; what is missed is among [`Capture::held`](crate::Capture::held).
pub struct PendingCgroups {
    ring: RingBuf<MapData>,
}

impl std::fmt::Debug for PendingCgroups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingCgroups").finish_non_exhaustive()
    }
}

impl PendingCgroups {
    pub(crate) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// Those that appeared since the last time; waits for one, but no longer than `patience`.
    pub fn read(&mut self, patience: Duration) -> io::Result<Vec<CgroupId>> {
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN)], patience) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut appeared = Vec::new();
        while let Some(record) = self.ring.next() {
            appeared.extend(record.first_chunk().map(|id| CgroupId(u64::from_ne_bytes(*id))));
        }
        Ok(appeared)
    }
}
