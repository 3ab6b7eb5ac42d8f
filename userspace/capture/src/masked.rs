//! Masked arguments, kept by command: a command's connections are many, and masking costs more than all else about them.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::Mutex,
};

use chaperone_model::CommandId;

use crate::attach::lock;

/// Commands whose arguments are kept: some 4 KiB each at most.
const MAX_COMMANDS: usize = 1024;

/// The arguments of the latest commands.
#[derive(Debug, Default)]
pub(crate) struct MaskedArguments {
    /// Only the hash of what was masked: what is masked is kept nowhere.
    hasher: RandomState,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_command: HashMap<CommandId, (u64, Vec<String>)>,
    /// The oldest first.
    order: VecDeque<CommandId>,
}

impl MaskedArguments {
    /// The masked arguments of that command's process, which wrote them so at this moment: it can write others over them,
    /// and its children can have others. `mask` makes what isn't kept.
    pub(crate) fn of(
        &self,
        command: Option<CommandId>,
        cmdline: &[u8],
        mask: impl FnOnce(&[u8]) -> Vec<String>,
    ) -> Vec<String> {
        let Some(command) = command else { return mask(cmdline) };
        let hash = self.hasher.hash_one(cmdline);
        if let Some((of, arguments)) = lock(&self.kept).by_command.get(&command)
            && *of == hash
        {
            return arguments.clone();
        }
        // Not under the lock: others needn't wait.
        let arguments = mask(cmdline);
        let mut kept = lock(&self.kept);
        if kept.by_command.insert(command, (hash, arguments.clone())).is_none() {
            kept.order.push_back(command);
        }
        if kept.order.len() > MAX_COMMANDS
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.by_command.remove(&oldest);
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn command(number: u64) -> CommandId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        CommandId::from_bytes(bytes)
    }

    #[test]
    fn arguments_are_masked_once_a_command_unless_they_change() {
        let (masked, made) = (MaskedArguments::default(), Cell::new(0));
        let of = |command, cmdline: &[u8]| {
            masked.of(command, cmdline, |cmdline| {
                made.set(made.get() + 1);
                vec![format!("{} masked", cmdline.len())]
            })
        };
        assert_eq!(of(Some(command(1)), b"aws"), ["3 masked"]);
        assert_eq!(of(Some(command(1)), b"aws"), ["3 masked"]);
        assert_eq!(made.get(), 1);
        assert_eq!(of(Some(command(1)), b"innocent"), ["8 masked"]);
        assert_eq!(of(Some(command(2)), b"innocent"), ["8 masked"]);
        assert_eq!(made.get(), 3);
        of(None, b"aws");
        of(None, b"aws");
        assert_eq!(made.get(), 5);
        assert!(!format!("{masked:?}").contains("innocent"));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let masked = MaskedArguments::default();
        for number in 0..3000 {
            masked.of(Some(command(number)), b"x", |_| Vec::new());
            masked.of(Some(command(number)), b"y", |_| Vec::new());
        }
        let kept = lock(&masked.kept);
        assert_eq!((kept.by_command.len(), kept.order.len()), (MAX_COMMANDS, MAX_COMMANDS));
        assert!(kept.by_command.contains_key(&command(2999)));
    }
}
