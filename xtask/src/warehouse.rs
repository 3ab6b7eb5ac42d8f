//! `cargo xtask warehouse`: a made-up past for a ClickHouse, and what the questions of `docs/queries.md` take on it.
//!
//! The past is made by `warehouse/fill.sql` from a seed, in ClickHouse itself; every row's tenant is `generated`. The
//! schema must be there: a daemon makes it at its start.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};

use crate::place;

/// So many calls go in with one statement: it holds them in memory.
const AT_ONCE: u64 = 1_000_000;
/// How many calls a session has.
const CALLS_OF_A_SESSION: u64 = 250;
/// A statement that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_mins(30);
/// A question about a week may take so long.
const BEARABLE: Duration = Duration::from_secs(1);
/// An answer's lines are cut to what a page holds.
const WIDEST: usize = 150;

/// Arguments of `cargo xtask warehouse`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(subcommand)]
    what: What,
    /// ClickHouse's HTTP interface, without TLS.
    #[arg(long, global = true, default_value = "127.0.0.1:8123")]
    address: String,
    /// The database.
    #[arg(long, global = true, default_value = "chaperone")]
    database: String,
}

impl Options {
    /// The arguments that make a month of 50 agents, for who has to run this program in a lab's namespaces.
    pub const fn month<'a>(address: &'a str, database: &'a str) -> [&'a str; 12] {
        [
            "warehouse",
            "fill",
            "--calls",
            "300000",
            "--agents",
            "50",
            "--days",
            "30",
            "--address",
            address,
            "--database",
            database,
        ]
    }
}

#[derive(Debug, Subcommand)]
enum What {
    /// Fill it with calls that nobody made.
    Fill {
        /// How many calls.
        #[arg(long, default_value_t = 10_000_000)]
        calls: u64,
        /// Of how many agents.
        #[arg(long, default_value_t = 200)]
        agents: u64,
        /// Over how many days.
        #[arg(long, default_value_t = 90)]
        days: u64,
        /// The same seed makes the same calls, but for their times: those end now.
        #[arg(long, default_value_t = 7)]
        seed: u64,
    },
    /// Ask every question of docs/queries.md, and fail if one takes longer than a second.
    Time {
        /// Write answers and times into docs/queries.md.
        #[arg(long)]
        write: bool,
    },
}

/// Does it.
pub fn run(options: &Options) -> Result<()> {
    let server = Server { address: &options.address, database: &options.database };
    match options.what {
        What::Fill { calls, agents, days, seed } => {
            ensure!(calls > 0 && agents > 0 && days > 0, "--calls, --agents and --days must be at least 1");
            fill(&server, calls, agents, days, seed)
        }
        What::Time { write } => time(&server, write),
    }
}

struct Server<'a> {
    address: &'a str,
    database: &'a str,
}

impl Server<'_> {
    /// One statement, and what it answers.
    fn ask(&self, sql: &str, format: &str) -> Result<String> {
        let began = sql.lines().next().unwrap_or_default();
        let doing = || format!("asking ClickHouse at {} to run `{began}`", self.address);
        let mut stream = TcpStream::connect(self.address).with_context(doing)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // HTTP/1.0: the answer comes as it is, and ends with the connection.
        write!(
            stream,
            "POST /?database={}&default_format={format}&wait_end_of_query=1 HTTP/1.0\r\nHost: clickhouse\r\n\
             Content-Length: {}\r\n\r\n{sql}",
            self.database,
            sql.len()
        )
        .with_context(doing)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(doing)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("ClickHouse's answer has no end of its head")?;
        if head.split(' ').nth(1) != Some("200") {
            bail!("{}: {}", doing(), body.trim());
        }
        Ok(body.to_owned())
    }
}

fn fill(server: &Server<'_>, calls: u64, agents: u64, days: u64, seed: u64) -> Result<()> {
    let whole = Instant::now();
    let there: u64 = server.ask("SELECT count() FROM calls WHERE tenant = 'generated'", "TSV")?.trim().parse()?;
    ensure!(there == 0, "{there} generated calls are there already: use another database");
    let sessions = (calls / CALLS_OF_A_SESSION).max(1);
    let numbers = BTreeMap::from([
        ("{calls}", calls),
        ("{agents}", agents.min(sessions)),
        ("{days}", days),
        ("{seed}", seed),
        ("{sessions}", sessions),
    ]);
    for statement in statements(include_str!("../warehouse/fill.sql")) {
        let sql = numbers.iter().fold(statement, |sql, (name, value)| sql.replace(name, &value.to_string()));
        let parts = if sql.contains("{from}") { calls.div_ceil(AT_ONCE) } else { 1 };
        let began = Instant::now();
        for part in 0..parts {
            let from = part * AT_ONCE;
            let many = AT_ONCE.min(calls.saturating_sub(from));
            server.ask(&sql.replace("{from}", &from.to_string()).replace("{many}", &many.to_string()), "TSV")?;
        }
        let table = sql.split(' ').nth(2).unwrap_or_default();
        println!("{table:<20} {:>7.1} s", began.elapsed().as_secs_f64());
    }
    println!("{calls} calls of {agents} agents over {days} days: {:.0} s", whole.elapsed().as_secs_f64());
    Ok(())
}

/// The statements of a script: they end with `;` at a line's end.
fn statements(sql: &str) -> Vec<String> {
    let code: Vec<_> = sql.lines().filter(|line| !line.starts_with("--")).collect();
    let code = code.join("\n") + "\n";
    code.split(";\n").map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()).collect()
}

fn time(server: &Server<'_>, write: bool) -> Result<()> {
    let path = place::root().join("docs/queries.md");
    let docs = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let calls = server.ask("SELECT count() FROM calls", "TSV")?;
    let calls = calls.trim();
    let mut sections = docs.split("\n## ").map(str::to_owned).collect::<Vec<_>>();
    let mut slow = Vec::new();
    for section in &mut sections {
        let Some((before, rest)) = section.split_once("```sql\n") else { continue };
        let (sql, _) = rest.split_once("\n```").context("a query of docs/queries.md has no end")?;
        let name = before.split(':').next().unwrap_or_default().to_owned();
        // The second time, as it is when somebody looks twice; and over all that there is.
        server.ask(sql, "Null")?;
        let (answer, took) = timed(server, sql, "PrettySpaceNoEscapes")?;
        let (_, took_all) = timed(server, &over_all(sql), "Null")?;
        println!("{name:<24} {:>6.3} s   over 90 days {:>6.3} s", took.as_secs_f64(), took_all.as_secs_f64());
        if took > BEARABLE {
            slow.push(name);
        }
        let shown: Vec<String> = answer
            .lines()
            .map(|line| line.trim_end().chars().take(WIDEST).collect::<String>())
            .filter(|line| !line.is_empty())
            .collect();
        *section = format!(
            "{before}```sql\n{sql}\n```\n\n```text\n{}\n```\n\nTook {:.3} s on {calls} calls; {:.3} s over all 90 days of them.\n",
            shown.join("\n"),
            took.as_secs_f64(),
            took_all.as_secs_f64()
        );
    }
    if write {
        fs::write(&path, sections.join("\n## ")).with_context(|| format!("writing {}", path.display()))?;
    }
    ensure!(slow.is_empty(), "these took longer than {} s: {}", BEARABLE.as_secs(), slow.join(", "));
    Ok(())
}

fn timed(server: &Server<'_>, sql: &str, format: &str) -> Result<(String, Duration)> {
    let began = Instant::now();
    let answer = server.ask(sql, format)?;
    Ok((answer, began.elapsed()))
}

/// The questions of docs/queries.md: each with what it asks, and the query.
pub fn questions() -> Result<Vec<(String, String)>> {
    let path = place::root().join("docs/queries.md");
    let docs = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let asked = docs.split("\n## ").filter_map(|section| {
        let (_, rest) = section.split_once("```sql\n")?;
        let (sql, _) = rest.split_once("\n```")?;
        Some((section.lines().next()?.to_owned(), sql.to_owned()))
    });
    Ok(asked.collect())
}

/// The query over the whole time that is filled.
fn over_all(sql: &str) -> String {
    sql.replace("INTERVAL 7 DAY", "INTERVAL 90 DAY").replace("INTERVAL 85 DAY", "INTERVAL 90 DAY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_up_is_marked() {
        for statement in statements(include_str!("../warehouse/fill.sql")) {
            assert!(statement.starts_with("INSERT INTO "), "{statement}");
            assert!(statement.contains("'generated'"), "{statement}");
        }
    }
}
