//! From records to rows: what one batch holds, and what has to be known from before it.

use std::{collections::HashMap, path::Path};

use chaperone_journal::{JournalError, Kind, Position, Reader, Record, Seq};
use chaperone_model::{CallId, CallIntent, Event};

use crate::{
    WarehouseError,
    rows::{
        BodyChunksRow, BodyPartsRow, CallsRow, CheckpointsRow, CommandEndsRow, CommandStartsRow, CommandsLostRow,
        ConnectionClosesRow, ConnectionOpensRow, DecisionsRow, LedgerRow, SessionEndsRow, SessionIdentitiesRow,
        SessionStartsRow, Source, body_rows,
    },
};

/// A batch is full with so many records …
pub(crate) const FULL_RECORDS: u64 = 20_000;
/// … or so many bytes of them.
pub(crate) const FULL_BYTES: u64 = 8 << 20;

/// The rows of consecutive records.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) from: Position,
    pub(crate) to: Position,
    /// From where on the journal is needed after this batch.
    pub(crate) floor: Position,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// When its last record was written, in microseconds since 1970.
    pub(crate) until_us: u64,
    /// Outcomes whose intent is no longer in the journal.
    pub(crate) orphans: u64,
    pub(crate) body_chunks: Vec<BodyChunksRow>,
    pub(crate) body_parts: Vec<BodyPartsRow>,
    pub(crate) session_starts: Vec<SessionStartsRow>,
    pub(crate) session_ends: Vec<SessionEndsRow>,
    pub(crate) session_identities: Vec<SessionIdentitiesRow>,
    pub(crate) command_starts: Vec<CommandStartsRow>,
    pub(crate) command_ends: Vec<CommandEndsRow>,
    pub(crate) commands_lost: Vec<CommandsLostRow>,
    pub(crate) connection_opens: Vec<ConnectionOpensRow>,
    pub(crate) connection_closes: Vec<ConnectionClosesRow>,
    pub(crate) decisions: Vec<DecisionsRow>,
    pub(crate) calls: Vec<CallsRow>,
    pub(crate) checkpoints: Vec<CheckpointsRow>,
    pub(crate) ledger: Vec<LedgerRow>,
}

struct OpenCall {
    /// The place before its intent.
    before: Position,
    seq: Seq,
    intent: Box<CallIntent>,
}

/// Reads the journal into batches.
pub(crate) struct Gatherer {
    source: Source,
    reader: Reader,
    at: Position,
    open: HashMap<CallId, OpenCall>,
}

impl Gatherer {
    /// Begins behind `shipped`. What is open there is learnt by reading from `floor` on. Blocks on files.
    pub(crate) fn begin(
        dir: &Path,
        source: Source,
        shipped: Position,
        floor: Position,
    ) -> Result<Self, WarehouseError> {
        let reader = match Reader::resume(dir, floor) {
            // Retired before it was shipped: somebody's decision, which the ledger will show as a gap.
            Err(JournalError::Gone { seq }) => {
                tracing::error!(%seq, "the journal was retired further than it was shipped: shipping what is left");
                Reader::open(dir)?
            }
            other => other?,
        };
        let mut gatherer = Self { source, at: floor, reader, open: HashMap::new() };
        let mut nothing = Batch::default();
        while gatherer.at.seq < shipped.seq {
            gatherer.reader.set_limit(shipped.seq);
            let Some(record) = gatherer.reader.next_record()? else { break };
            gatherer.note_event(&record, &mut nothing)?;
        }
        let is_there = if gatherer.at.seq == shipped.seq {
            gatherer.at.hash == shipped.hash
        } else {
            gatherer.at.seq > shipped.seq
        };
        if !is_there {
            let (journal, ours) = (gatherer.source.journal, gatherer.at.seq);
            return Err(WarehouseError::Ahead { journal, shipped: shipped.seq, ours });
        }
        Ok(gatherer)
    }

    /// Gathers records up to `limit`, or until a batch is full; with `exactly`, up to `limit` whatever it takes.
    /// Blocks on files.
    pub(crate) fn gather(&mut self, limit: Seq, exactly: bool) -> Result<Batch, WarehouseError> {
        let mut batch = Batch { from: self.at, ..Batch::default() };
        self.reader.set_limit(limit);
        while exactly || (batch.records < FULL_RECORDS && batch.bytes < FULL_BYTES) {
            let Some(record) = self.reader.next_record()? else { break };
            batch.records += 1;
            batch.bytes += record.head.record_len();
            batch.until_us = record.head.time_us;
            if record.head.kind.is_body() {
                let (chunk, part) = body_rows(&self.source, &record);
                batch.body_chunks.push(chunk);
                batch.body_parts.push(part);
            }
            let event = self.note_event(&record, &mut batch)?;
            batch.ledger.push(LedgerRow::new(&self.source, &record, event));
        }
        // The same chunk twice in one batch would be twice in the table until the next merge.
        batch.body_chunks.sort_by(|a, b| a.sha256().cmp(b.sha256()));
        batch.body_chunks.dedup_by(|a, b| a.sha256() == b.sha256());
        batch.to = self.at;
        let oldest = self.open.values().map(|call| call.before).min_by_key(|before| before.seq);
        batch.floor = oldest.unwrap_or(self.at);
        Ok(batch)
    }

    /// Takes an event's rows into `batch`, and remembers what is open. The event's name.
    fn note_event(&mut self, record: &Record, batch: &mut Batch) -> Result<String, WarehouseError> {
        let before = std::mem::replace(&mut self.at, record.position());
        let seq = record.head.seq;
        let source = &self.source;
        if record.head.kind == Kind::Checkpoint {
            let checkpoint = serde_json::from_slice(&record.payload).map_err(|error| unreadable(seq, &error))?;
            batch.checkpoints.push(CheckpointsRow::new(source, checkpoint));
        }
        let Some(event) = record.recorded_event().map_err(|fault| unreadable(seq, &fault))? else {
            return Ok(String::new());
        };
        let name = event.name().to_owned();
        // Other events, and those of later versions, are in the ledger alone.
        let Some(event) = event.known() else { return Ok(name) };
        match event {
            Event::CallIntent(intent) => {
                batch.decisions.push(DecisionsRow::new(source, seq, &intent));
                self.open.insert(intent.id, OpenCall { before, seq, intent });
            }
            Event::CallOutcome(outcome) => match self.open.remove(&outcome.id) {
                Some(call) => batch.calls.push(CallsRow::new(source, call.seq, &call.intent, seq, &outcome)),
                None => batch.orphans += 1,
            },
            Event::CommandEnded(ended) => batch.command_ends.push(CommandEndsRow::new(source, seq, &ended)),
            Event::CommandStarted(started) => batch.command_starts.push(CommandStartsRow::new(source, seq, *started)),
            Event::CommandsLost(lost) => batch.commands_lost.push(CommandsLostRow::new(source, seq, &lost)),
            Event::ConnectionClosed(closed) => {
                batch.connection_closes.push(ConnectionClosesRow::new(source, seq, closed));
            }
            Event::ConnectionOpened(opened) => {
                batch.connection_opens.push(ConnectionOpensRow::new(source, seq, &opened));
            }
            Event::SessionEnded(ended) => batch.session_ends.push(SessionEndsRow::new(source, seq, ended)),
            Event::SessionIdentified(identified) => {
                batch.session_identities.push(SessionIdentitiesRow::new(source, seq, *identified));
            }
            Event::SessionStarted(started) => {
                batch.session_starts.push(SessionStartsRow::new(source, seq, started));
            }
            _ => {}
        }
        Ok(name)
    }
}

fn unreadable(seq: Seq, error: &impl std::fmt::Display) -> WarehouseError {
    WarehouseError::Row { table: "the journal", why: format!("record {seq}: {error}") }
}
