//! What is remembered of commands that run, to tell when one of them is gone.

use std::collections::HashMap;

use chaperone_ebpf_abi::Command;

use crate::process::NANOSECONDS_PER_TICK;

/// Which process a command is of: by its id, and when it began.
#[derive(Debug)]
pub(crate) struct Gone {
    /// What the hooks add to the time since boot for the ids of commands.
    booted_ns: u64,
    /// By process id: the command, and when the process began, in ticks since boot.
    pub(crate) seen: HashMap<u32, ([u8; 16], u64)>,
}

impl Gone {
    pub(crate) fn new(booted_ns: u64) -> Self {
        Self { booted_ns, seen: HashMap::new() }
    }

    /// Whether this process, which began at that time, is in the middle of that command. One that is seen for the first
    /// time was made by this daemon's hooks, whose clock is known: its process was there before it.
    pub(crate) fn is_of(&self, pid: u32, command: &Command, began: u64) -> bool {
        match self.seen.get(&pid) {
            Some((id, ticks)) if *id == command.id => *ticks == began,
            // Which of its ancestors' processes it is isn't known by the time of the command.
            _ if command.owner != pid => true,
            _ => began <= (made_ns(&command.id).saturating_sub(self.booted_ns) + MILLISECOND) / NANOSECONDS_PER_TICK,
        }
    }
}

/// How exact the time in a command's id is.
const MILLISECOND: u64 = 1_000_000;

/// The time in a UUIDv7, in nanoseconds since 1970; RFC 9562, section 5.7.
fn made_ns(id: &[u8; 16]) -> u64 {
    id[..6].iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte)) * MILLISECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_began_after_the_command_is_another_one() {
        let booted_ns = 1_700_000_000_000 * MILLISECOND;
        // Made 5 s after the boot.
        let mut id = [7; 16];
        id[..6].copy_from_slice(&1_700_000_005_000_u64.to_be_bytes()[2..]);
        let command = |owner| Command { id, execution: 0, owner, untold: 0 };
        let mut gone = Gone::new(booted_ns);
        assert!(gone.is_of(9, &command(9), 500));
        assert!(!gone.is_of(9, &command(9), 501));
        assert!(gone.is_of(9, &command(8), 501), "a child");
        gone.seen.insert(9, (id, 400));
        assert!(gone.is_of(9, &command(9), 400));
        assert!(!gone.is_of(9, &command(9), 500) && !gone.is_of(9, &command(8), 500));
    }
}
