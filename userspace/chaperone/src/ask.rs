//! `chaperone ask`: questions by name, to ClickHouse, or to this host's journal where that alone can answer.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
    process::ExitCode,
};

use chaperone_query::{Answer, Arguments, JournalQuery, Parameter, QUESTIONS, Query as _, Question};
use chaperone_warehouse::roles::{self, Seen};
use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime};

use crate::{
    cli, commands,
    config::{Config, ConfigError},
    output::{cut, json_line, table},
};

/// How far back a question goes that isn't told.
const WITHIN: Duration = Duration::days(7);
/// A cell that is wider is cut.
const WIDEST: usize = 64;

/// Asks, or lists what can be asked.
pub fn run(config: &Path, asked: &cli::Ask, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(io::stdout().lock());
    let (Some(name), false) = (&asked.name, asked.list) else {
        list(&mut out, as_json)?;
        return Ok(ExitCode::SUCCESS);
    };
    let question = Question::named(name).ok_or_else(|| {
        ConfigError(format!("there is no question `{name}`: `chaperone ask --list` says which there are"))
    })?;
    let arguments = arguments(question, &asked.parameters)?;
    let config = Config::read(config)?;
    let warehouse = config.warehouse.is_some() && !asked.journal;
    let answer =
        commands::query(&config, warehouse, async |record| Ok(record.ask(question, arguments, asked.limit).await?))?;
    print(&mut out, &answer, as_json)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the roles.
pub fn roles(
    format: cli::RolesFormat,
    database: &str,
    tenant: Option<&String>,
    group: Option<&String>,
) -> anyhow::Result<ExitCode> {
    if database.is_empty() || !database.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        let why = format!("--database: `{database}` is not made of letters, digits and underscores");
        return Err(ConfigError(why).into());
    }
    let seen = Seen { tenant: tenant.cloned(), group: group.cloned() };
    let text = match format {
        cli::RolesFormat::Sql => roles::sql(database, &seen),
        cli::RolesFormat::Xml => roles::users_xml(database, &seen),
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn list(out: &mut impl Write, as_json: bool) -> io::Result<()> {
    let mut cells = Vec::new();
    let here = JournalQuery::new("");
    for question in QUESTIONS {
        let parameters: Vec<_> = question.parameters.iter().map(|parameter| parameter.name()).collect();
        let journal = here.answers(question);
        if as_json {
            let line =
                json!({ "name": question.name, "asks": question.asks, "parameters": parameters, "journal": journal });
            json_line(out, &line)?;
        } else {
            let from = if journal { "ClickHouse, journal" } else { "ClickHouse" };
            cells.push(vec![question.name.into(), question.asks.into(), parameters.join(", "), from.into()]);
        }
    }
    if !as_json {
        table(out, &["NAME", "QUESTION", "PARAMETERS", "FROM"], &cells)?;
    }
    out.flush()
}

/// What the question is told, by `key=value`.
fn arguments(question: &Question, given: &[String]) -> Result<Arguments, ConfigError> {
    let now = OffsetDateTime::now_utc();
    let mut arguments = Arguments { agent: None, resource: None, session: None, since: now - WITHIN, until: now };
    let mut seen = Vec::new();
    for text in given {
        let names = || question.parameters.iter().map(|it| it.name()).collect::<Vec<_>>().join(", ");
        let wrong = |why: &str| ConfigError(format!("`{text}`: {why}"));
        let (key, value) = text.split_once('=').ok_or_else(|| wrong("parameters are given as key=value"))?;
        let parameter = question.parameters.iter().find(|parameter| parameter.name() == key).ok_or_else(|| {
            let takes = if question.parameters.is_empty() { "no parameters".into() } else { names() };
            wrong(&format!("the question `{}` takes {takes}", question.name))
        })?;
        if seen.contains(parameter) {
            return Err(wrong("it is given twice"));
        }
        seen.push(*parameter);
        match parameter {
            Parameter::Agent => arguments.agent = Some(value.into()),
            Parameter::Resource => arguments.resource = Some(value.into()),
            Parameter::Session => {
                let session: chaperone_model::SessionId =
                    value.parse().map_err(|_| wrong("not a session's id: `chaperone sessions` lists them"))?;
                arguments.session = Some(session.uuid());
            }
            Parameter::Since => arguments.since = cli::moment(value).map_err(|why| wrong(&why))?,
            Parameter::Until => arguments.until = cli::moment(value).map_err(|why| wrong(&why))?,
        }
    }
    for parameter in question.parameters {
        let lacks = match parameter {
            Parameter::Agent => arguments.agent.is_none(),
            Parameter::Resource => arguments.resource.is_none(),
            Parameter::Session => arguments.session.is_none(),
            Parameter::Since | Parameter::Until => false,
        };
        if lacks {
            let name = parameter.name();
            return Err(ConfigError(format!("the question `{}` has to be told {name}: {name}=…", question.name)));
        }
    }
    Ok(arguments)
}

fn print(out: &mut impl Write, answer: &Answer, as_json: bool) -> io::Result<()> {
    if as_json {
        for row in &answer.rows {
            let object: Map<_, _> = answer.columns.iter().cloned().zip(row.iter().cloned()).collect();
            json_line(out, &object)?;
        }
    } else {
        let heads: Vec<_> = answer.columns.iter().map(|name| name.to_uppercase()).collect();
        let heads: Vec<_> = heads.iter().map(String::as_str).collect();
        let cells: Vec<Vec<_>> =
            answer.rows.iter().map(|row| row.iter().map(|value| cut(&cell(value), WIDEST)).collect()).collect();
        table(out, &heads, &cells)?;
    }
    out.flush()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, given: &[&str]) -> Result<Arguments, String> {
        let given: Vec<_> = given.iter().map(|&text| text.to_owned()).collect();
        arguments(Question::named(name).unwrap(), &given).map_err(|error| error.to_string())
    }

    #[test]
    fn parameters_are_checked_and_what_is_wrong_is_said() {
        let all = told("what_did", &["agent=a=b", "since=2h", "until=2026-01-31T12:00:00Z"]).unwrap();
        assert_eq!(all.agent.unwrap(), "a=b");
        assert_eq!(all.until.unix_timestamp(), 1_769_860_800);
        for (name, given, why) in [
            ("what_did", &["since=2h"][..], "has to be told agent"),
            ("what_did", &["agent"], "key=value"),
            ("what_did", &["agent=a", "agent=b"], "twice"),
            ("what_did", &["agent=a", "since=yesterday"], "RFC 3339"),
            ("what_did", &["resource=a"], "takes agent, since, until"),
            ("hosts", &["since=1d"], "takes no parameters"),
            ("session_timeline", &["session=1"], "not a session's id"),
        ] {
            assert!(told(name, given).is_err_and(|error| error.contains(why)), "{name} {given:?}");
        }
    }
}
