//! What the hooks counted.

use std::sync::Arc;

use aya::maps::{MapData, PerCpuArray};
use chaperone_ebpf_abi::Counter;

use crate::CaptureError;

/// The hooks' counters, since they were first attached. Cheap to clone.
#[derive(Clone)]
pub struct Counters {
    map: Arc<PerCpuArray<MapData, u64>>,
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

impl Counters {
    pub(crate) fn new(map: PerCpuArray<MapData, u64>) -> Self {
        Self { map: Arc::new(map) }
    }

    /// How often, summed over the CPUs.
    pub fn get(&self, counter: Counter) -> Result<u64, CaptureError> {
        let values = self
            .map
            .get(&(counter as u32), 0)
            .map_err(CaptureError::map(format!("reading the hooks' counter `{}`", counter.as_str())))?;
        Ok(values.iter().sum())
    }

    /// All of them.
    pub fn read(&self) -> Result<Vec<(Counter, u64)>, CaptureError> {
        Counter::ALL.into_iter().map(|counter| Ok((counter, self.get(counter)?))).collect()
    }
}
