//! Rows of `command_starts`, `command_ends` and `commands_lost`.

use chaperone_journal::Seq;
use chaperone_model::{CommandEnded, CommandExit, CommandId, CommandStarted, CommandsLost, SessionId};
use clickhouse::Row;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Source;

#[derive(Clone, Debug, Row, Serialize)]
pub(crate) struct CommandStartsRow {
    tenant: String,
    node: String,
    #[serde(with = "clickhouse::serde::uuid")]
    journal: Uuid,
    seq: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
    #[serde(with = "clickhouse::serde::uuid::option")]
    session: Option<Uuid>,
    #[serde(with = "clickhouse::serde::uuid::option")]
    parent: Option<Uuid>,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    started: OffsetDateTime,
    pid: u32,
    parent_pid: u32,
    uid: u32,
    cgroup: u64,
    exe: String,
    exe_sha256: Option<String>,
    argv: Vec<String>,
    argv_cut: bool,
    directory: String,
    found: bool,
}

impl CommandStartsRow {
    pub(crate) fn new(source: &Source, seq: Seq, started: CommandStarted) -> Self {
        Self {
            tenant: source.tenant.clone(),
            node: source.node.clone(),
            journal: source.journal,
            seq: seq.0,
            id: started.id.uuid(),
            session: started.session.map(SessionId::uuid),
            parent: started.parent.map(CommandId::uuid),
            started: started.at,
            pid: started.pid,
            parent_pid: started.parent_pid,
            uid: started.uid,
            cgroup: started.cgroup.0,
            exe: started.exe,
            exe_sha256: started.exe_sha256,
            argv: started.argv,
            argv_cut: started.argv_cut,
            directory: started.directory,
            found: started.found,
        }
    }
}

#[derive(Clone, Debug, Row, Serialize)]
pub(crate) struct CommandEndsRow {
    tenant: String,
    #[serde(with = "clickhouse::serde::uuid")]
    journal: Uuid,
    seq: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    ended: OffsetDateTime,
    ending: &'static str,
    code: u32,
}

impl CommandEndsRow {
    pub(crate) fn new(source: &Source, seq: Seq, ended: &CommandEnded) -> Self {
        let (ending, code) = match ended.exit {
            CommandExit::Code(code) => ("code", code),
            CommandExit::Gone => ("gone", 0),
            CommandExit::Replaced => ("replaced", 0),
            CommandExit::Signal(signal) => ("signal", signal),
        };
        Self {
            tenant: source.tenant.clone(),
            journal: source.journal,
            seq: seq.0,
            id: ended.id.uuid(),
            ended: ended.at,
            ending,
            code,
        }
    }
}

#[derive(Clone, Debug, Row, Serialize)]
pub(crate) struct CommandsLostRow {
    tenant: String,
    node: String,
    #[serde(with = "clickhouse::serde::uuid")]
    journal: Uuid,
    seq: u64,
    #[serde(with = "clickhouse::serde::time::datetime64::micros")]
    at: OffsetDateTime,
    count: u64,
}

impl CommandsLostRow {
    pub(crate) fn new(source: &Source, seq: Seq, lost: &CommandsLost) -> Self {
        Self {
            tenant: source.tenant.clone(),
            node: source.node.clone(),
            journal: source.journal,
            seq: seq.0,
            at: lost.at,
            count: lost.count,
        }
    }
}
