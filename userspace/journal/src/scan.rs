//! What commands ask the journal: lists of calls, sessions and connections, and one exchange whole. One pass, in
//! memory bounded by what is open at a time.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use chaperone_model::{
    CallId, CallIntent, CallOutcome, CommandId, CommandStarted, ConnectionId, ConnectionOpened, Direction, Event,
    OutcomeStatus, SessionId, Verdict, is_like,
};
use time::OffsetDateTime;

use crate::{
    BodyReader, CallRow, CommandRow, ConnectionRow, FramedBodyReader, JournalError, Position, Reader, Record, Seq,
    SessionRow, disk, kind::Kind, open_work::body_kind, rows::Sessions,
};

/// Which calls are wanted; what isn't set doesn't matter.
#[derive(Clone, Debug, Default)]
pub struct CallFilter {
    /// Of this session.
    pub session: Option<SessionId>,
    /// Of this agent.
    pub agent: Option<String>,
    /// Of this service.
    pub service: Option<String>,
    /// Needing this IAM action, such as `s3:GetObject`; a `*` stands for anything, case doesn't matter.
    pub action: Option<String>,
    /// Decided so.
    pub decision: Option<Verdict>,
    /// Ended so.
    pub outcome: Option<OutcomeStatus>,
    /// Begun at this time or later.
    pub since: Option<OffsetDateTime>,
    /// Begun before this time.
    pub until: Option<OffsetDateTime>,
}

impl CallFilter {
    /// Whether the call is wanted.
    pub fn wants(&self, row: &CallRow) -> bool {
        let same = |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|w| is == Some(w));
        self.session.is_none_or(|session| session == row.session)
            && same(&self.agent, Some(&row.agent))
            && same(&self.service, row.service.as_deref())
            && self.action.as_ref().is_none_or(|wanted| row.actions.iter().any(|action| is_like(wanted, action)))
            && self.decision.is_none_or(|decision| decision == row.decision)
            && self.outcome.is_none_or(|outcome| Some(outcome) == row.outcome)
            && self.since.is_none_or(|since| row.started >= since)
            && self.until.is_none_or(|until| row.started < until)
    }
}

/// The calls in a journal, each when it ends.
#[derive(Debug)]
pub struct Calls {
    reader: Reader,
    filter: CallFilter,
    open: HashMap<CallId, (Seq, Box<CallIntent>)>,
}

impl Calls {
    /// Begins to read.
    pub fn scan(dir: &Path, filter: CallFilter) -> Result<Self, JournalError> {
        let reader = match filter.since {
            Some(since) => reader_at(dir, since.unix_timestamp())?,
            None => Reader::open(dir)?,
        };
        Ok(Self { reader, filter, open: HashMap::new() })
    }

    /// Reads on after `position`: calls that began before are not seen.
    pub fn follow(dir: &Path, position: Position, filter: CallFilter) -> Result<Self, JournalError> {
        Ok(Self { reader: Reader::resume(dir, position)?, filter, open: HashMap::new() })
    }

    /// The next wanted call that ended; `None` at the journal's end (for now).
    pub fn next_row(&mut self) -> Result<Option<CallRow>, JournalError> {
        while let Some(record) = self.reader.next_record()? {
            match event(&self.reader, &record)? {
                Some(Event::CallIntent(intent)) => {
                    self.open.insert(intent.id, (record.head.seq, intent));
                }
                Some(Event::CallOutcome(outcome)) => {
                    if let Some((seq, intent)) = self.open.remove(&outcome.id) {
                        let row = CallRow::new(seq, &intent, Some(&outcome));
                        if self.filter.wants(&row) {
                            return Ok(Some(row));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// The wanted calls that have not ended, oldest first.
    pub fn open_rows(&self) -> Vec<CallRow> {
        let mut rows: Vec<_> = self.open.values().map(|(seq, intent)| CallRow::new(*seq, intent, None)).collect();
        rows.retain(|row| self.filter.wants(row));
        rows.sort_by_key(|row| row.seq);
        rows
    }

    /// The place that was read up to.
    pub fn position(&self) -> Position {
        self.reader.position()
    }
}

/// The sessions in a journal, oldest first.
pub fn sessions(dir: &Path) -> Result<Vec<SessionRow>, JournalError> {
    let mut reader = Reader::open(dir)?;
    let mut sessions = Sessions::default();
    while let Some(record) = reader.next_record()? {
        if let Some(event) = event(&reader, &record)? {
            sessions.take(&event);
        }
    }
    Ok(sessions.into_rows())
}

/// The connections in a journal, each when it ends.
#[derive(Debug)]
pub struct Connections {
    reader: Reader,
    session: Option<SessionId>,
    open: HashMap<ConnectionId, Box<ConnectionOpened>>,
}

impl Connections {
    /// Begins to read; only those of `session`, if there is one.
    pub fn scan(dir: &Path, session: Option<SessionId>) -> Result<Self, JournalError> {
        Ok(Self { reader: Reader::open(dir)?, session, open: HashMap::new() })
    }

    /// The next connection that ended; `None` at the journal's end (for now).
    pub fn next_row(&mut self) -> Result<Option<ConnectionRow>, JournalError> {
        while let Some(record) = self.reader.next_record()? {
            match event(&self.reader, &record)? {
                Some(Event::ConnectionOpened(opened)) if self.session.is_none_or(|id| id == opened.session) => {
                    self.open.insert(opened.id, opened);
                }
                Some(Event::ConnectionClosed(closed)) => {
                    if let Some(opened) = self.open.remove(&closed.id) {
                        return Ok(Some(ConnectionRow::new(&opened, Some(&closed))));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// The connections that have not ended, oldest first.
    pub fn open_rows(&self) -> Vec<ConnectionRow> {
        let mut rows: Vec<_> = self.open.values().map(|opened| ConnectionRow::new(opened, None)).collect();
        rows.sort_by_key(|row| row.id);
        rows
    }
}

/// The commands in a journal, each when it ends.
#[derive(Debug)]
pub struct Commands {
    reader: Reader,
    session: Option<SessionId>,
    open: HashMap<CommandId, Box<CommandStarted>>,
    lost: u64,
}

impl Commands {
    /// Begins to read; only those of `session`, if there is one.
    pub fn scan(dir: &Path, session: Option<SessionId>) -> Result<Self, JournalError> {
        Ok(Self { reader: Reader::open(dir)?, session, open: HashMap::new(), lost: 0 })
    }

    /// The next command that ended; `None` at the journal's end (for now).
    pub fn next_row(&mut self) -> Result<Option<CommandRow>, JournalError> {
        while let Some(record) = self.reader.next_record()? {
            match event(&self.reader, &record)? {
                Some(Event::CommandStarted(started)) if self.session.is_none_or(|id| Some(id) == started.session) => {
                    self.open.insert(started.id, started);
                }
                Some(Event::CommandEnded(ended)) => {
                    if let Some(started) = self.open.remove(&ended.id) {
                        return Ok(Some(CommandRow::new(&started, Some(&ended))));
                    }
                }
                Some(Event::CommandsLost(lost)) => self.lost = self.lost.saturating_add(lost.count),
                _ => {}
            }
        }
        Ok(None)
    }

    /// The commands that have not ended, as far as it is known, oldest first.
    pub fn open_rows(&self) -> Vec<CommandRow> {
        let mut rows: Vec<_> = self.open.values().map(|started| CommandRow::new(started, None)).collect();
        rows.sort_by_key(|row| row.id);
        rows
    }

    /// How many beginnings and ends are known to be missing, of all sessions.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

/// One exchange, whole.
#[derive(Debug)]
pub struct Exchange {
    /// What was asked and decided.
    pub intent: CallIntent,
    /// How it ended, if it did.
    pub outcome: Option<CallOutcome>,
    /// Both in one row.
    pub row: CallRow,
    dir: PathBuf,
    from: Position,
    to: Seq,
}

impl Exchange {
    /// Finds a call; `None` if the journal doesn't have it.
    pub fn find(dir: &Path, call: CallId) -> Result<Option<Self>, JournalError> {
        // A UUIDv7 begins with milliseconds. A clock that was set back in between makes this look in vain: then all
        // of the journal is read.
        let millis = call.as_bytes()[..6].iter().fold(0, |millis, byte| millis << 8 | i64::from(*byte));
        if let Some(found) = Self::find_from(dir, reader_at(dir, millis / 1000)?, call)? {
            return Ok(Some(found));
        }
        Self::find_from(dir, Reader::open(dir)?, call)
    }

    fn find_from(dir: &Path, mut reader: Reader, call: CallId) -> Result<Option<Self>, JournalError> {
        let mut found: Option<(Position, Box<CallIntent>)> = None;
        let mut outcome = None;
        while outcome.is_none()
            && let Some(record) = reader.next_record()?
        {
            if record.head.id != *call.as_bytes() || record.head.kind != Kind::Event {
                continue;
            }
            match event(&reader, &record)? {
                Some(Event::CallIntent(intent)) => found = Some((record.position(), intent)),
                Some(Event::CallOutcome(ended)) => outcome = Some(*ended),
                _ => {}
            }
        }
        Ok(found.map(|(from, intent)| {
            let row = CallRow::new(from.seq, &intent, outcome.as_ref());
            Self { intent: *intent, outcome, row, dir: dir.to_owned(), from, to: reader.position().seq }
        }))
    }

    /// Reads one of its bodies.
    pub fn body(&self, direction: Direction) -> Result<BodyReader, JournalError> {
        let mut reader = Reader::resume(&self.dir, self.from)?;
        reader.set_limit(self.to);
        Ok(BodyReader::new(reader, self.intent.id, body_kind(direction)))
    }

    /// Reads its request's body as it was sent: with the framing around its payload, if there was one.
    pub fn framed_body(&self) -> Result<FramedBodyReader, JournalError> {
        Ok(FramedBodyReader::new(self.body(Direction::Request)?, self.body(Direction::Request)?))
    }
}

fn event(reader: &Reader, record: &Record) -> Result<Option<Event>, JournalError> {
    record.event().map_err(|fault| JournalError::Damaged(Box::new(reader.wrong_at(record, fault))))
}

/// A reader at the last segment that began well before `seconds` since 1970.
fn reader_at(dir: &Path, seconds: i64) -> Result<Reader, JournalError> {
    const SLACK: i64 = 300; // clocks are corrected in small steps
    let wanted = u64::try_from(seconds.saturating_sub(SLACK)).unwrap_or(0).saturating_mul(1_000_000);
    for index in disk::segments(dir)?.into_iter().rev() {
        let mut reader = Reader::segment(dir, index)?;
        match reader.next_record()? {
            Some(header) if header.head.time_us <= wanted => return Ok(reader),
            _ => {}
        }
    }
    Reader::open(dir)
}

#[cfg(test)]
mod tests {
    use chaperone_model::{CommandEnded, CommandExit, CommandsLost};

    use bytes::Bytes;

    use super::*;
    use crate::{Journal, JournalConfig, samples};

    #[test]
    fn actions_are_matched_with_stars() {
        for (pattern, text, wanted) in [
            ("s3:GetObject", "s3:GetObject", true),
            ("s3:getobject", "s3:GetObject", true),
            ("s3:*", "s3:GetObject", true),
            ("*", "s3:GetObject", true),
            ("*:Get*ject", "s3:GetObject", true),
            ("s3:Get", "s3:GetObject", false),
            ("s3:*Object*Acl", "s3:GetObject", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(is_like(pattern, text), wanted, "{pattern} {text}");
        }
    }

    #[tokio::test]
    async fn commands_are_listed_as_they_end_and_losses_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(JournalConfig::new(dir.path())).unwrap();
        let session = SessionId::new();
        let commands = [samples::command(Some(session), &["a"]), samples::command(None, &["b"])];
        for command in &commands {
            journal.append(&Event::CommandStarted(Box::new(command.clone())), false).await.unwrap();
        }
        let at = OffsetDateTime::now_utc();
        let ended = |id| Event::CommandEnded(CommandEnded { id, at, exit: CommandExit::Code(1) });
        journal.append(&Event::CommandsLost(CommandsLost { at, count: 3 }), false).await.unwrap();
        journal.append(&ended(CommandId::new()), false).await.unwrap();
        journal.append(&ended(commands[1].id), true).await.unwrap();

        let mut all = Commands::scan(dir.path(), None).unwrap();
        let row = all.next_row().unwrap().unwrap();
        assert_eq!((row.id, row.exit, row.ended), (commands[1].id, Some(CommandExit::Code(1)), Some(at)));
        assert_eq!(all.next_row().unwrap(), None);
        assert_eq!(all.open_rows().iter().map(|row| row.id).collect::<Vec<_>>(), [commands[0].id]);
        assert_eq!(all.lost(), 3);
        let mut of_session = Commands::scan(dir.path(), Some(session)).unwrap();
        assert_eq!(of_session.next_row().unwrap(), None);
        assert_eq!(of_session.open_rows().len(), 1);
    }

    #[tokio::test]
    async fn calls_sessions_and_one_exchange_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let config = JournalConfig { segment_bytes: 64 << 10, ..JournalConfig::new(dir.path()) };
        let (journal, _) = Journal::open(config).unwrap();
        let session = samples::session();
        journal.append(&samples::session_started(&session), false).await.unwrap();
        let ids: Vec<_> = (0..100).map(|_| CallId::new()).collect();
        for id in &ids {
            journal.append(&samples::intent(*id, session.id), false).await.unwrap();
            let mut body = journal.body(*id, Direction::Request);
            body.push(Bytes::from(id.to_string())).unwrap();
            let digest = body.finish();
            journal.append(&samples::outcome(*id, session.id, Some(digest), None), false).await.unwrap();
        }
        // An upload in three chunks: what was sent, the object in it, and what a client with a broken framing sent on.
        let framed = CallId::new();
        journal.append(&samples::intent(framed, session.id), false).await.unwrap();
        let mut body = journal.body(framed, Direction::Request);
        let data = vec![7; 70_000];
        let mut sent = Vec::new();
        for part in [&b"hello"[..], &data, b"x"] {
            let size = format!("{:x}\r\n", part.len());
            body.push_framing(size.as_bytes()).unwrap();
            body.push(Bytes::copy_from_slice(part)).unwrap();
            body.push_framing(b"\r\n").unwrap();
            sent.extend_from_slice(&[size.as_bytes(), part, b"\r\n"].concat());
        }
        let broken = vec![b'!'; 40_000];
        body.push_framing(&broken).unwrap();
        sent.extend_from_slice(&broken);
        let digest = body.finish();
        assert_eq!(digest.bytes, 70_006);
        journal.append(&samples::outcome(framed, session.id, Some(digest), None), false).await.unwrap();
        let open = CallId::new();
        journal.append(&samples::intent(open, session.id), true).await.unwrap();

        let mut calls = Calls::scan(dir.path(), CallFilter::default()).unwrap();
        let rows: Vec<_> = std::iter::from_fn(|| calls.next_row().unwrap()).collect();
        assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [&ids[..], &[framed]].concat());
        assert_eq!(calls.open_rows().iter().map(|row| row.id).collect::<Vec<_>>(), [open]);
        let none = CallFilter { service: Some("ec2".into()), ..CallFilter::default() };
        assert!(Calls::scan(dir.path(), none).unwrap().next_row().unwrap().is_none());

        let exchange = Exchange::find(dir.path(), ids[70]).unwrap().unwrap();
        assert_eq!(exchange.row, rows[70]);
        let mut body = exchange.body(Direction::Request).unwrap();
        assert_eq!(body.next_part().unwrap().unwrap(), ids[70].to_string());
        assert_eq!(body.next_part().unwrap(), None);
        assert!(Exchange::find(dir.path(), CallId::new()).unwrap().is_none());

        let exchange = Exchange::find(dir.path(), framed).unwrap().unwrap();
        let mut body = exchange.body(Direction::Request).unwrap();
        let payload: Vec<Bytes> = std::iter::from_fn(|| body.next_part().unwrap()).collect();
        assert_eq!(payload.concat(), [&b"hello"[..], &data, b"x"].concat());
        let mut body = exchange.framed_body().unwrap();
        let whole: Vec<Bytes> = std::iter::from_fn(|| body.next_part().unwrap()).collect();
        assert_eq!(whole.concat(), sent);
        let verification = crate::verify(dir.path(), &crate::VerifyOptions::default(), |_, _| {}).unwrap();
        assert!(verification.is_clean(), "{verification:?}");

        let sessions = sessions(dir.path()).unwrap();
        assert_eq!((sessions.len(), sessions[0].calls, sessions[0].request_bytes), (1, 102, 3600 + 70_006));
        let json = serde_json::to_value(&rows[0]).unwrap();
        assert_eq!(
            (&json["service"], &json["decision"], &json["status"]),
            (&"s3".into(), &"allow".into(), &200.into())
        );
    }
}
