//! What the journal is told at start.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::JournalError;

/// What a call waits for. Whatever it is, no call goes on before the operating system has its intent: a daemon that is
/// killed leaves no call unrecorded. The rest is about machines that lose power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Calls that change something wait until their intent is on disk; the rest get there within a few milliseconds.
    #[default]
    Group,
    /// No call waits for the disk. What the last tenth of a second recorded can be lost when the machine (not the daemon) dies.
    Relaxed,
    /// Every call waits for the disk.
    Strict,
}

/// The journal's configuration.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// The folder; made (0700) if it isn't there.
    pub dir: PathBuf,
    /// Size that segments are preallocated with, in bytes; rounded up to 4 KiB.
    pub segment_bytes: u64,
    /// What calls wait for.
    pub durability: Durability,
    /// How many bytes may be in memory on their way to disk.
    pub queue_bytes: usize,
    /// A checkpoint is signed when the last one is this old and something was recorded since.
    pub checkpoint_interval: Duration,
    /// A checkpoint is signed after this many records.
    pub checkpoint_records: u64,
    /// Room on disk, in bytes, that only outcomes of calls already begun may use.
    pub reserve_bytes: u64,
    /// Room on disk, in bytes, that is kept for agents that recorded little lately; at most an eighth of the disk.
    pub kept_bytes: u64,
    /// How long an append waits for the disk before it fails.
    pub commit_timeout: Duration,
    /// Whether to go round the page cache where the filesystem allows it.
    pub direct_io: bool,
}

impl JournalConfig {
    /// The defaults, for a journal in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 256 << 20,
            durability: Durability::Group,
            queue_bytes: 8 << 20,
            checkpoint_interval: Duration::from_secs(10),
            checkpoint_records: 100_000,
            reserve_bytes: 4 << 20,
            kept_bytes: 1 << 30,
            commit_timeout: Duration::from_secs(10),
            direct_io: true,
        }
    }

    /// Checks the values against each other and rounds them to what the disk needs.
    pub(crate) fn checked(mut self) -> Result<Self, JournalError> {
        const MIN_SEGMENT: u64 = 64 << 10;
        const MAX_SEGMENT: u64 = 64 << 30;
        if !(MIN_SEGMENT..=MAX_SEGMENT).contains(&self.segment_bytes) {
            return Err(JournalError::Config {
                setting: "segment_bytes",
                why: format!("{} is not between {MIN_SEGMENT} and {MAX_SEGMENT}", self.segment_bytes),
            });
        }
        if self.queue_bytes < 64 << 10 {
            return Err(JournalError::Config {
                setting: "queue_bytes",
                why: format!("{} is less than 65536, the size of one body frame", self.queue_bytes),
            });
        }
        if self.checkpoint_records == 0 {
            return Err(JournalError::Config { setting: "checkpoint_records", why: "it must be at least 1".into() });
        }
        self.segment_bytes = self.segment_bytes.next_multiple_of(4096);
        // Small segments are for tests: the reserve must leave room for something else.
        self.reserve_bytes = self.reserve_bytes.min(self.segment_bytes / 4);
        Ok(self)
    }

    /// Room that nothing but the closing of a segment may use.
    pub(crate) fn floor_bytes(&self) -> u64 {
        (64 << 10).min(self.segment_bytes / 16)
    }

    /// The largest event, in bytes of JSON.
    pub(crate) fn max_event(&self) -> usize {
        crate::record::MAX_PAYLOAD.min(usize::try_from(self.segment_bytes / 4).unwrap_or(usize::MAX))
    }

    /// How long a record that nobody waits for may stay in memory.
    pub(crate) fn linger(&self) -> Duration {
        match self.durability {
            Durability::Group | Durability::Strict => Duration::from_millis(10),
            Durability::Relaxed => Duration::from_millis(100),
        }
    }
}
