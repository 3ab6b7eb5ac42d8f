//! What people ask of the warehouse: the same rows as from the journal.

use std::collections::VecDeque;

use bytes::Bytes;
use chaperone_journal::{CallFilter, CallRow, CommandRow, ConnectionRow, Kind, SessionRow};
use chaperone_model::{CallId, CommandExit, CommandId, ConnectionId, Container, Direction, Event, SessionId};
use chaperone_query::RecordedExchange;
use clickhouse::{Row, sql::Identifier};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Warehouse, WarehouseError,
    rows::{CallsRow, name},
};

/// Chunks that are fetched at a time: at most 2 MiB.
const CHUNKS: usize = 32;

/// A place where the record in the warehouse is not whole.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct ChainBreak {
    /// The journal.
    #[serde(with = "clickhouse::serde::uuid")]
    pub journal: Uuid,
    /// The record.
    pub seq: u64,
    /// Its kind.
    pub kind: String,
    /// What is wrong.
    pub what: String,
}

#[derive(Row, Deserialize)]
struct SessionsRow {
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
    agent: String,
    groups: Vec<String>,
    node: String,
    cgroup: String,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    started: OffsetDateTime,
    #[serde(with = "clickhouse::serde::time::datetime64::micros::option")]
    ended: Option<OffsetDateTime>,
    why: Option<String>,
    calls: u64,
    denied: u64,
    connections: u64,
    request_bytes: u64,
    response_bytes: u64,
    container: String,
    container_name: String,
    container_image: String,
    container_image_id: String,
    container_labels: Vec<(String, String)>,
    #[serde(with = "clickhouse::serde::uuid::option")]
    parent: Option<Uuid>,
}

#[derive(Row, Deserialize)]
struct CommandsRow {
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
    #[serde(with = "clickhouse::serde::uuid::option")]
    session: Option<Uuid>,
    #[serde(with = "clickhouse::serde::uuid::option")]
    parent: Option<Uuid>,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    started: OffsetDateTime,
    #[serde(with = "clickhouse::serde::time::datetime64::micros::option")]
    ended: Option<OffsetDateTime>,
    ending: Option<String>,
    code: Option<u32>,
    pid: u32,
    parent_pid: u32,
    uid: u32,
    exe: String,
    exe_sha256: Option<String>,
    argv: Vec<String>,
    argv_cut: bool,
    directory: String,
    found: bool,
}

#[derive(Row, Deserialize)]
struct ConnectionsRow {
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    session: Uuid,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    opened: OffsetDateTime,
    #[serde(with = "clickhouse::serde::time::datetime64::micros::option")]
    closed: Option<OffsetDateTime>,
    kind: String,
    name: String,
    destination: String,
    upstream: String,
    sent_bytes: u64,
    received_bytes: u64,
    error: String,
    pid: u32,
    uid: u32,
    exe: String,
    argv: Vec<String>,
    #[serde(with = "clickhouse::serde::uuid::option")]
    command: Option<Uuid>,
}

#[derive(Row, Deserialize)]
struct PayloadRow {
    seq: u64,
    payload: String,
}

#[derive(Row, Deserialize)]
struct PartRow {
    sha256: [u8; 32],
    length: u32,
}

#[derive(Row, Deserialize)]
struct ChunkRow<'a> {
    sha256: [u8; 32],
    data: &'a [u8],
}

impl Warehouse {
    /// The sessions, oldest first.
    pub async fn sessions(&self) -> Result<Vec<SessionRow>, WarehouseError> {
        let query = "SELECT ?fields FROM sessions WHERE tenant = ? ORDER BY started, id";
        let rows = self.client().query(query).bind(&self.config().tenant).fetch_all::<SessionsRow>().await;
        let rows = rows.map_err(|source| self.failed("list the sessions", source))?;
        let session = |row: SessionsRow| SessionRow {
            id: SessionId::from_bytes(row.id.into_bytes()),
            agent: row.agent,
            groups: row.groups,
            host: row.node,
            cgroup: row.cgroup,
            container: (!row.container.is_empty()).then(|| Container {
                id: row.container,
                name: row.container_name,
                image: row.container_image,
                image_id: row.container_image_id,
                labels: row.container_labels.into_iter().collect(),
            }),
            parent: row.parent.map(|id| SessionId::from_bytes(id.into_bytes())),
            started: row.started,
            ended: row.ended,
            why: row.why,
            calls: row.calls,
            denied: row.denied,
            connections: row.connections,
            request_bytes: row.request_bytes,
            response_bytes: row.response_bytes,
        };
        Ok(rows.into_iter().map(session).collect())
    }

    /// The commands, oldest first, at most `limit`; only those of `session`, if there is one.
    pub async fn commands(&self, session: Option<SessionId>, limit: u64) -> Result<Vec<CommandRow>, WarehouseError> {
        let of = if session.is_some() { " AND session = toUUID(?)" } else { "" };
        let query = format!("SELECT ?fields FROM commands WHERE tenant = ?{of} ORDER BY started, id LIMIT ?");
        let mut query = self.client().query(&query).bind(&self.config().tenant);
        if let Some(session) = session {
            query = query.bind(session.to_string());
        }
        let rows = query.bind(limit).fetch_all::<CommandsRow>().await;
        let rows = rows.map_err(|source| self.failed("list the commands", source))?;
        let command = |row: CommandsRow| {
            let code = row.code.unwrap_or_default();
            CommandRow {
                id: CommandId::from_bytes(row.id.into_bytes()),
                session: row.session.map(|id| SessionId::from_bytes(id.into_bytes())),
                parent: row.parent.map(|id| CommandId::from_bytes(id.into_bytes())),
                started: row.started,
                ended: row.ended,
                exit: row.ending.map(|ending| match ending.as_str() {
                    "gone" => CommandExit::Gone,
                    "replaced" => CommandExit::Replaced,
                    "signal" => CommandExit::Signal(code),
                    _ => CommandExit::Code(code),
                }),
                pid: row.pid,
                parent_pid: row.parent_pid,
                uid: row.uid,
                exe: row.exe,
                exe_sha256: row.exe_sha256,
                argv: row.argv,
                argv_cut: row.argv_cut,
                directory: row.directory,
                found: row.found,
            }
        };
        Ok(rows.into_iter().map(command).collect())
    }

    /// The connections, oldest first, at most `limit`; only those of `session`, if there is one.
    pub async fn connections(
        &self,
        session: Option<SessionId>,
        limit: u64,
    ) -> Result<Vec<ConnectionRow>, WarehouseError> {
        let of = if session.is_some() { " AND session = toUUID(?)" } else { "" };
        let query = format!("SELECT ?fields FROM connections WHERE tenant = ?{of} ORDER BY opened, id LIMIT ?");
        let mut query = self.client().query(&query).bind(&self.config().tenant);
        if let Some(session) = session {
            query = query.bind(session.to_string());
        }
        let rows = query.bind(limit).fetch_all::<ConnectionsRow>().await;
        let rows = rows.map_err(|source| self.failed("list the connections", source))?;
        let some = |text: String| (!text.is_empty()).then_some(text);
        let connection = |row: ConnectionsRow| {
            let kind = serde_json::from_value(row.kind.into())
                .map_err(|error| WarehouseError::Row { table: "connections", why: error.to_string() })?;
            Ok(ConnectionRow {
                id: ConnectionId::from_bytes(row.id.into_bytes()),
                session: SessionId::from_bytes(row.session.into_bytes()),
                opened: row.opened,
                closed: row.closed,
                kind,
                name: some(row.name),
                destination: row.destination,
                upstream: some(row.upstream),
                sent_bytes: row.sent_bytes,
                received_bytes: row.received_bytes,
                error: some(row.error),
                pid: row.pid,
                uid: row.uid,
                exe: row.exe,
                argv: row.argv,
                command: row.command.map(|id| CommandId::from_bytes(id.into_bytes())),
            })
        };
        rows.into_iter().map(connection).collect()
    }

    /// The calls that ended, oldest first, at most `limit`.
    pub async fn calls(&self, filter: &CallFilter, limit: u64) -> Result<Vec<CallRow>, WarehouseError> {
        let mut sql = String::from("SELECT ?fields FROM calls FINAL WHERE tenant = ?");
        let mut texts = Vec::new();
        let mut times = Vec::new();
        let mut condition = |sql: &str, text: Option<String>| {
            texts.extend(text.map(|text| (sql.to_owned(), text)));
        };
        condition("session = toUUID(?)", filter.session.map(|session| session.to_string()));
        condition("agent = ?", filter.agent.clone());
        condition("service = ?", filter.service.clone());
        condition("arrayExists(action -> action ILIKE ?, actions)", filter.action.as_deref().map(like));
        condition("decision = ?", filter.decision.as_ref().map(name));
        condition("outcome = ?", filter.outcome.as_ref().map(name));
        let micros = |at: OffsetDateTime| i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX);
        times.extend(filter.since.map(|at| ("started >= fromUnixTimestamp64Micro(?)", micros(at))));
        times.extend(filter.until.map(|at| ("started < fromUnixTimestamp64Micro(?)", micros(at))));
        for condition in texts.iter().map(|(sql, _)| sql.as_str()).chain(times.iter().map(|(sql, _)| *sql)) {
            sql.push_str(" AND ");
            sql.push_str(condition);
        }
        sql.push_str(" ORDER BY started, id LIMIT ?");
        let mut query = self.client().query(&sql).bind(&self.config().tenant);
        for (_, text) in &texts {
            query = query.bind(text);
        }
        for (_, at) in &times {
            query = query.bind(at);
        }
        let rows = query.bind(limit).fetch_all::<CallsRow>().await;
        let rows = rows.map_err(|source| self.failed("list the calls", source))?;
        rows.into_iter().map(CallsRow::into_call_row).collect()
    }

    /// One exchange; `None` if it isn't here (yet).
    pub async fn exchange(&self, call: CallId) -> Result<Option<RecordedExchange>, WarehouseError> {
        let query = "SELECT ?fields FROM ledger FINAL WHERE tenant = ? AND about = unhex(?) AND code = ? ORDER BY seq";
        let id = hex::encode(call.as_bytes());
        let query = self.client().query(query).bind(&self.config().tenant).bind(id).bind(Kind::Event.code());
        let rows = query.fetch_all::<PayloadRow>().await.map_err(|source| self.failed("find the call", source))?;
        let (mut intent, mut outcome) = (None, None);
        for row in rows {
            let wrong = |error: serde_json::Error| WarehouseError::Row { table: "ledger", why: error.to_string() };
            match serde_json::from_str(&row.payload).map_err(wrong)? {
                Event::CallIntent(found) => intent = Some((chaperone_journal::Seq(row.seq), *found)),
                Event::CallOutcome(found) => outcome = Some(*found),
                _ => {}
            }
        }
        Ok(intent.map(|(seq, intent)| {
            let row = CallRow::new(seq, &intent, outcome.as_ref());
            RecordedExchange { intent, outcome, row }
        }))
    }

    /// One of a call's bodies, to be read in parts.
    pub async fn body(&self, call: CallId, direction: Direction) -> Result<WarehouseBody<'_>, WarehouseError> {
        let query = "SELECT ?fields FROM body_parts FINAL \
                     WHERE tenant = ? AND call = toUUID(?) AND direction = ? ORDER BY offset";
        let query = self.client().query(query).bind(&self.config().tenant).bind(call.to_string());
        let parts = query.bind(name(&direction)).fetch_all::<PartRow>().await;
        let parts = parts.map_err(|source| self.failed("find the body", source))?;
        Ok(WarehouseBody { warehouse: self, parts: parts.into(), ready: VecDeque::new() })
    }

    /// Where the chain in the warehouse is broken; empty if it is whole.
    pub async fn chain_breaks(&self, limit: u64) -> Result<Vec<ChainBreak>, WarehouseError> {
        let query = "SELECT ?fields FROM chain_breaks WHERE tenant = ? ORDER BY journal, seq LIMIT ?";
        let rows = self.client().query(query).bind(&self.config().tenant).bind(limit).fetch_all().await;
        rows.map_err(|source| self.failed("check the chain", source))
    }

    /// How many rows a table or view has, replaced ones not counted twice.
    pub async fn count(&self, table: &str) -> Result<u64, WarehouseError> {
        let query = self.client().query("SELECT count() FROM ? FINAL").bind(Identifier(table));
        query.fetch_one().await.map_err(|source| self.failed("count rows", source))
    }
}

/// Reads a body in parts, a few at a time in memory.
#[derive(Debug)]
pub struct WarehouseBody<'a> {
    warehouse: &'a Warehouse,
    parts: VecDeque<PartRow>,
    ready: VecDeque<Bytes>,
}

impl std::fmt::Debug for PartRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", hex::encode(self.sha256), self.length)
    }
}

impl WarehouseBody<'_> {
    /// How many bytes are left to read.
    pub fn remaining(&self) -> u64 {
        let ready: usize = self.ready.iter().map(Bytes::len).sum();
        self.parts.iter().map(|part| u64::from(part.length)).sum::<u64>() + ready as u64
    }

    /// The next part; `None` at the end.
    pub async fn next_part(&mut self) -> Result<Option<Bytes>, WarehouseError> {
        if self.ready.is_empty() && !self.parts.is_empty() {
            self.fetch().await?;
        }
        Ok(self.ready.pop_front())
    }

    async fn fetch(&mut self) -> Result<(), WarehouseError> {
        let wanted: Vec<_> = self.parts.drain(..self.parts.len().min(CHUNKS)).collect();
        let hashes: Vec<_> = wanted.iter().map(|part| format!("unhex('{}')", hex::encode(part.sha256))).collect();
        let query = format!(
            "SELECT ?fields FROM body_chunks WHERE tenant = ? AND sha256 IN ({}) LIMIT 1 BY sha256",
            hashes.join(",")
        );
        let failed = |source| self.warehouse.failed("read the body", source);
        let tenant = &self.warehouse.config().tenant;
        let mut rows = self.warehouse.client().query(&query).bind(tenant).fetch::<ChunkRow<'_>>().map_err(failed)?;
        let mut chunks = std::collections::HashMap::new();
        while let Some(row) = rows.next().await.map_err(failed)? {
            chunks.insert(row.sha256, Bytes::copy_from_slice(row.data));
        }
        for part in wanted {
            let chunk = chunks.get(&part.sha256).ok_or_else(|| WarehouseError::Row {
                table: "body_chunks",
                why: format!("the chunk {} is missing", hex::encode(part.sha256)),
            })?;
            self.ready.push_back(chunk.clone());
        }
        Ok(())
    }
}

/// A pattern with `*`, for ILIKE.
fn like(pattern: &str) -> String {
    let mut like = String::with_capacity(pattern.len());
    for c in pattern.chars() {
        match c {
            '*' => like.push('%'),
            '%' | '_' | '\\' => like.extend(['\\', c]),
            c => like.push(c),
        }
    }
    like
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_become_percents_and_the_rest_stays() {
        assert_eq!(like("s3:Get*"), "s3:Get%");
        assert_eq!(like(r"a_b%\"), r"a\_b\%\\");
    }
}
