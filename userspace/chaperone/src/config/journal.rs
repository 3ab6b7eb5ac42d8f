//! `[journal]`: the record.

use std::{path::PathBuf, time::Duration};

use chaperone_journal::{Durability, JournalConfig};
use serde::{Deserialize, Serialize};

chaperone_model::documented! {
/// The record.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// Its folder.
    pub dir: PathBuf,
    /// Size of a segment, in bytes.
    pub segment_bytes: u64,
    /// What a call waits for.
    pub durability: Durability,
    /// Body bytes that may be on their way to disk.
    pub queue_bytes: usize,
    /// Seconds between checkpoints.
    pub checkpoint_seconds: u64,
    /// Room on disk, in bytes, that is kept for agents that recorded little lately; at most an eighth of the disk.
    pub kept_bytes: u64,
}
}

impl Default for Journal {
    fn default() -> Self {
        let config = JournalConfig::new("/var/lib/chaperone/journal");
        Self {
            dir: config.dir,
            segment_bytes: config.segment_bytes,
            durability: config.durability,
            queue_bytes: config.queue_bytes,
            checkpoint_seconds: config.checkpoint_interval.as_secs(),
            kept_bytes: config.kept_bytes,
        }
    }
}

impl Journal {
    /// The journal's own configuration.
    pub fn config(&self) -> JournalConfig {
        let mut config = JournalConfig::new(&self.dir);
        config.segment_bytes = self.segment_bytes;
        config.durability = self.durability;
        config.queue_bytes = self.queue_bytes;
        config.kept_bytes = self.kept_bytes;
        config.checkpoint_interval = Duration::from_secs(self.checkpoint_seconds.max(1));
        config
    }
}
