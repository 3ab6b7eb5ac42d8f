//! Removing segments that are stored elsewhere, and saying so in the record.

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    Journal, JournalError, disk,
    error::Context as _,
    item::{Item, Level, Waiter},
    kind::Kind,
    reader::Reader,
    record::{ChainHash, Position},
};

/// How much is kept on the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// Segments go, oldest first, while all of them take more than this many bytes.
    pub max_bytes: Option<u64>,
    /// Segments whose last record is older than this go.
    pub max_age: Option<Duration>,
}

/// Segments were removed: they had been shipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retirement {
    /// The last segment that went; all before it are gone too.
    pub through: u64,
    /// The hash of its last record.
    pub hash: ChainHash,
    /// How many bytes went.
    pub bytes: u64,
}

impl Journal {
    /// Removes the oldest segments that `retention` doesn't want and that were shipped as far as `shipped`.
    /// The removal is recorded first. Segments that are written, or about to be, always stay. Blocks on file
    /// operations, briefly.
    pub async fn retain(&self, retention: Retention, shipped: Position) -> Result<Option<Retirement>, JournalError> {
        let dir = self.dir();
        let Some(mut retirement) = choose(dir, retention, shipped, self.subscribe().borrow().segment)? else {
            return Ok(None);
        };
        // What the segment after the last one continues is that one's hash.
        let mut next = Reader::segment(dir, retirement.through + 1)?;
        let Some(header) = next.next_record()? else { return Ok(None) };
        retirement.hash = header.head.previous;

        let mut item = Item::json(Kind::Retirement, [0; 16], &retirement)?;
        let (waiter, durable) = Waiter::new(Level::Durable);
        item.waiter = Some(waiter);
        self.shared().admit(item)?;
        durable.await.map_err(|_| JournalError::Closed)??;
        for index in disk::segments(dir)?.into_iter().filter(|index| *index <= retirement.through) {
            let path = disk::segment_path(dir, index);
            fs::remove_file(&path).context("remove the retired segment", &path)?;
        }
        File::open(dir).and_then(|dir| dir.sync_all()).context("sync", dir)?;
        Ok(Some(retirement))
    }
}

fn choose(
    dir: &Path,
    retention: Retention,
    shipped: Position,
    current: u64,
) -> Result<Option<Retirement>, JournalError> {
    let mut sizes = Vec::new();
    for index in disk::segments(dir)? {
        let path = disk::segment_path(dir, index);
        let metadata = fs::metadata(&path).context("look at", &path)?;
        let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        sizes.push((index, metadata.len(), age.unwrap_or_default()));
    }
    let mut total: u64 = sizes.iter().map(|(_, bytes, _)| bytes).sum();
    let mut retirement: Option<Retirement> = None;
    for (index, bytes, age) in sizes {
        let too_much = retention.max_bytes.is_some_and(|max| total > max);
        let too_old = retention.max_age.is_some_and(|max| age > max);
        // The segment before the current one stays: a start may have to begin there.
        if !(too_much || too_old) || index >= shipped.segment || index + 1 >= current {
            break;
        }
        total -= bytes;
        let gone = retirement.map_or(0, |retirement| retirement.bytes);
        retirement = Some(Retirement { through: index, hash: ChainHash::default(), bytes: gone + bytes });
    }
    Ok(retirement)
}
