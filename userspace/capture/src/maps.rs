//! Values of the hooks' maps, as aya wants them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use aya::maps::{Array, HashMap, MapData};
use chaperone_ebpf_abi::{Command, Endpoint, Home, RuleState};

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

/// For the hooks' `PROXIES`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct ProxyKey(pub(crate) Endpoint);

// SAFETY: `repr(C)` integers without padding: any bytes are a valid value.
unsafe impl aya::Pod for ProxyKey {}

impl ProxyKey {
    pub(crate) fn of(address: SocketAddr) -> Self {
        let port = address.port();
        Self(match address.ip().to_canonical() {
            IpAddr::V4(v4) => Endpoint::v4(u32::from_ne_bytes(v4.octets()), port),
            IpAddr::V6(v6) => {
                let bytes = v6.octets();
                let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
                Endpoint::v6([word(0), word(4), word(8), word(12)], port)
            }
        })
    }
}

/// The hooks' maps of them.
pub(crate) struct Proxies {
    pub(crate) endpoints: HashMap<MapData, ProxyKey, u32>,
    pub(crate) any: Array<MapData, u32>,
    /// What is in there.
    pub(crate) captured: BTreeSet<SocketAddr>,
}
