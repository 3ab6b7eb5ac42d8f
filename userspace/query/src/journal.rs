//! This host's journal, asked.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use chaperone_journal::{
    BodyReader, CallFilter, CallRow, Calls, CommandRow, Commands, ConnectionRow, Connections, Exchange,
    FramedBodyReader, JournalError, Kind, Reader, SessionRow,
};
use chaperone_model::{CallId, Event, SessionId};
use futures_util::{FutureExt as _, StreamExt as _, future, stream};

use crate::{
    Answer, Arguments, Asked, Body, EventFilter, Query, QueryError, Question, RecordedExchange, Rows, SLACK, answers,
};

/// A journal in a folder, which may be written to meanwhile.
#[derive(Clone, Debug)]
pub struct JournalQuery {
    dir: Arc<Path>,
}

impl JournalQuery {
    /// The journal in `dir`. Nothing is read yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into().into() }
    }
}

/// Something that is read until it has no more.
type Next<T> = Box<dyn FnMut() -> Result<Option<T>, QueryError> + Send>;

/// Opens what is to be read once it is asked for, and reads it to its end, or to what went wrong.
fn read<'a, T: Send + 'a>(open: impl FnOnce() -> Result<Next<T>, QueryError> + Send + 'a) -> Rows<'a, T> {
    enum State<F, T> {
        Begin(F),
        Within(Next<T>),
    }
    stream::try_unfold(State::Begin(open), |state| {
        let step = || {
            let mut next = match state {
                State::Begin(open) => open()?,
                State::Within(next) => next,
            };
            Ok(next()?.map(|one| (one, State::Within(next))))
        };
        future::ready(step())
    })
    .boxed()
}

/// First what ended, in the order of its ends, then what is open. `next` reads the former, `open` the latter, once.
fn then_open<S, T>(mut scan: S, next: fn(&mut S) -> Result<Option<T>, JournalError>, open: fn(&S) -> Vec<T>) -> Next<T>
where
    S: Send + 'static,
    T: Send + 'static,
{
    let mut rest: Option<std::vec::IntoIter<T>> = None;
    Box::new(move || {
        if rest.is_none()
            && let Some(row) = next(&mut scan)?
        {
            return Ok(Some(row));
        }
        Ok(rest.get_or_insert_with(|| open(&scan).into_iter()).next())
    })
}

impl Query for JournalQuery {
    fn sessions(&self) -> Rows<'_, SessionRow> {
        read(|| {
            let mut rows = chaperone_journal::sessions(&self.dir)?.into_iter();
            Ok(Box::new(move || Ok(rows.next())))
        })
    }

    fn calls(&self, filter: CallFilter, _limit: u64) -> Rows<'_, CallRow> {
        read(|| Ok(then_open(Calls::scan(&self.dir, filter)?, Calls::next_row, Calls::open_rows)))
    }

    fn commands(&self, session: Option<SessionId>, _limit: u64) -> Rows<'_, CommandRow> {
        read(move || Ok(then_open(Commands::scan(&self.dir, session)?, Commands::next_row, Commands::open_rows)))
    }

    fn connections(&self, session: Option<SessionId>, _limit: u64) -> Rows<'_, ConnectionRow> {
        read(move || {
            Ok(then_open(Connections::scan(&self.dir, session)?, Connections::next_row, Connections::open_rows))
        })
    }

    fn exchange(&self, call: CallId) -> Asked<'_, Option<RecordedExchange>> {
        let found = Exchange::find(&self.dir, call)
            .map(|found| found.map(|it| RecordedExchange { intent: it.intent, outcome: it.outcome, row: it.row }));
        future::ready(found.map_err(QueryError::from)).boxed()
    }

    fn body(&self, call: CallId, body: Body) -> Rows<'_, Bytes> {
        read(move || {
            let Some(exchange) = Exchange::find(&self.dir, call)? else { return Ok(Box::new(|| Ok(None))) };
            Ok(match body {
                Body::Of(direction) => {
                    let mut reader: BodyReader = exchange.body(direction)?;
                    Box::new(move || Ok(reader.next_part()?))
                }
                Body::Framed => {
                    let mut reader: FramedBodyReader = exchange.framed_body()?;
                    Box::new(move || Ok(reader.next_part()?))
                }
            })
        })
    }

    fn events(&self, wanted: EventFilter) -> Rows<'_, Event> {
        read(|| {
            let mut events = Events::open(&self.dir, wanted)?;
            Ok(Box::new(move || Ok(events.next_event()?)))
        })
    }

    fn answers(&self, question: &Question) -> bool {
        answers::can_answer(question)
    }

    fn ask(&self, question: &'static Question, arguments: Arguments, limit: u64) -> Asked<'_, Answer> {
        let answer = answers::answer(question, &arguments, &self.dir).map(|mut answer| {
            answer.rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            answer
        });
        future::ready(answer).boxed()
    }
}

/// Reads events by their names.
struct Events {
    reader: Reader,
    /// How the JSON of wanted events begins: the member `event` is the first of each.
    recent: Vec<String>,
    always: Vec<String>,
    /// In microseconds since 1970.
    since: u64,
}

impl Events {
    fn open(dir: &Path, wanted: EventFilter) -> Result<Self, JournalError> {
        let since = wanted.since.map_or(0, |at| at.saturating_sub(SLACK).unix_timestamp_nanos() / 1000);
        let begin = |names: Vec<&'static str>| names.iter().map(|name| format!("{{\"event\":\"{name}\"")).collect();
        Ok(Self {
            reader: Reader::open(dir)?,
            recent: begin(wanted.names),
            always: begin(wanted.always),
            since: u64::try_from(since).unwrap_or(0),
        })
    }

    fn next_event(&mut self) -> Result<Option<Event>, JournalError> {
        while let Some(record) = self.reader.next_record()? {
            // Most of a journal is none of these: by their beginnings they are told apart for nothing.
            let is_one = |of: &[String]| of.iter().any(|name| record.payload.starts_with(name.as_bytes()));
            let is_wanted = is_one(&self.always) || record.head.time_us >= self.since && is_one(&self.recent);
            if record.head.kind != Kind::Event || !is_wanted {
                continue;
            }
            let event = record
                .event()
                .map_err(|fault| JournalError::Damaged(Box::new(self.reader.wrong_at(&record, fault))))?;
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }
}
