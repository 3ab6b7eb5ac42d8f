//! Cgroups that are held: enrolled from the start, until the daemon has found out whose they are.

use std::io;

use aya::maps::MapError;
use chaperone_ebpf_abi::{ENROLLED, HELD};
use chaperone_model::CgroupId;

use crate::{Capture, CaptureError, PreexistingConnection, pending_ring::PendingCgroups};

impl Capture {
    /// Tells of cgroups that are held from now on; `None` if somebody reads them already.
    pub fn take_held(&mut self) -> Option<PendingCgroups> {
        self.held.take()
    }

    /// Those that are held, as the hooks have it.
    pub fn held(&self) -> Result<Vec<CgroupId>, CaptureError> {
        self.flagged(|flags| flags & HELD != 0)
    }

    /// Holds a cgroup that was there before, and destroys its earlier connections, as
    /// [`enroll`](Self::enroll) does.
    pub fn hold(&self, cgroup: CgroupId) -> Result<Vec<PreexistingConnection>, CaptureError> {
        let earlier = self.enroll(cgroup)?;
        self.set(cgroup, ENROLLED | HELD)?;
        Ok(earlier)
    }

    /// A cgroup that is held is an agent's: it stays enrolled. It was so from the start, so that no connection of it can
    /// be older.
    pub fn confirm(&self, cgroup: CgroupId) -> Result<(), CaptureError> {
        self.exchange(cgroup, Some(ENROLLED))
    }

    /// A cgroup that is held is nobody's: it is free, unless one that it is in is enrolled. What its processes did until now
    /// is forgotten.
    pub fn release(&self, cgroup: CgroupId) -> Result<(), CaptureError> {
        self.exchange(cgroup, None)
    }

    /// Nothing, if it isn't held any more.
    fn exchange(&self, cgroup: CgroupId, flags: Option<u32>) -> Result<(), CaptureError> {
        let failed = || CaptureError::map(format!("deciding on the cgroup {}", cgroup.0));
        let mut map = self.enrolled.lock();
        match map.get(&cgroup.0, 0) {
            Ok(before) if before & HELD != 0 => {}
            Ok(_) | Err(MapError::KeyNotFound) => return Ok(()),
            Err(error) => return Err(failed()(error)),
        }
        let done = match flags {
            // Only where it is there: the hooks forget it when it is gone.
            Some(flags) => map.insert(cgroup.0, flags, BPF_EXIST),
            None => map.remove(&cgroup.0),
        };
        match done {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed()(error)),
        }
    }
}

/// include/uapi/linux/bpf.h
const BPF_EXIST: u64 = 2;
