//! What a start finds: where the journal ends, what a crash tore, and what was open.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use chaperone_model::{CallId, Session};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    JournalError, SegmentHeader,
    disk::{self, BLOCK},
    error::Context as _,
    kind::Kind,
    open_work::{Carry, Mark, OpenWork},
    reader::{Reader, Record},
    record::{ChainHash, FLAG_COMMIT, Fault, HEAD, Position, RecordHead, Salt, Seq, Wrong, sha256},
    writer::BUFFER,
};

/// What the start found and did.
#[derive(Debug)]
pub struct Recovered {
    /// The journal's id.
    pub journal: Uuid,
    /// Whether it was made just now.
    pub is_new: bool,
    /// The torn end that was cut off.
    pub torn: Option<TornTail>,
    /// How many records had been staged and were in no segment; they are now.
    pub staged: usize,
    /// The calls that were open and are closed as interrupted now.
    pub interrupted: Vec<CallId>,
    /// How many connections were open and are closed now.
    pub closed_connections: usize,
    /// The sessions that have no end: the daemon resumes or ends them.
    pub sessions: Vec<Session>,
    /// Whether writing goes past the page cache.
    pub direct_io: bool,
}

/// A commit that a crash tore: its bytes after the last whole record. They are kept in a file beside the segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TornTail {
    /// The segment.
    pub segment: u64,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256.
    #[serde(with = "hex::serde")]
    pub sha256: [u8; 32],
    /// The file in the journal's folder that keeps them.
    pub kept_in: String,
}

/// Where the journal ends.
pub(crate) struct End {
    pub(crate) position: Position,
    pub(crate) sealed: bool,
    pub(crate) open: OpenWork,
    pub(crate) torn: Option<TornTail>,
}

/// Finds the end of the journal in `dir`, whose lock is held; `None` if nothing was ever written. Cuts a torn end.
pub(crate) fn find_end(dir: &Path, journal: Uuid) -> Result<Option<End>, JournalError> {
    remove_unfinished(dir)?;
    let segments = disk::segments(dir)?;
    let mut last_begun = None;
    for index in segments.iter().rev() {
        let path = disk::segment_path(dir, *index);
        let file = File::open(&path).context("open", &path)?;
        if disk::non_zero(&file, 0).context("read", &path)?.is_some() {
            last_begun = Some(*index);
            break;
        }
    }
    let Some(last_begun) = last_begun else { return Ok(None) };
    let first = segments.first().copied().unwrap_or(last_begun);
    for start in (first..=last_begun).rev() {
        let mut scan = Scan::new(dir, start)?;
        let fault = scan.run()?;
        // What was open before a segment stands at its beginning, unless it was too much or a crash came in between.
        if scan.knows_what_was_open || start == first {
            let (position, sealed) = scan.end();
            let begun = position.segment.max(last_begun);
            let fault = fault.or_else(|| {
                // The last segment's first blocks never got to disk, and later ones did.
                let file = disk::segment_path(dir, begun);
                let fault = Fault::NotARecord;
                (begun > position.segment).then_some(Wrong {
                    segment: begun,
                    file,
                    offset: 0,
                    seq: position.seq,
                    fault,
                })
            });
            let torn = fault.map(|wrong| cut(dir, journal, wrong)).transpose()?.flatten();
            return Ok(Some(End { position, sealed, open: scan.open, torn }));
        }
    }
    Ok(None)
}

/// Reads from one segment's beginning to the journal's end.
struct Scan {
    reader: Reader,
    open: OpenWork,
    knows_what_was_open: bool,
    awaited_carries: u32,
    before: Position,
}

impl Scan {
    fn new(dir: &Path, start: u64) -> Result<Self, JournalError> {
        Ok(Self {
            reader: Reader::segment(dir, start)?.alone(),
            open: OpenWork::default(),
            knows_what_was_open: start == 1,
            awaited_carries: 0,
            before: Position { segment: start, ..Position::default() },
        })
    }

    /// Reads to the end, or to what is wrong.
    fn run(&mut self) -> Result<Option<Wrong>, JournalError> {
        loop {
            match self.reader.next_record() {
                Ok(Some(record)) => self.take(&record).map_err(|fault| {
                    JournalError::Damaged(Box::new(Wrong { offset: record.offset, ..self.reader.wrong(fault) }))
                })?,
                Ok(None) => return Ok(None),
                Err(JournalError::Damaged(wrong)) => return Ok(Some(*wrong)),
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, record: &Record) -> Result<(), Fault> {
        let is_start = record.segment == self.before.segment;
        match record.head.kind {
            Kind::Header if is_start => {
                let header: SegmentHeader = record.json()?;
                self.before.seq = Seq(record.head.seq.0 - 1);
                self.before.hash = header.previous;
                self.awaited_carries = header.carries.unwrap_or(0);
                self.knows_what_was_open |= header.carries == Some(0);
            }
            Kind::Carry if is_start && self.awaited_carries > 0 => {
                self.open.add(record.json::<Carry>()?);
                self.awaited_carries -= 1;
                self.knows_what_was_open |= self.awaited_carries == 0;
            }
            Kind::Event => {
                let event = record.recorded_event()?;
                let mark = event.and_then(|event| Mark::of_recorded(&event, record.head.id, &record.payload));
                if let Some(mark) = mark {
                    self.open.mark(mark);
                }
            }
            Kind::RequestBody | Kind::ResponseBody => self.open.body(&record.head),
            Kind::Carry
            | Kind::Checkpoint
            | Kind::Header
            | Kind::Recovery
            | Kind::RequestFraming
            | Kind::Retirement
            | Kind::Unknown(_) => {}
        }
        Ok(())
    }

    /// The place after the last record, and whether that ends its segment.
    fn end(&self) -> (Position, bool) {
        let position = self.reader.position();
        if position.seq == Seq(0) {
            return (Position { offset: 0, ..self.before }, false);
        }
        (position, self.reader.is_at_seal())
    }
}

/// Cuts what a crash tore, keeping a copy; refuses where a crash can't have done it.
fn cut(dir: &Path, journal: Uuid, wrong: Wrong) -> Result<Option<TornTail>, JournalError> {
    let path = disk::segment_path(dir, wrong.segment);
    let file = OpenOptions::new().read(true).write(true).open(&path).context("open", &path)?;
    let Some((_, last)) = disk::non_zero(&file, wrong.offset).context("read", &path)? else { return Ok(None) };
    let begun_block = wrong.offset / BLOCK as u64 * BLOCK as u64;
    if last - begun_block >= (BUFFER + BLOCK) as u64 {
        return Err(JournalError::Damaged(Box::new(wrong)));
    }
    let length = usize::try_from(last + 1 - wrong.offset).expect("BUG: a torn end is at most 2 MiB");
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, wrong.offset).context("read", &path)?;
    if has_later_commit(&bytes, Salt::of(journal), wrong.seq) {
        return Err(JournalError::Damaged(Box::new(wrong)));
    }

    let kept_in = format!("torn-{:012}-{}", wrong.segment, wrong.offset);
    let copy = dir.join(&kept_in);
    let mut options = OpenOptions::new();
    let keep = options.write(true).create(true).truncate(true).mode(0o600).open(&copy).context("create", &copy)?;
    keep.write_all_at(&bytes, 0).and_then(|()| keep.sync_all()).context("write", &copy)?;

    let sha256 = sha256(&bytes);
    bytes.fill(0);
    file.write_all_at(&bytes, wrong.offset).and_then(|()| file.sync_all()).context("cut the torn end of", &path)?;
    Ok(Some(TornTail { segment: wrong.segment, offset: wrong.offset, bytes: length as u64, sha256, kept_in }))
}

/// Whether a whole record that began a later commit is in `bytes`: then the record at their beginning had been
/// durable before, and no crash tore it.
fn has_later_commit(bytes: &[u8], salt: Salt, wrong: Seq) -> bool {
    (1..bytes.len().saturating_sub(HEAD - 1)).any(|at| {
        let Some(head_bytes) = bytes[at..].first_chunk::<HEAD>() else { return false };
        let Ok(head) = RecordHead::parse(head_bytes) else { return false };
        let payload = bytes.get(at + HEAD..at + HEAD + head.payload_len as usize);
        head.flags & FLAG_COMMIT != 0
            && head.seq > wrong
            && payload.is_some_and(|payload| salt.fits(head_bytes, payload))
    })
}

/// Removes files that were being made when the machine stopped.
fn remove_unfinished(dir: &Path) -> Result<(), JournalError> {
    for entry in fs::read_dir(dir).context("list", dir)? {
        let path: PathBuf = entry.context("list", dir)?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            fs::remove_file(&path).context("remove the unfinished", &path)?;
        }
    }
    Ok(())
}

/// The place before the first record.
pub(crate) fn beginning() -> Position {
    Position { segment: 1, offset: 0, seq: Seq(0), hash: ChainHash::default() }
}
