//! `chaperone show`: one exchange, whole.

use std::{
    io::{self, IsTerminal as _, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::anyhow;
use bytes::Bytes;
use chaperone_model::{CallId, Direction, Head};
use chaperone_query::{Body, Query, RecordedExchange, Rows};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};

use crate::{
    cli, commands,
    config::Config,
    output::{clean, clean_lines, json_line, size},
};

/// How much of a body is shown; `--body` writes all of it.
const SHOWN_BYTES: usize = 1 << 20;

/// Shows the call.
pub fn run(
    config: &Path,
    call: CallId,
    body: Option<cli::Body>,
    warehouse: bool,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let config = Config::read(config)?;
    let place =
        if warehouse { "ClickHouse".to_owned() } else { format!("the journal {}", config.journal.dir.display()) };
    commands::query(&config, warehouse, async |record| {
        let found = record.exchange(call).await?;
        let exchange = found.ok_or_else(|| anyhow!("{place} has no call {call}: `chaperone calls` lists them"))?;
        match body {
            Some(body) => write_body(record.body(call, wanted(body))).await,
            None => show_all(record, &exchange, as_json).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

const fn wanted(body: cli::Body) -> Body {
    match body {
        cli::Body::Request => Body::Of(Direction::Request),
        cli::Body::RequestFramed => Body::Framed,
        cli::Body::Response => Body::Of(Direction::Response),
    }
}

/// What goes into a file or a pipe is what was recorded, byte for byte.
async fn write_body(mut parts: Rows<'_, Bytes>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let is_terminal = out.is_terminal();
    while let Some(part) = parts.try_next().await? {
        if is_terminal {
            writeln!(out, "{}", clean_lines(&String::from_utf8_lossy(&part)))?;
        } else {
            out.write_all(&part)?;
        }
    }
    Ok(out.flush()?)
}

async fn show_all(record: &dyn Query, exchange: &RecordedExchange, as_json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let request = read(record, exchange, Direction::Request).await?;
    let response = read(record, exchange, Direction::Response).await?;
    let answer_head = exchange.outcome.as_ref().and_then(|outcome| outcome.head.clone());
    if as_json {
        let value = json!({
            "call": exchange.row,
            "parameters": exchange.intent.call.as_ref().map(|call| &call.parameters),
            "request": { "head": exchange.intent.head, "body": request.json() },
            "response": { "head": answer_head, "body": response.json() },
        });
        return Ok(json_line(&mut out, &value)?);
    }
    let row = &exchange.row;
    writeln!(out, "call       {}\nsession    {}  agent {}", row.id, row.session, clean(&row.agent))?;
    writeln!(out, "process    {} {} {}", row.pid, clean(&row.exe), clean(&row.argv.join(" ")))?;
    writeln!(out, "actions    {}", clean(&row.actions.join(", ")))?;
    writeln!(out, "resources  {}", clean(&row.resources.join(", ")))?;
    let decision = serde_json::to_string(&row.decision)?;
    writeln!(
        out,
        "decision   {} by {} {}",
        decision.trim_matches('"'),
        clean(&row.policies.join(", ")),
        clean(&row.message)
    )?;
    if let Some(outcome) = &exchange.outcome {
        let how = serde_json::to_string(&outcome.outcome)?;
        let why = outcome.error.as_deref().map(clean).unwrap_or_default();
        writeln!(out, "outcome    {} after {} us {why}", how.trim_matches('"'), outcome.duration_us)?;
    }
    writeln!(out, "\n> {} {} ({})", clean(&row.method), clean(&row.target), clean(&row.host))?;
    show(&mut out, ">", Some(&exchange.intent.head), &request)?;
    writeln!(out, "\n< {}", row.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string()))?;
    show(&mut out, "<", answer_head.as_ref(), &response)?;
    Ok(())
}

/// A body as far as it is shown.
struct Shown {
    bytes: Vec<u8>,
    whole: bool,
}

async fn read(record: &dyn Query, exchange: &RecordedExchange, direction: Direction) -> anyhow::Result<Shown> {
    let mut parts = record.body(exchange.row.id, Body::Of(direction));
    let mut bytes = Vec::new();
    while let Some(part) = parts.try_next().await? {
        let room = SHOWN_BYTES - bytes.len();
        bytes.extend_from_slice(&part[..part.len().min(room)]);
        if part.len() > room {
            return Ok(Shown { bytes, whole: false });
        }
    }
    let outcome = exchange.outcome.as_ref();
    let digest = outcome.and_then(|outcome| match direction {
        Direction::Request => outcome.request,
        Direction::Response => outcome.response,
    });
    Ok(Shown { bytes, whole: digest.is_none_or(|digest| digest.kept.is_none()) })
}

impl Shown {
    fn json(&self) -> Value {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => json!({ "text": text, "whole": self.whole }),
            Err(_) => json!({ "hex": hex::encode(&self.bytes), "whole": self.whole }),
        }
    }

    fn pretty(&self) -> String {
        if let Ok(value) = serde_json::from_slice::<Value>(&self.bytes) {
            return clean_lines(&serde_json::to_string_pretty(&value).unwrap_or_default());
        }
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => clean_lines(text),
            Err(_) => self
                .bytes
                .chunks(32)
                .take(16)
                .map(|row| {
                    let text: String =
                        row.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
                    format!("{:<64}  {text}", hex::encode(row))
                })
                .collect::<Vec<_>>()
                .join("\n"),
        }
    }
}

fn show(out: &mut impl Write, mark: &str, head: Option<&Head>, body: &Shown) -> io::Result<()> {
    for (name, value) in head.iter().flat_map(|head| &head.headers) {
        writeln!(out, "{mark} {}: {}", clean(name), clean(value))?;
    }
    if body.bytes.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", body.pretty())?;
    if !body.whole {
        writeln!(out, "(the first {} of it: --body writes all that is recorded)", size(body.bytes.len() as u64))?;
    }
    Ok(())
}
