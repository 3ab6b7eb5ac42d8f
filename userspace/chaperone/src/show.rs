//! `chaperone show`: one exchange, whole.

use std::{
    io::{self, IsTerminal as _, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::anyhow;
use bytes::Bytes;
use chaperone_journal::{BodyReader, Exchange, JournalError};
use chaperone_model::{CallId, Direction, Head};
use serde_json::{Value, json};

use crate::{
    cli,
    commands::recorded,
    config::Config,
    output::{clean, clean_lines, json_line, size},
};

/// How much of a body is shown; `--body` writes all of it.
const SHOWN_BYTES: usize = 1 << 20;

/// Shows the call.
pub fn run(config: &Path, call: CallId, body: Option<cli::Body>, as_json: bool) -> anyhow::Result<ExitCode> {
    let config = Config::read(config)?;
    let dir = recorded(&config);
    let exchange = Exchange::find(dir, call)?
        .ok_or_else(|| anyhow!("the journal {} has no call {call}: `chaperone calls` lists them", dir.display()))?;
    let mut out = io::stdout().lock();
    if let Some(body) = body {
        let mut next: Box<dyn FnMut() -> Result<Option<Bytes>, JournalError>> = match body {
            cli::Body::Request => parts(exchange.body(Direction::Request)?),
            cli::Body::RequestFramed => {
                let mut reader = exchange.framed_body()?;
                Box::new(move || reader.next_part())
            }
            cli::Body::Response => parts(exchange.body(Direction::Response)?),
        };
        // What goes into a file or a pipe is what was recorded, byte for byte.
        let is_terminal = out.is_terminal();
        while let Some(part) = next()? {
            if is_terminal {
                writeln!(out, "{}", clean_lines(&String::from_utf8_lossy(&part)))?;
            } else {
                out.write_all(&part)?;
            }
        }
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let request = read(&exchange, Direction::Request)?;
    let response = read(&exchange, Direction::Response)?;
    let answer_head = exchange.outcome.as_ref().and_then(|outcome| outcome.head.clone());
    if as_json {
        let value = json!({
            "call": exchange.row,
            "parameters": exchange.intent.call.as_ref().map(|call| &call.parameters),
            "request": { "head": exchange.intent.head, "body": request.json() },
            "response": { "head": answer_head, "body": response.json() },
        });
        json_line(&mut out, &value)?;
        return Ok(ExitCode::SUCCESS);
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
    Ok(ExitCode::SUCCESS)
}

/// A body as far as it is shown.
struct Shown {
    bytes: Vec<u8>,
    whole: bool,
}

fn parts(mut reader: BodyReader) -> Box<dyn FnMut() -> Result<Option<Bytes>, JournalError>> {
    Box::new(move || reader.next_part())
}

fn read(exchange: &Exchange, direction: Direction) -> anyhow::Result<Shown> {
    let mut reader = exchange.body(direction)?;
    let mut bytes = Vec::new();
    while let Some(part) = reader.next_part()? {
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
