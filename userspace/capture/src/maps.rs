//! Values of the hooks' maps, as aya wants them.

use aya::maps::{Array, MapData};
use chaperone_ebpf_abi::{Command, Home, RuleState};

/// For the hooks' `RULES`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct RuleRecord(pub(crate) RuleState);

// SAFETY: `repr(C)` integers without padding: any bytes are a valid value.
unsafe impl aya::Pod for RuleRecord {}

/// The hooks' automaton.
pub(crate) struct Tables {
    pub(crate) states: Array<MapData, RuleRecord>,
    pub(crate) start: Array<MapData, u32>,
}

/// For the hooks' `HOME`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct HomeRecord(pub(crate) Home);

// SAFETY: `repr(C)` integers without padding: any bytes are a valid value.
unsafe impl aya::Pod for HomeRecord {}

/// For the hooks' `COMMANDS`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct RunningCommand(pub(crate) Command);

// SAFETY: `repr(C)` integers without padding: any bytes are a valid value.
unsafe impl aya::Pod for RunningCommand {}
