//! Counts of what the data path did; read by the console.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use chaperone_model::OutcomeStatus;
use foldhash::HashMap;
use parking_lot::Mutex;
use prometheus_client::metrics::histogram::Histogram;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that grows and shrinks.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more until the guard is dropped.
    pub(crate) fn hold(&self) -> Held<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self)
    }
}

/// One of a gauge's units.
pub(crate) struct Held<'a>(&'a Gauge);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Upper bounds of the durations' buckets, in seconds.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// The same of what takes less.
const FINE_BUCKETS: [f64; 12] =
    [0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0];

/// How long calls took, in buckets.
#[derive(Debug)]
pub struct Durations(Histogram);

impl Default for Durations {
    fn default() -> Self {
        Self(Histogram::new(BUCKETS))
    }
}

impl Durations {
    /// Of what takes less than a millisecond.
    fn fine() -> Self {
        Self(Histogram::new(FINE_BUCKETS))
    }

    pub(crate) fn observe(&self, micros: u64) {
        self.0.observe(std::time::Duration::from_micros(micros).as_secs_f64());
    }

    /// The histogram, which goes on counting.
    pub fn histogram(&self) -> Histogram {
        self.0.clone()
    }
}

/// What a call is counted by. All of it is from lists of ours: an agent can't make new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallLabels {
    /// botocore's name of the service, as the host tells; empty for a name under `proxy.inspect`.
    pub service: &'static str,
    /// How it ended.
    pub outcome: OutcomeStatus,
    /// The first digit of the status that AWS, or the daemon, answered with; 0 without an answer.
    pub status_class: u8,
}

/// Calls that are over.
#[derive(Debug, Default)]
pub struct Calls(Mutex<HashMap<CallLabels, u64>>);

impl Calls {
    pub(crate) fn count(&self, service: &'static str, outcome: OutcomeStatus, status: Option<u16>) {
        let status_class = u8::try_from(status.unwrap_or_default() / 100).unwrap_or_default();
        *self.0.lock().entry(CallLabels { service, outcome, status_class }).or_default() += 1;
    }

    /// How many there were, by what they are counted by.
    pub fn get(&self) -> Vec<(CallLabels, u64)> {
        self.0.lock().iter().map(|(labels, count)| (*labels, *count)).collect()
    }
}

/// What agents share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shared {
    /// Open connections.
    Connections,
    /// Memory for heads, bodies and chunks.
    Memory,
    /// Requests that are refused, each of which is recorded.
    Refusals,
}

/// What was refused for want of a share, by what it was.
#[derive(Debug, Default)]
pub struct OverShare {
    /// Connections.
    pub connections: Count,
    /// Requests that there was no memory for.
    pub memory: Count,
    /// Refused requests, answered and not recorded one by one.
    pub refusals: Count,
}

impl OverShare {
    pub(crate) fn count(&self, what: Shared) {
        match what {
            Shared::Connections => self.connections.inc(),
            Shared::Memory => self.memory.inc(),
            Shared::Refusals => self.refusals.inc(),
        }
    }
}

/// All counts of the data path.
#[derive(Debug)]
pub struct Metrics {
    /// Connections open now.
    pub connections: Gauge,
    /// Connections accepted.
    pub accepted: Count,
    /// Connections refused: no origin, no session, no name, a bad handshake.
    pub refused: Count,
    /// What was refused because a session or an agent had its share of it.
    pub over_share: Arc<OverShare>,
    /// Connections passed on unopened.
    pub passed: Count,
    /// Connections answered by the metadata services' stand-in.
    pub metadata: Count,
    /// Requests on opened connections.
    pub requests: Count,
    /// Those that are over.
    pub calls: Calls,
    /// Requests refused by policy or because they can't be trusted.
    pub denied: Count,
    /// Requests refused because they could not be recorded.
    pub unrecorded: Count,
    /// Commands recorded without the digest of their file.
    pub undigested: Count,
    /// How long forwarded calls took, from the head read to the answer's end.
    pub seconds: Durations,
    /// How long policies took to rule on a call.
    pub ruling: Durations,
    /// How long a call waited until its intent was on record.
    pub recording: Durations,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            connections: Gauge::default(),
            accepted: Count::default(),
            refused: Count::default(),
            over_share: Arc::default(),
            passed: Count::default(),
            metadata: Count::default(),
            requests: Count::default(),
            calls: Calls::default(),
            denied: Count::default(),
            unrecorded: Count::default(),
            undigested: Count::default(),
            seconds: Durations::default(),
            ruling: Durations::fine(),
            recording: Durations::fine(),
        }
    }
}
