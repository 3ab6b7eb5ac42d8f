//! Commands whose end the hooks missed: newer kernels pass a tracepoint's program by at times. Their processes are gone,
//! and what the hooks remember of them would be taken for another process's, once one has the same id.

use std::{collections::HashMap, io, time::SystemTime};

use aya::maps::MapError;
use chaperone_ebpf_abi::Command;
use chaperone_model::{CommandExit, CommandId};

use crate::{
    Capture, CaptureError, CommandEvent,
    attach::{RunningCommand, lock},
    process::{NANOSECONDS_PER_TICK, began_ticks},
};

/// Which process a command is of: by its id, and when it began.
#[derive(Debug)]
pub(crate) struct Gone {
    /// What the hooks add to the time since boot for the ids of commands.
    booted_ns: u64,
    /// By process id: the command, and when the process began, in ticks since boot.
    seen: HashMap<u32, ([u8; 16], u64)>,
}

impl Gone {
    pub(crate) fn new(booted_ns: u64) -> Self {
        Self { booted_ns, seen: HashMap::new() }
    }

    /// Whether this process, which began at that time, is in the middle of that command. One that is seen for the first
    /// time was made by this daemon's hooks, whose clock is known: its process was there before it.
    fn is_of(&self, pid: u32, command: &Command, began: u64) -> bool {
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

impl Capture {
    /// Forgets the commands whose processes are gone, and tells their ends, each once: their ends are known by nobody else.
    /// To be asked when all that the hooks have told is read, after [`CommandEvent::Missed`] and now and then. Costs three
    /// system calls for each process that is in the middle of a command, and three for reading its `stat`.
    pub fn commands_gone(&self) -> Result<Vec<CommandEvent>, CaptureError> {
        let (mut ended, mut seen) = (Vec::new(), HashMap::new());
        let mut gone = lock(&self.gone);
        for (pid, command) in self.remembered()? {
            match began_ticks(pid) {
                Some(began) if gone.is_of(pid, &command, began) => {
                    seen.insert(pid, (command.id, began));
                }
                _ => {
                    if self.forget_command(pid, &command)? && command.owner == pid {
                        let id = CommandId::from_bytes(command.id);
                        ended.push(CommandEvent::Ended { id, at: SystemTime::now(), exit: CommandExit::Gone });
                    }
                }
            }
        }
        gone.seen = seen;
        Ok(ended)
    }

    /// What an earlier daemon's hooks remember, whose clock isn't known: as things are now.
    pub(crate) fn remember_commands(&self) -> Result<(), CaptureError> {
        let remembered = self.remembered()?.into_iter();
        // One that is gone already began never.
        let seen = remembered.map(|(pid, command)| (pid, (command.id, began_ticks(pid).unwrap_or(u64::MAX))));
        lock(&self.gone).seen = seen.collect();
        Ok(())
    }

    fn remembered(&self) -> Result<Vec<(u32, Command)>, CaptureError> {
        let running = lock(&self.running);
        let commands = running.iter().map(|entry| entry.map(|(pid, RunningCommand(command))| (pid, command)));
        commands.collect::<Result<_, _>>().map_err(CaptureError::map("listing the commands"))
    }

    /// Whether it was there: the process that has its id now may have begun another since. Should it do so between the two
    /// system calls, its connections are found to be of a command that nobody saw begin.
    fn forget_command(&self, pid: u32, command: &Command) -> Result<bool, CaptureError> {
        let mut running = lock(&self.running);
        match running.get(&pid, 0) {
            Ok(RunningCommand(now)) if now == *command => {}
            Ok(_) | Err(MapError::KeyNotFound) => return Ok(false),
            Err(error) => return Err(CaptureError::map("looking up a command")(error)),
        }
        match running.remove(&pid) {
            Ok(()) => Ok(true),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(CaptureError::map("forgetting a command")(error)),
        }
    }
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
