//! What this host's journal can answer by itself, with the columns of ClickHouse's views.

use std::{collections::BTreeMap, path::Path};

use chaperone_journal::{CallFilter, CallRow, Calls, Commands, Connections, JournalError, sessions};
use chaperone_model::{SessionId, Verdict};
use serde::Serialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, macros::format_description};

use crate::{Answer, Arguments, QueryError, Question};

/// Whether the journal has what the question is about.
pub(crate) fn can_answer(question: &Question) -> bool {
    ["denials_by_policy", "session_timeline", "what_did"].contains(&question.name)
}

/// Answers from the journal in `dir`.
pub(crate) fn answer(question: &Question, arguments: &Arguments, dir: &Path) -> Result<Answer, QueryError> {
    Ok(match (question.name, arguments.session) {
        ("denials_by_policy", _) => denials_by_policy(arguments, dir)?,
        ("what_did", _) => what_did(arguments, dir)?,
        ("session_timeline", Some(session)) => timeline(SessionId::from_bytes(session.into_bytes()), dir)?,
        (name, _) => return Err(QueryError::NotHere(name)),
    })
}

fn each_call(filter: CallFilter, dir: &Path, mut see: impl FnMut(CallRow)) -> Result<(), JournalError> {
    let mut calls = Calls::scan(dir, filter)?;
    while let Some(row) = calls.next_row()? {
        see(row);
    }
    calls.open_rows().into_iter().for_each(see);
    Ok(())
}

#[derive(Default)]
struct Did {
    calls: u64,
    errors: u64,
    sent: u64,
    received: u64,
    sessions: std::collections::BTreeSet<String>,
    span: Option<(OffsetDateTime, OffsetDateTime)>,
    last_call: String,
}

fn what_did(arguments: &Arguments, dir: &Path) -> Result<Answer, JournalError> {
    let filter = CallFilter {
        agent: arguments.agent.clone(),
        since: Some(arguments.since),
        until: Some(arguments.until),
        ..CallFilter::default()
    };
    let mut did = BTreeMap::<_, Did>::new();
    each_call(filter, dir, |row| {
        let key = (row.service.unwrap_or_default(), row.operation.unwrap_or_default(), row.decision == Verdict::Allow);
        let entry = did.entry(key).or_default();
        entry.calls += 1;
        entry.errors += u64::from(row.error_code.is_some());
        entry.sent += row.request_bytes;
        entry.received += row.response_bytes;
        entry.sessions.insert(row.session.to_string());
        let (first, last) = entry.span.unwrap_or((row.started, row.started));
        if row.started >= last {
            entry.last_call = row.id.to_string();
        }
        entry.span = Some((first.min(row.started), last.max(row.started)));
    })?;
    let mut did: Vec<_> = did.into_iter().collect();
    did.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.calls));
    let rows = did.into_iter().map(|((service, operation, allowed), entry)| {
        vec![
            json!(service),
            json!(operation),
            json!(if allowed { "allow" } else { "deny" }),
            json!(entry.calls),
            json!(entry.errors),
            json!(entry.sent),
            json!(entry.received),
            json!(entry.sessions.len()),
            entry.span.map_or(Value::Null, |(first, _)| moment(first)),
            entry.span.map_or(Value::Null, |(_, last)| moment(last)),
            json!(entry.last_call),
        ]
    });
    let columns = "service operation decision calls errors sent_bytes received_bytes sessions first last last_call";
    Ok(made(columns, rows.collect()))
}

fn denials_by_policy(arguments: &Arguments, dir: &Path) -> Result<Answer, JournalError> {
    let filter = CallFilter {
        decision: Some(Verdict::Deny),
        since: Some(arguments.since),
        until: Some(arguments.until),
        ..CallFilter::default()
    };
    let mut denials = BTreeMap::<String, Vec<CallRow>>::new();
    each_call(filter, dir, |row| {
        if row.policies.is_empty() {
            denials.entry(format!("({})", text(&row.reason))).or_default().push(row);
        } else {
            for policy in row.policies.clone() {
                denials.entry(policy).or_default().push(row.clone());
            }
        }
    })?;
    let mut denials: Vec<_> = denials.into_iter().collect();
    denials.sort_by_key(|(_, calls)| std::cmp::Reverse(calls.len()));
    let rows = denials.into_iter().filter_map(|(policy, calls)| {
        let last = calls.iter().max_by_key(|row| row.started)?;
        let distinct = |of: fn(&CallRow) -> String| {
            let mut all: Vec<_> = calls.iter().map(of).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        let mut operations = distinct(operation);
        operations.truncate(3);
        Some(vec![
            json!(policy),
            json!(last.reason),
            json!(calls.len()),
            json!(distinct(|row| row.agent.clone()).len()),
            json!(distinct(|row| row.session.to_string()).len()),
            json!(operations),
            moment(last.started),
            json!(last.agent),
            json!(last.id),
            json!(last.message),
        ])
    });
    let columns = "policy reason calls agents sessions operations last last_agent last_call message";
    Ok(made(columns, rows.collect()))
}

fn timeline(session: SessionId, dir: &Path) -> Result<Answer, JournalError> {
    let mut rows = Vec::new();
    let mut note = |at: OffsetDateTime, what: &str, subject: String, detail: String, result: String, id: String| {
        rows.push((at, vec![moment(at), json!(what), json!(subject), json!(detail), json!(result), json!(id)]));
    };
    for row in sessions(dir)?.into_iter().filter(|row| row.id == session) {
        let detail = format!("{} {}", row.host, row.cgroup);
        note(row.started, "session starts", row.agent, detail, String::new(), row.id.to_string());
        if let Some(ended) = row.ended {
            let why = row.why.unwrap_or_default();
            note(ended, "session ends", String::new(), why, String::new(), row.id.to_string());
        }
    }
    let mut commands = Commands::scan(dir, Some(session))?;
    let mut command = |row: chaperone_journal::CommandRow| {
        let found = if row.found { "found running" } else { "" };
        note(row.started, "command", row.exe, row.argv.join(" "), found.into(), row.id.to_string());
    };
    while let Some(row) = commands.next_row()? {
        command(row);
    }
    commands.open_rows().into_iter().for_each(command);
    let mut connections = Connections::scan(dir, Some(session))?;
    let mut connection = |row: chaperone_journal::ConnectionRow| {
        let (kind, error) = (text(&row.kind), row.error.unwrap_or_default());
        note(row.opened, "connection", row.name.unwrap_or(row.destination), kind, error, row.id.to_string());
    };
    while let Some(row) = connections.next_row()? {
        connection(row);
    }
    connections.open_rows().into_iter().for_each(connection);
    each_call(CallFilter { session: Some(session), ..CallFilter::default() }, dir, |row| {
        let outcome = row.outcome.map_or_else(|| "open".to_owned(), |outcome| text(&outcome));
        let result = format!("{} {outcome} {}", text(&row.decision), row.status.unwrap_or_default());
        note(row.started, "call", operation(&row), row.resources.join(" "), result, row.id.to_string());
    })?;
    rows.sort_by_key(|(at, _)| *at);
    Ok(made("at what subject detail result id", rows.into_iter().map(|(_, row)| row).collect()))
}

fn made(columns: &str, rows: Vec<Vec<Value>>) -> Answer {
    Answer { columns: columns.split(' ').map(str::to_owned).collect(), rows }
}

fn operation(row: &CallRow) -> String {
    format!("{}:{}", row.service.as_deref().unwrap_or_default(), row.operation.as_deref().unwrap_or_default())
}

/// A variant's name, as it stands in JSON.
fn text(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// As ClickHouse writes it.
fn moment(at: OffsetDateTime) -> Value {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]");
    Value::String(at.to_offset(time::UtcOffset::UTC).format(format).unwrap_or_default())
}
