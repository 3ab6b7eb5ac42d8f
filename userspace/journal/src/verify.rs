//! Proving that the record is whole: every checksum, number, hash, digest and signature, over all segments.
//!
//! What it can't see from the journal alone: records taken off the very end (compare with a checkpoint kept elsewhere,
//! such as ClickHouse's: [`VerifyOptions::witness`]), and changes by somebody who has the signing key.

use std::{collections::HashMap, fs::File, path::Path, time::Instant};

use aws_lc_rs::digest;
use chaperone_model::{BodyDigest, CallId, Direction, Event, RecordedEvent};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    JournalError, PublicKey, SegmentHeader, disk,
    error::Context as _,
    framing::runs,
    key::{Checkpoint, journal_id},
    kind::Kind,
    open_work::{Carry, Mark, body_kind},
    reader::{IN_FLIGHT, Reader, Record},
    record::{ChainHash, Fault, Position, Seq, Wrong, running, sha256},
    retention::Retirement,
};

/// What to hold the journal against.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// The key that must have signed the checkpoints; without one, the key beside the journal.
    pub key: Option<PublicKey>,
    /// A record that somebody else knows the hash of: it must be there, with that hash.
    pub witness: Option<(Seq, ChainHash)>,
}

/// What was found. The record is whole if nothing is [`wrong`](Self::wrong).
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// The journal's id.
    pub journal: Uuid,
    /// The id of the key that the checkpoints were verified with.
    pub key: String,
    /// The first record that is wrong; nothing after it was looked at.
    pub wrong: Option<Wrong>,
    /// The first record's number: 1, unless segments were retired.
    pub first: Seq,
    /// The last record that is right.
    pub last: Position,
    /// The last record that a signature covers.
    pub signed: Seq,
    /// How many segments were read.
    pub segments: u64,
    /// How many records.
    pub records: u64,
    /// How many events among them.
    pub events: u64,
    /// How many calls (intents).
    pub calls: u64,
    /// How many of them have no outcome (yet).
    pub open_calls: u64,
    /// How many frames of bodies.
    pub frames: u64,
    /// How many bytes of bodies.
    pub body_bytes: u64,
    /// How many checkpoints, each with a good signature.
    pub checkpoints: u64,
    /// Bodies whose beginning was retired, so that their hash can't be followed.
    pub headless_bodies: u64,
    /// Calls' bodies that were recorded with a codec that this version doesn't know: the chain covers them, and what their outcome
    /// says of them can't be compared.
    pub encoded_bodies: u64,
    /// Events that this version doesn't know: a later one wrote them. Like all records, they were checked against the chain.
    pub unknown_events: u64,
    /// Records of a kind that this version doesn't know.
    pub unknown_records: u64,
    /// Records with flags that this version doesn't know.
    pub unknown_flags: u64,
}

impl Verification {
    /// Whether nothing is wrong.
    pub const fn is_clean(&self) -> bool {
        self.wrong.is_none()
    }
}

/// Verifies the journal in `dir`, also while a daemon writes it (then up to what is there). `progress` is told how
/// many bytes were read so far, and of how many.
pub fn verify(
    dir: &Path,
    options: &VerifyOptions,
    mut progress: impl FnMut(u64, u64),
) -> Result<Verification, JournalError> {
    let key = match options.key {
        Some(key) => key,
        None => PublicKey::of_journal(dir)?,
    };
    let mut verifier = Verifier::new(journal_id(dir)?, key, options.witness);
    let segments = disk::segments(dir)?;
    let mut reader = Reader::open(dir)?;
    let mut total = 0;
    for index in &segments {
        let path = disk::segment_path(dir, *index);
        total += std::fs::metadata(&path).context("look at", &path)?.len();
    }

    let mut before = 0;
    let mut current = 0;
    loop {
        let record = match reader.next_record() {
            Ok(Some(record)) => record,
            Ok(None) => break,
            Err(JournalError::Damaged(wrong)) => {
                verifier.result.wrong = Some(*wrong);
                return Ok(verifier.result);
            }
            Err(error) => return Err(error),
        };
        if record.segment != current {
            if current != 0 {
                let path = disk::segment_path(dir, current);
                before += std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
            }
            current = record.segment;
        }
        if let Err(fault) = verifier.take(&record) {
            verifier.result.wrong = Some(reader.wrong_at(&record, fault));
            return Ok(verifier.result);
        }
        if record.head.seq.0 % 512 == 0 {
            progress(before + record.offset, total);
        }
    }
    progress(total, total);
    let end = reader.position();
    verifier.result.wrong = match verifier.finish() {
        Err(fault) => Some(reader.wrong(fault)),
        Ok(()) => after_the_end(dir, &mut reader, end)?,
    };
    Ok(verifier.result)
}

/// Looks for anything but zeros behind the records: at the last segment's end, and in the one that is not begun.
fn after_the_end(dir: &Path, reader: &mut Reader, end: Position) -> Result<Option<Wrong>, JournalError> {
    let since = Instant::now();
    loop {
        let Some(wrong) = bytes_after(dir, end)? else { return Ok(None) };
        // A daemon may just have written them. Then a record follows, at once or as soon as its write is done.
        match reader.next_record() {
            Ok(Some(_)) => return Ok(None),
            Ok(None) | Err(JournalError::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
        if !disk::has_writer(dir) || since.elapsed() > IN_FLIGHT {
            return Ok(Some(wrong));
        }
        std::thread::yield_now();
    }
}

fn bytes_after(dir: &Path, end: Position) -> Result<Option<Wrong>, JournalError> {
    for index in disk::segments(dir)?.into_iter().filter(|index| *index >= end.segment) {
        let path = disk::segment_path(dir, index);
        let from = if index == end.segment { end.offset } else { 0 };
        let file = File::open(&path).context("open", &path)?;
        if let Some((offset, _)) = disk::non_zero(&file, from).context("read", &path)? {
            let fault = Fault::Content("there are bytes after the last record".into());
            return Ok(Some(Wrong { segment: index, file: path, offset, seq: Seq(end.seq.0 + 1), fault }));
        }
    }
    Ok(None)
}

struct Body {
    hash: digest::Context,
    bytes: u64,
}

#[derive(Default)]
struct OpenBodies {
    request: Option<Body>,
    response: Option<Body>,
    /// The call began in a retired segment: what was recorded of it there can't be followed.
    headless: bool,
    /// Frames were recorded with a codec that this version doesn't know.
    encoded: bool,
}

struct Verifier {
    key: PublicKey,
    witness: Option<(Seq, ChainHash)>,
    result: Verification,
    calls: HashMap<CallId, OpenBodies>,
    /// The record before: what a checkpoint must be about.
    before: Option<(Seq, ChainHash)>,
    segment: u64,
    first_segment: u64,
    /// What the first segment says it continues.
    continues: ChainHash,
    retired: Option<Retirement>,
    /// What was open before the first segment is not known: calls may end that never began.
    headless: bool,
    /// Whether the record before ended its segment.
    sealed: bool,
}

impl Verifier {
    fn new(journal: Uuid, key: PublicKey, witness: Option<(Seq, ChainHash)>) -> Self {
        Self {
            result: Verification {
                journal,
                key: key.id(),
                wrong: None,
                first: Seq(0),
                last: Position::default(),
                signed: Seq(0),
                segments: 0,
                records: 0,
                events: 0,
                calls: 0,
                open_calls: 0,
                frames: 0,
                body_bytes: 0,
                checkpoints: 0,
                headless_bodies: 0,
                encoded_bodies: 0,
                unknown_events: 0,
                unknown_records: 0,
                unknown_flags: 0,
            },
            key,
            witness,
            calls: HashMap::new(),
            before: None,
            segment: 0,
            first_segment: 0,
            continues: ChainHash::default(),
            retired: None,
            headless: false,
            sealed: false,
        }
    }

    fn take(&mut self, record: &Record) -> Result<(), Fault> {
        let head = &record.head;
        if record.segment != self.segment {
            self.begin_segment(record)?;
        } else if head.kind == Kind::Header {
            return Err(content("a segment's header in the middle of a segment"));
        }
        if !head.kind.is_body() && sha256(&record.payload) != head.digest {
            return Err(Fault::Digest("payload"));
        }
        if self.witness.is_some_and(|(seq, hash)| seq == head.seq && hash != record.hash) {
            return Err(content("its hash is not the one that the witness knows"));
        }
        match head.kind {
            Kind::Header => {}
            Kind::Carry => self.carry(record)?,
            Kind::Event => self.event(record)?,
            Kind::RequestBody | Kind::ResponseBody => self.frame(record)?,
            Kind::Checkpoint => self.checkpoint(record)?,
            Kind::RequestFraming => self.framing(record)?,
            Kind::Recovery => drop(record.json::<crate::TornTail>()?),
            Kind::Retirement => self.retired = Some(record.json()?),
            Kind::Unknown(_) => self.result.unknown_records += 1,
        }
        self.result.unknown_flags += u64::from(head.has_unknown_flags());
        self.sealed = head.is_seal();
        self.before = Some((head.seq, record.hash));
        self.result.records += 1;
        self.result.last = record.position();
        Ok(())
    }

    fn begin_segment(&mut self, record: &Record) -> Result<(), Fault> {
        if record.head.kind != Kind::Header {
            return Err(content("a segment must begin with its header"));
        }
        let header: SegmentHeader = record.json()?;
        if header.journal != self.result.journal {
            return Err(content(&format!("its segment belongs to the journal {}", header.journal)));
        }
        if header.segment != record.segment {
            return Err(content(&format!("its segment is number {}, moved here", header.segment)));
        }
        if header.previous != record.head.previous {
            return Err(content("the segment's header and the chain name different records before it"));
        }
        if header.key != self.result.key {
            return Err(content(&format!("its segment is signed by another key, {}", header.key)));
        }
        if self.segment != 0 && !self.sealed {
            return Err(content("the segment before it does not end with a checkpoint"));
        }
        if self.segment == 0 {
            self.first_segment = record.segment;
            self.continues = header.previous;
            self.result.first = record.head.seq;
        }
        self.headless |= self.segment == 0 && record.segment > 1 && header.carries.is_none();
        self.segment = record.segment;
        self.result.segments += 1;
        Ok(())
    }

    fn carry(&mut self, record: &Record) -> Result<(), Fault> {
        let carry: Carry = record.json()?;
        if record.segment == self.first_segment && self.first_segment > 1 {
            for (call, _) in carry.calls {
                self.calls.insert(call, OpenBodies { headless: true, ..OpenBodies::default() });
            }
        } else if let Some((call, _)) = carry.calls.iter().find(|(call, _)| !self.calls.contains_key(call)) {
            return Err(content(&format!("it carries over the call {call}, which is not open")));
        }
        Ok(())
    }

    fn event(&mut self, record: &Record) -> Result<(), Fault> {
        let Some(event) = record.recorded_event()? else { return Ok(()) };
        self.result.events += 1;
        self.result.unknown_events += u64::from(matches!(event, RecordedEvent::Unknown(_)));
        match Mark::of_recorded(&event, record.head.id, &record.payload) {
            Some(Mark::CallOpened(call, _)) => {
                self.result.calls += 1;
                if self.calls.insert(call, OpenBodies::default()).is_some() {
                    return Err(content(&format!("the call {call} begins a second time")));
                }
            }
            Some(Mark::CallClosed(call)) => {
                let Some(bodies) = self.calls.remove(&call) else {
                    if self.headless {
                        return Ok(());
                    }
                    return Err(content(&format!("an outcome of the call {call}, which is not open")));
                };
                self.result.headless_bodies += u64::from(bodies.headless);
                self.result.encoded_bodies += u64::from(bodies.encoded);
                if let Some(Event::CallOutcome(outcome)) = event.known()
                    && !bodies.headless
                    && !bodies.encoded
                {
                    compare("request", outcome.request, bodies.request)?;
                    compare("response", outcome.response, bodies.response)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn frame(&mut self, record: &Record) -> Result<(), Fault> {
        let head = &record.head;
        let call = CallId::from_bytes(head.id);
        let Some(bodies) = self.calls.get_mut(&call) else {
            if self.headless {
                return Ok(());
            }
            return Err(content(&format!("a part of a body of the call {call}, which is not open")));
        };
        self.result.frames += 1;
        self.result.body_bytes += record.payload.len() as u64;
        if bodies.headless {
            return Ok(());
        }
        bodies.encoded |= head.codec().is_none();
        let is_request = head.kind == body_kind(Direction::Request);
        let body = if is_request { &mut bodies.request } else { &mut bodies.response };
        let body = body.get_or_insert_with(|| Body { hash: digest::Context::new(&digest::SHA256), bytes: 0 });
        if head.body_offset != body.bytes {
            return Err(content(&format!("a body goes on at byte {} and was {} long", head.body_offset, body.bytes)));
        }
        body.hash.update(&record.payload);
        body.bytes += record.payload.len() as u64;
        if running(&body.hash) == head.digest { Ok(()) } else { Err(Fault::Digest("body")) }
    }

    fn framing(&mut self, record: &Record) -> Result<(), Fault> {
        let call = CallId::from_bytes(record.head.id);
        if !self.headless && !self.calls.contains_key(&call) {
            return Err(content(&format!("framing of a body of the call {call}, which is not open")));
        }
        runs(record.payload.clone()).map(drop)
    }

    fn checkpoint(&mut self, record: &Record) -> Result<(), Fault> {
        let checkpoint: Checkpoint = record.json()?;
        if checkpoint.journal != self.result.journal {
            return Err(content("the checkpoint is another journal's"));
        }
        if self.before != Some((checkpoint.seq, checkpoint.hash)) {
            return Err(content("the checkpoint is not about the record before it"));
        }
        if !checkpoint.is_signed_by(&self.key) {
            return Err(content("the checkpoint's signature is not by the journal's key"));
        }
        self.result.checkpoints += 1;
        self.result.signed = checkpoint.seq;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Fault> {
        self.result.open_calls = self.calls.len() as u64;
        if let Some((seq, _)) = self.witness.filter(|(seq, _)| *seq > self.result.last.seq) {
            return Err(content(&format!("records up to {seq} are known to a witness, and they are not here")));
        }
        if self.first_segment > 1 {
            let missing = self.first_segment - 1;
            let right = self.retired.as_ref().is_some_and(|retired| {
                retired.through >= missing && (retired.through > missing || retired.hash == self.continues)
            });
            if !right {
                return Err(content(&format!("segments up to {missing} are missing, and no record retires them")));
            }
        }
        Ok(())
    }
}

fn compare(which: &'static str, said: Option<BodyDigest>, recorded: Option<Body>) -> Result<(), Fault> {
    let Some(said) = said else { return Ok(()) };
    let recorded = recorded.unwrap_or_else(|| Body { hash: digest::Context::new(&digest::SHA256), bytes: 0 });
    let is_right = match said.kept {
        None => said.bytes == recorded.bytes && said.sha256 == running(&recorded.hash),
        // Of the rest there is the digest alone.
        Some(kept) => kept == recorded.bytes && kept < said.bytes,
    };
    if is_right {
        return Ok(());
    }
    Err(content(&format!(
        "the outcome tells of a {which} body of {} bytes, and {} bytes are recorded, or other ones",
        said.bytes, recorded.bytes
    )))
}

fn content(text: &str) -> Fault {
    Fault::Content(text.into())
}
