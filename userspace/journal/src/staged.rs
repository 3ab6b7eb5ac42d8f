//! Staged records: what only has to survive the daemon is given to the operating system at once, by whoever appends it.
//!
//! An intent that need not be on disk before its call goes on must be with the kernel all the same, or a `kill -9`
//! could leave a forwarded call unrecorded. Waiting for the writer's thread costs two switches of threads and a disk
//! write; copying the record into a small file's page cache costs one short system call. So it is copied there first,
//! and the writer stores it in its segment some milliseconds later, together with others. A start looks for records
//! that were staged and are in no segment, and stores them.
//!
//! There are two files. The one in use begins anew whenever the segments have all that is in it; when it is full before
//! that, the other one is taken; when that isn't free either, the append waits for the writer. All integers are
//! little-endian. A file begins with `CHS1`, a checksum, its generation, the first generation that still matters, and
//! the segment that was written then; an entry is its payload's length, a checksum, its time, its id and its payload.
//! Checksums begin with the journal's id and the generation, so that what is left of earlier ones is never believed.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use chaperone_model::RecordedEvent;
use foldhash::HashSet;
use uuid::Uuid;

use crate::{
    JournalError, disk, error::Context as _, item::Item, kind::Kind, open_work::Mark, reader::Reader, record::sha256,
};

const MAGIC: [u8; 4] = *b"CHS1";
const HEAD: usize = 32;
const ENTRY: usize = 32;

/// The two files, and how far they are used. Entries are numbered from 1.
pub(crate) struct Staged {
    slots: [Slot; 2],
    active: usize,
    capacity: u64,
    seed: u32,
    generation: u64,
    /// The last entry's number.
    number: u64,
    bytes: Vec<u8>,
}

struct Slot {
    path: PathBuf,
    file: File,
    /// Where the next entry goes.
    at: u64,
    /// The number of its last entry.
    last: u64,
    generation: u64,
}

impl Staged {
    /// Opens or makes the files in `dir`, each of `capacity` bytes, and forgets what is in them: [`recover`] comes first.
    pub(crate) fn open(dir: &Path, journal: Uuid, capacity: u64) -> Result<Self, JournalError> {
        let mut generation = 0;
        let mut open = |path: PathBuf| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(&path).context("open", &path)?;
            if let Some(head) = read(&file, journal).context("read", &path)?.0 {
                generation = generation.max(head.generation);
            }
            // Written, not only preallocated: staging must not be what finds the disk full.
            let zeros = vec![0; usize::try_from(capacity).unwrap_or(usize::MAX)];
            file.write_all_at(&zeros, 0).and_then(|()| file.sync_all()).context("make room in", &path)?;
            Ok::<_, JournalError>(Slot { path, file, at: capacity, last: 0, generation: 0 })
        };
        let slots = [open(path(dir, 0))?, open(path(dir, 1))?];
        Ok(Self { slots, active: 0, capacity, seed: seed(journal), generation, number: 0, bytes: Vec::new() })
    }

    /// Stages an event. `written` is the number of the last entry that the segments have, `segment` the one that is
    /// being written. `None`: there is no room for it now.
    pub(crate) fn stage(&mut self, item: &Item, written: u64, segment: u64) -> Option<u64> {
        let length = (ENTRY + item.payload.len()) as u64;
        let slot = &self.slots[self.active];
        let anew = if slot.last <= written {
            true
        } else if slot.at + length <= self.capacity {
            false
        } else if self.slots[1 - self.active].last <= written {
            self.active = 1 - self.active;
            true
        } else {
            return None;
        };
        if anew && HEAD as u64 + length > self.capacity {
            return None;
        }
        self.bytes.clear();
        if anew {
            self.generation += 1;
            let other = &self.slots[1 - self.active];
            let floor = if other.last <= written { self.generation } else { other.generation };
            push_head(&mut self.bytes, self.seed, &Head { generation: self.generation, floor, segment });
        }
        push_entry(&mut self.bytes, self.seed, self.generation, item);
        let slot = &mut self.slots[self.active];
        let at = if anew { 0 } else { slot.at };
        if let Err(error) = slot.file.write_all_at(&self.bytes, at) {
            // Nothing is lost: whoever appends waits for the writer instead. What was half written is never believed.
            tracing::warn!(%error, path = %slot.path.display(), "a record could not be staged");
            slot.at = self.capacity;
            return None;
        }
        self.number += 1;
        slot.at = at + self.bytes.len() as u64;
        slot.last = self.number;
        slot.generation = self.generation;
        Some(self.number)
    }
}

/// The staged events that no segment has, in their order. The journal's end has been found, and its torn end cut.
pub(crate) fn recover(dir: &Path, journal: Uuid) -> Result<Vec<Item>, JournalError> {
    let mut found = Vec::new();
    for n in 0..2 {
        let path = path(dir, n);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file.context("open", &path)?,
        };
        if let (Some(head), items) = read(&file, journal).context("read", &path)? {
            found.push((head, items));
        }
    }
    found.sort_by_key(|(head, _)| head.generation);
    let floor = found.last().map_or(0, |(head, _)| head.floor);
    // A segment goes only after all of it was shipped, so what was staged before the first one is long recorded.
    let first = disk::segments(dir)?.first().copied().unwrap_or(1);
    found.retain(|(head, items)| head.generation >= floor && head.segment >= first && !items.is_empty());
    let Some(segment) = found.iter().map(|(head, _)| head.segment).min() else { return Ok(Vec::new()) };
    let mut missing: HashSet<[u8; 32]> = found.iter().flat_map(|(_, items)| items).map(|item| item.digest).collect();
    let mut reader = Reader::segment(dir, segment)?.alone();
    while let Some(record) = reader.next_record()? {
        if record.head.kind == Kind::Event {
            missing.remove(&record.head.digest);
        }
    }
    let items = found.into_iter().flat_map(|(_, items)| items);
    let lost = items.filter(|item| missing.contains(&item.digest));
    // What can't be read as an event is stored as it is. A later version may have staged it.
    let mark = |item: &Item| {
        let event = RecordedEvent::read(&item.payload, true).ok()?;
        Mark::of_recorded(&event, item.id, &item.payload)
    };
    Ok(lost.map(|item| Item { mark: mark(&item), ..item }).collect())
}

fn path(dir: &Path, n: usize) -> PathBuf {
    dir.join(format!("staged-{n}"))
}

fn seed(journal: Uuid) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&MAGIC), journal.as_bytes())
}

#[derive(Debug)]
struct Head {
    generation: u64,
    floor: u64,
    segment: u64,
}

fn push_head(bytes: &mut Vec<u8>, seed: u32, head: &Head) {
    let mut rest = [0; HEAD - 8];
    rest[..8].copy_from_slice(&head.generation.to_le_bytes());
    rest[8..16].copy_from_slice(&head.floor.to_le_bytes());
    rest[16..].copy_from_slice(&head.segment.to_le_bytes());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&crc32c::crc32c_append(seed, &rest).to_le_bytes());
    bytes.extend_from_slice(&rest);
}

fn push_entry(bytes: &mut Vec<u8>, seed: u32, generation: u64, item: &Item) {
    let begin = bytes.len();
    let length = u32::try_from(item.payload.len()).expect("BUG: a payload is at most 512 KiB");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&item.time_us.to_le_bytes());
    bytes.extend_from_slice(&item.id);
    bytes.extend_from_slice(&item.payload);
    let checksum = checksum(seed, generation, &bytes[begin..]);
    bytes[begin + 4..begin + 8].copy_from_slice(&checksum.to_le_bytes());
}

fn checksum(seed: u32, generation: u64, entry: &[u8]) -> u32 {
    let seed = crc32c::crc32c_append(seed, &generation.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &entry[..4]), &entry[8..])
}

/// What a file holds: nothing, if its head isn't whole; else its entries up to the first that isn't.
fn read(file: &File, journal: Uuid) -> io::Result<(Option<Head>, Vec<Item>)> {
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(0).min(MAX_CAPACITY);
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0)?;
    let Some((head, mut rest)) = bytes.split_at_checked(HEAD) else { return Ok((None, Vec::new())) };
    let seed = seed(journal);
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    if head[..4] != MAGIC || number(&head[4..8]) != u64::from(crc32c::crc32c_append(seed, &head[8..])) {
        return Ok((None, Vec::new()));
    }
    let head = Head { generation: number(&head[8..16]), floor: number(&head[16..24]), segment: number(&head[24..]) };
    let mut items = Vec::new();
    while rest.len() >= ENTRY {
        let length = usize::try_from(number(&rest[..4])).unwrap_or(usize::MAX);
        let Some((entry, after)) = rest.split_at_checked(length.saturating_add(ENTRY)) else { break };
        if number(&entry[4..8]) != u64::from(checksum(seed, head.generation, entry)) {
            break;
        }
        let payload = &entry[ENTRY..];
        let mut id = [0; 16];
        id.copy_from_slice(&entry[16..ENTRY]);
        items.push(Item {
            kind: Kind::Event,
            flags: 0,
            id,
            time_us: number(&entry[8..16]),
            body_offset: 0,
            digest: sha256(payload),
            payload: payload.to_vec().into(),
            mark: None,
            session: None,
            staged: 0,
            waiter: None,
        });
        rest = after;
    }
    Ok((Some(head), items))
}

/// How large a file is: some hundred intents, and so what is written in some hundredths of a second under load.
pub(crate) fn capacity(segment_bytes: u64) -> u64 {
    (segment_bytes / 8).clamp(16 << 10, MAX_CAPACITY as u64)
}

const MAX_CAPACITY: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use chaperone_model::{CallId, SessionId};

    use super::*;
    use crate::{Journal, JournalConfig, samples};

    fn intent() -> Item {
        Item::event(&samples::intent(CallId::new(), SessionId::new()), 1 << 20).unwrap()
    }

    fn staged_in(dir: &Path) -> Vec<[u8; 32]> {
        let journal = Uuid::from_u128(7);
        let mut found: Vec<_> = (0..2)
            .filter_map(|n| {
                let (head, items) = read(&File::open(path(dir, n)).unwrap(), journal).unwrap();
                head.map(|head| (head.generation, items))
            })
            .collect();
        found.sort_by_key(|(generation, _)| *generation);
        found.into_iter().flat_map(|(_, items)| items).map(|item| item.digest).collect()
    }

    #[test]
    fn the_file_begins_anew_when_all_of_it_is_written_and_the_other_is_taken_when_it_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let one = intent();
        let room_for_three = (HEAD + 3 * (ENTRY + one.payload.len()) + 10) as u64;
        let mut staged = Staged::open(dir.path(), Uuid::from_u128(7), room_for_three).unwrap();
        let items: Vec<_> = (0..7).map(|_| intent()).collect();
        assert_eq!(staged.stage(&items[0], 0, 1), Some(1));
        assert_eq!(staged.stage(&items[1], 1, 1), Some(2), "anew, since the first is written");
        assert_eq!(staged_in(dir.path()), [items[1].digest]);
        for (n, item) in items.iter().enumerate().skip(2) {
            assert_eq!(staged.stage(item, 1, 1), Some(n as u64 + 1));
        }
        assert_eq!(staged_in(dir.path()), items[1..].iter().map(|item| item.digest).collect::<Vec<_>>());
        assert_eq!(staged.stage(&one, 1, 1), None, "both are full");
        assert_eq!(staged.stage(&one, 4, 1), Some(8), "the first three are written");
        assert_eq!(staged_in(dir.path()).last(), Some(&one.digest));
    }

    #[test]
    fn what_is_damaged_or_of_another_journal_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let mut staged = Staged::open(dir.path(), Uuid::from_u128(7), 64 << 10).unwrap();
        let items: Vec<_> = (0..3).map(|_| intent()).collect();
        for item in &items {
            staged.stage(item, 0, 1).unwrap();
        }
        let file = OpenOptions::new().read(true).write(true).open(path(dir.path(), 0)).unwrap();
        assert!(read(&file, Uuid::from_u128(8)).unwrap().0.is_none());
        let second = (HEAD + ENTRY + items[0].payload.len()) as u64;
        for offset in [0, 5, 9] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, second + offset).unwrap();
            file.write_all_at(&[byte[0] ^ 1], second + offset).unwrap();
            assert_eq!(staged_in(dir.path()), [items[0].digest], "a bit at {offset} of the second entry");
            file.write_all_at(&byte, second + offset).unwrap();
        }
        assert_eq!(staged_in(dir.path()).len(), 3);
        file.write_all_at(b"x", 10).unwrap();
        assert!(staged_in(dir.path()).is_empty());
    }

    #[tokio::test]
    async fn a_start_stores_what_was_staged_and_is_in_no_segment_once() {
        let dir = tempfile::tempdir().unwrap();
        let config = || JournalConfig { segment_bytes: 1 << 20, ..JournalConfig::new(dir.path()) };
        let (journal, _) = Journal::open(config()).unwrap();
        let id = journal.id();
        let recorded = samples::intent(CallId::new(), SessionId::new());
        journal.append(&recorded, true).await.unwrap();
        journal.close().await.unwrap();
        drop(journal);
        // As if the daemon had been killed between staging and writing.
        let lost = CallId::new();
        let mut staged = Staged::open(dir.path(), id, capacity(1 << 20)).unwrap();
        staged.stage(&Item::event(&recorded, 1 << 20).unwrap(), 0, 1).unwrap();
        staged.stage(&Item::event(&samples::intent(lost, SessionId::new()), 1 << 20).unwrap(), 0, 1).unwrap();
        for round in 0..2 {
            let (journal, recovered) = Journal::open(config()).unwrap();
            assert_eq!(recovered.staged, usize::from(round == 0));
            assert_eq!(recovered.interrupted.contains(&lost), round == 0);
            journal.close().await.unwrap();
        }
        let mut reader = Reader::open(dir.path()).unwrap();
        let records: Vec<_> = std::iter::from_fn(|| reader.next_record().unwrap()).collect();
        let of = |digest: [u8; 32]| records.iter().filter(|record| record.head.digest == digest).count();
        assert_eq!(of(Item::event(&recorded, 1 << 20).unwrap().digest), 1);
        let about = records.iter().filter(|record| record.head.id == *lost.as_bytes()).count();
        assert_eq!(about, 2, "its intent and the outcome that says that it was interrupted");
    }
}
