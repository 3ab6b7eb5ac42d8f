//! A segment's header: which format its records have, and whether this version can read them.
//!
//! What a later version adds, such as an event, a kind of record or a flag, raises `minor`: this version keeps it, ships
//! it and passes it over. What must be understood, or the record would be read wrongly, is named in `requires`; records
//! whose heads look different raise `format`. Both are refused. Headers themselves stay as they are in every format.

use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{JournalError, record::ChainHash};

/// The format that this version writes, and the last one that it reads.
pub(crate) const FORMAT: u32 = 1;
/// Raised with each event, kind of record or flag that is added.
pub(crate) const MINOR: u32 = 1;
/// The features that this version understands, of those that a reader must.
pub(crate) const FEATURES: &[&str] = &[];

/// A segment's first record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentHeader {
    /// The journal.
    pub journal: Uuid,
    /// The segment's number, from 1.
    pub segment: u64,
    /// The hash that the segment before ends with; zero for the first.
    pub previous: ChainHash,
    /// The id of the public key that signs its checkpoints.
    pub key: String,
    /// How many carry records follow; `None` if there was too much open to carry over.
    pub carries: Option<u32>,
    /// The format of the segment's records. Segments of before there were numbers have format 1.
    #[serde(default = "first")]
    pub format: u32,
    /// What of the format's additions may be in the segment; a reader passes over those that it doesn't know.
    #[serde(default)]
    pub minor: u32,
    /// Features that a reader must understand.
    #[serde(default)]
    pub requires: Vec<String>,
    /// The version of Chaperone that began the segment; `None` for those of before it was noted.
    #[serde(default)]
    pub written_by: Option<String>,
}

const fn first() -> u32 {
    1
}

impl SegmentHeader {
    /// The header of a segment that this version writes.
    pub(crate) fn new(journal: Uuid, segment: u64, previous: ChainHash, key: String, carries: Option<u32>) -> Self {
        Self {
            journal,
            segment,
            previous,
            key,
            carries,
            format: FORMAT,
            minor: MINOR,
            requires: FEATURES.iter().map(|&feature| feature.to_owned()).collect(),
            written_by: Some(env!("CARGO_PKG_VERSION").to_owned()),
        }
    }

    /// Whether what this version doesn't know may be in the segment.
    pub(crate) const fn is_later(&self) -> bool {
        self.minor > MINOR
    }

    /// An error if this version can't read the segment in `file`.
    pub(crate) fn check(&self, file: &Path) -> Result<(), JournalError> {
        let unknown = self.requires.iter().filter(|feature| !FEATURES.contains(&feature.as_str()));
        let mut needs: Vec<_> = unknown.map(|feature| format!("the feature `{feature}`")).collect();
        if self.format > FORMAT {
            needs.insert(0, format!("format {}", self.format));
        }
        if needs.is_empty() {
            return Ok(());
        }
        Err(JournalError::Newer {
            file: file.to_owned(),
            written_by: self.written_by.as_deref().unwrap_or("a later version").to_owned(),
            needs: needs.join(" and "),
        })
    }
}
