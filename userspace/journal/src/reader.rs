//! Reading the journal: record by record, over all segments, in bounded memory, also while a daemon writes it.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use chaperone_model::{Event, RecordedEvent};
use uuid::Uuid;

use crate::{
    JournalError, SegmentHeader, disk,
    error::Context as _,
    key::journal_id,
    kind::Kind,
    record::{ChainHash, Fault, HEAD, MAX_PAYLOAD, Position, RecordHead, Salt, Seq, Wrong},
};

/// What is read from a file at once.
const CHUNK: usize = 256 << 10;
/// How long bytes at the end of a journal that is being written may look wrong: far longer than one write takes.
pub(crate) const IN_FLIGHT: Duration = Duration::from_secs(2);

/// One record, checked: its checksum fits, its number is the next one and it continues the chain.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its head.
    pub head: RecordHead,
    /// Its hash.
    pub hash: ChainHash,
    /// Where it begins.
    pub offset: u64,
    /// In which segment.
    pub segment: u64,
    /// Whether a version began that segment which may know more than this one.
    pub by_later: bool,
    /// Its payload.
    pub payload: Bytes,
}

impl Record {
    /// The place after it.
    pub fn position(&self) -> Position {
        Position {
            segment: self.segment,
            offset: self.offset + self.head.record_len(),
            seq: self.head.seq,
            hash: self.hash,
        }
    }

    /// The event in it, if it is one that this version knows.
    pub fn event(&self) -> Result<Option<Event>, Fault> {
        Ok(self.recorded_event()?.and_then(RecordedEvent::known))
    }

    /// The event in it, if it is one, of whatever version.
    pub fn recorded_event(&self) -> Result<Option<RecordedEvent>, Fault> {
        if self.head.kind != Kind::Event {
            return Ok(None);
        }
        RecordedEvent::read(&self.payload, self.by_later).map(Some).map_err(|error| not_understood(&error))
    }

    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_json::from_slice(&self.payload).map_err(|error| not_understood(&error))
    }
}

fn not_understood(error: &serde_json::Error) -> Fault {
    Fault::Content(format!("its JSON can't be understood: {error}"))
}

/// Reads records in order. After the last one it answers `None`, and goes on when more was written.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    segment: u64,
    file: Option<File>,
    /// Where the next record begins.
    offset: u64,
    /// The last record: what the next one must continue. `None` when starting in the middle.
    last: Option<(Seq, ChainHash)>,
    /// The last record ends its segment.
    sealed: bool,
    /// A later version began the segment.
    by_later: bool,
    limit: Option<Seq>,
    salt: Salt,
    /// The reader is the one that holds the lock: nothing is being written.
    alone: bool,
    buffer: Vec<u8>,
    /// `buffer[consumed..]` is the file from `offset` on.
    consumed: usize,
}

/// What the next segment looks like.
enum Next {
    /// It isn't there, and later ones are.
    Missing,
    /// It isn't there, or nothing is in it.
    NotBegun,
    /// It begins with this head, if that can be read.
    Begun(Option<RecordHead>),
}

/// What was found at the reading place.
enum Found {
    Record(Record),
    End,
}

impl Reader {
    /// Reads from the first record that is there.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        let journal = journal_id(dir)?;
        let first = disk::segments(dir)?.first().copied().unwrap_or(1);
        // With segment 1 the chain begins; later ones say themselves what they continue.
        let last = (first == 1).then_some((Seq(0), ChainHash::default()));
        Ok(Self::at(dir, journal, first, 0, last))
    }

    /// Reads on after `position`.
    pub fn resume(dir: &Path, position: Position) -> Result<Self, JournalError> {
        if position == Position::default() {
            return Self::open(dir);
        }
        if !disk::segment_path(dir, position.segment).exists() {
            return Err(JournalError::Gone { seq: position.seq });
        }
        let last = Some((position.seq, position.hash));
        Ok(Self::at(dir, journal_id(dir)?, position.segment, position.offset, last))
    }

    /// Reads from the beginning of a segment, whatever was before.
    pub(crate) fn segment(dir: &Path, segment: u64) -> Result<Self, JournalError> {
        Ok(Self::at(dir, journal_id(dir)?, segment, 0, None))
    }

    /// For who holds the journal's lock: what looks wrong is wrong, and not being written.
    pub(crate) fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    fn at(dir: &Path, journal: Uuid, segment: u64, offset: u64, last: Option<(Seq, ChainHash)>) -> Self {
        Self {
            dir: dir.to_owned(),
            segment,
            file: None,
            offset,
            last,
            sealed: false,
            by_later: false,
            limit: None,
            salt: Salt::of(journal),
            alone: false,
            buffer: Vec::new(),
            consumed: 0,
        }
    }

    /// How many bytes the segments from `first` up to, and without, `end` take; those that are gone take none.
    pub fn segment_bytes(dir: &Path, first: u64, end: u64) -> u64 {
        let size = |index| std::fs::metadata(disk::segment_path(dir, index)).map_or(0, |metadata| metadata.len());
        (first..end).map(size).sum()
    }

    /// Reads no further than the record `seq`: what the writer in this process said is committed.
    pub fn set_limit(&mut self, seq: Seq) {
        self.limit = Some(seq);
    }

    /// The place after the last record that was read.
    pub fn position(&self) -> Position {
        let (seq, hash) = self.last.unwrap_or_default();
        Position { segment: self.segment, offset: self.offset, seq, hash }
    }

    /// Whether the last record that was read ends its segment.
    pub(crate) const fn is_at_seal(&self) -> bool {
        self.sealed
    }

    /// The next record; `None` at the end (for now).
    pub fn next_record(&mut self) -> Result<Option<Record>, JournalError> {
        if self.limit.is_some_and(|limit| self.last.is_some_and(|(seq, _)| seq >= limit)) {
            self.forget();
            return Ok(None);
        }
        let mut since = None;
        loop {
            match self.find()? {
                Ok(Found::Record(record)) => {
                    let position = record.position();
                    self.consumed += usize::try_from(record.head.record_len()).unwrap_or(usize::MAX);
                    self.offset = position.offset;
                    self.last = Some((position.seq, position.hash));
                    self.sealed = record.head.is_seal();
                    return Ok(Some(record));
                }
                Ok(Found::End) => {
                    self.forget();
                    return Ok(None);
                }
                Err(fault) => {
                    // A write that is under way can be seen in part. It is whole a moment later.
                    let since = since.get_or_insert_with(Instant::now);
                    if self.alone || since.elapsed() > IN_FLIGHT || !disk::has_writer(&self.dir) {
                        return Err(JournalError::Damaged(Box::new(self.wrong(fault))));
                    }
                    self.forget();
                    std::thread::yield_now();
                }
            }
        }
    }

    /// `fault`, at the place where the reader is.
    pub(crate) fn wrong(&self, fault: Fault) -> Wrong {
        let seq = self.last.map_or(0, |(seq, _)| seq.0) + 1;
        let (segment, offset) = match fault {
            Fault::NextSegment => (self.segment + 1, 0),
            _ => (self.segment, self.offset),
        };
        Wrong { segment, file: disk::segment_path(&self.dir, segment), offset, seq: Seq(seq), fault }
    }

    /// `fault`, in `record`.
    pub fn wrong_at(&self, record: &Record, fault: Fault) -> Wrong {
        Wrong {
            segment: record.segment,
            file: disk::segment_path(&self.dir, record.segment),
            offset: record.offset,
            seq: record.head.seq,
            fault,
        }
    }

    fn find(&mut self) -> Result<Result<Found, Fault>, JournalError> {
        if self.sealed {
            match self.peek_next()? {
                Next::Missing => return Ok(Err(Fault::Content("the next segment is missing".into()))),
                Next::NotBegun => return Ok(Ok(Found::End)),
                Next::Begun(_) => self.go_on(),
            }
        }
        if self.file.is_none() {
            let path = disk::segment_path(&self.dir, self.segment);
            match File::open(&path) {
                Ok(file) => {
                    self.by_later = self.offset > 0 && self.header_of(&file, &path)?.is_later();
                    self.file = Some(file);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(Found::End)),
                Err(error) => return Err(JournalError::io("open", path, error)),
            }
        }
        self.fill(HEAD)?;
        let have = &self.buffer[self.consumed..];
        if have.iter().take(HEAD).all(|byte| *byte == 0) {
            return Ok(match (self.peek_next()?, self.last) {
                (Next::NotBegun, _) => Ok(Found::End),
                // Reading was taken up behind the segment's last record.
                (Next::Begun(Some(head)), Some((seq, hash))) if head.previous == hash && head.seq.0 == seq.0 + 1 => {
                    self.go_on();
                    return self.find();
                }
                (Next::Begun(None), _) => Err(Fault::NextSegment),
                _ => Err(Fault::Content("there are later segments, and records are missing in this one".into())),
            });
        }
        let Some(bytes) = have.first_chunk::<HEAD>() else { return Ok(Err(Fault::CutOff)) };
        let bytes = *bytes;
        let head = match RecordHead::parse(&bytes) {
            Ok(head) => head,
            Err(fault) => return Ok(Err(fault)),
        };
        let length = HEAD + head.payload_len as usize;
        self.fill(length)?;
        let have = &self.buffer[self.consumed..];
        if have.len() < length {
            return Ok(Err(Fault::CutOff));
        }
        let payload = &have[HEAD..length];
        if !self.salt.fits(&bytes, payload) {
            return Ok(Err(Fault::Checksum));
        }
        if let Some((seq, hash)) = self.last {
            if head.seq.0 != seq.0 + 1 {
                return Ok(Err(Fault::Sequence(head.seq)));
            }
            if head.previous != hash {
                return Ok(Err(Fault::Chain));
            }
        }
        let payload = Bytes::copy_from_slice(payload);
        if head.kind == Kind::Header {
            match serde_json::from_slice::<SegmentHeader>(&payload) {
                Ok(header) => {
                    header.check(&disk::segment_path(&self.dir, self.segment))?;
                    self.by_later = header.is_later();
                }
                Err(error) => return Ok(Err(not_understood(&error))),
            }
        }
        let (offset, segment, by_later) = (self.offset, self.segment, self.by_later);
        Ok(Ok(Found::Record(Record { hash: head.hash(), head, offset, segment, by_later, payload })))
    }

    /// The header of the segment in `file`, for reading that begins behind it.
    fn header_of(&self, file: &File, path: &Path) -> Result<SegmentHeader, JournalError> {
        let damaged = |fault| {
            let (segment, file, seq) = (self.segment, path.to_owned(), Seq::default());
            JournalError::Damaged(Box::new(Wrong { segment, file, offset: 0, seq, fault }))
        };
        let mut bytes = [0; HEAD];
        file.read_exact_at(&mut bytes, 0).context("read", path)?;
        let head = RecordHead::parse(&bytes).map_err(damaged)?;
        let mut payload = vec![0; (head.payload_len as usize).min(MAX_PAYLOAD)];
        file.read_exact_at(&mut payload, HEAD as u64).context("read", path)?;
        if head.kind != Kind::Header || !self.salt.fits(&bytes, &payload) {
            return Err(damaged(Fault::Checksum));
        }
        let header: SegmentHeader =
            serde_json::from_slice(&payload).map_err(|error| damaged(not_understood(&error)))?;
        header.check(path)?;
        Ok(header)
    }

    fn go_on(&mut self) {
        self.segment += 1;
        self.offset = 0;
        self.file = None;
        self.sealed = false;
        self.forget();
    }

    fn peek_next(&self) -> Result<Next, JournalError> {
        let path = disk::segment_path(&self.dir, self.segment + 1);
        let mut head = [0; HEAD];
        match File::open(&path).and_then(|file| file.read_exact_at(&mut head, 0)) {
            Ok(()) if head == [0; HEAD] => Ok(Next::NotBegun),
            Ok(()) => Ok(Next::Begun(RecordHead::parse(&head).ok())),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Next::NotBegun),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let later = disk::segments(&self.dir)?.into_iter().any(|index| index > self.segment);
                Ok(if later { Next::Missing } else { Next::NotBegun })
            }
            Err(error) => Err(JournalError::io("read", path, error)),
        }
    }

    /// Makes at least `n` bytes from `offset` on available, or all there are.
    fn fill(&mut self, n: usize) -> Result<(), JournalError> {
        if self.buffer.len() - self.consumed >= n {
            return Ok(());
        }
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        let Some(file) = &self.file else { return Ok(()) };
        while self.buffer.len() < n {
            let have = self.buffer.len();
            self.buffer.resize(have + CHUNK.max(n - have), 0);
            let read = file.read_at(&mut self.buffer[have..], self.offset + have as u64);
            let read = read.context("read", &disk::segment_path(&self.dir, self.segment))?;
            self.buffer.truncate(have + read);
            if read == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Forgets what was read ahead: it may be out of date when it is looked at again.
    fn forget(&mut self) {
        self.buffer.clear();
        self.consumed = 0;
    }
}
