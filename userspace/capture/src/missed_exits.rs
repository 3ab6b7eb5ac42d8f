//! Commands whose end the hooks missed: newer kernels pass a tracepoint's program by at times. Their processes are gone,
//! and what the hooks remember of them would be taken for another process's, once one has the same id.

use std::{collections::HashMap, io, time::SystemTime};

use aya::maps::MapError;
use chaperone_ebpf_abi::Command;
use chaperone_model::{CommandExit, CommandId};

use crate::{Capture, CaptureError, CommandEvent, maps::RunningCommand, process::began_ticks};

impl Capture {
    /// Forgets the commands whose processes are gone, and tells their ends, each once: their ends are known by nobody else.
    /// To be asked when all that the hooks have told is read, after [`CommandEvent::Missed`] and now and then. Costs three
    /// system calls for each process that is in the middle of a command, and three for reading its `stat`.
    pub fn commands_gone(&self) -> Result<Vec<CommandEvent>, CaptureError> {
        let (mut ended, mut seen) = (Vec::new(), HashMap::new());
        let mut gone = self.gone.lock();
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
        self.gone.lock().seen = seen.collect();
        Ok(())
    }

    fn remembered(&self) -> Result<Vec<(u32, Command)>, CaptureError> {
        let running = self.running.lock();
        let commands = running.iter().map(|entry| entry.map(|(pid, RunningCommand(command))| (pid, command)));
        commands.collect::<Result<_, _>>().map_err(CaptureError::map("listing the commands"))
    }

    /// Whether it was there: the process that has its id now may have begun another since. Should it do so between the two
    /// system calls, its connections are found to be of a command that nobody saw begin.
    fn forget_command(&self, pid: u32, command: &Command) -> Result<bool, CaptureError> {
        let mut running = self.running.lock();
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
