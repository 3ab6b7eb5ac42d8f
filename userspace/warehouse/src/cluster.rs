//! The same schema for a cluster: of each statement for one server, the one that makes it on all replicas.
//!
//! One shape: a cluster with one shard, whose servers are replicas of each other. Each has all rows, so questions are
//! answered as by one server, and a batch's token is known to all of them. Rows parted over shards would make every join
//! and subquery of the questions a distributed one; millions of calls a day don't need it.

use clickhouse::Row;
use serde::Deserialize;

use crate::{Warehouse, WarehouseError};

const WINDOW: &str = "non_replicated_deduplication_window = 10000";
/// Tokens are known for as many inserts, and for a week: longer than anybody leaves a batch under way.
const REPLICATED_WINDOW: &str =
    "replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800";
const KINDS: &[&str] = &[
    "CREATE DATABASE IF NOT EXISTS ",
    "CREATE TABLE IF NOT EXISTS ",
    "CREATE VIEW IF NOT EXISTS ",
    "CREATE OR REPLACE VIEW ",
    "CREATE MATERIALIZED VIEW IF NOT EXISTS ",
    "ALTER TABLE ",
];

#[derive(Row, Deserialize)]
struct Shards {
    shards: u64,
    known: Vec<String>,
}

impl Warehouse {
    /// Whether the cluster is there, and of the shape that the schema is for.
    pub(crate) async fn check_cluster(&self) -> Result<(), WarehouseError> {
        let Some(cluster) = &self.config().cluster else { return Ok(()) };
        let query = "SELECT uniqExactIf(shard_num, cluster = ?) AS shards, groupUniqArray(100)(toString(cluster)) AS known \
                     FROM system.clusters";
        let client = self.bare_client();
        let asked = client.query(query).bind(cluster).fetch_one::<Shards>();
        let found = self.quickly("ask for its clusters", asked).await?;
        let why = match found.shards {
            0 if found.known.is_empty() => format!("the server knows no cluster, and so none named `{cluster}`"),
            0 => format!("the server knows no cluster `{cluster}`; it knows {}", found.known.join(", ")),
            1 => return Ok(()),
            many => format!(
                "the cluster `{cluster}` has {many} shards; the tables are made for one shard with any number of replicas: \
                 name a cluster like that (docs/operate.md)"
            ),
        };
        Err(WarehouseError::Config { setting: "cluster".into(), why })
    }

    /// The statement as it is to be run here.
    pub(crate) fn placed(&self, statement: &str) -> String {
        match &self.config().cluster {
            Some(cluster) => on_cluster(statement, cluster),
            None => statement.to_owned(),
        }
    }
}

/// The statement that does on all of a cluster what `statement` does on one server. Inserts are as they are: replicas
/// share rows.
pub(crate) fn on_cluster(statement: &str, cluster: &str) -> String {
    let Some(kind) = KINDS.iter().find(|kind| statement.starts_with(*kind)) else { return statement.to_owned() };
    let rest = &statement[kind.len()..];
    let (name, rest) = rest.split_at(rest.find([' ', '\n']).unwrap_or(rest.len()));
    let rest = if *kind == "CREATE TABLE IF NOT EXISTS " { replicated(rest, cluster) } else { rest.to_owned() };
    format!("{kind}{name} ON CLUSTER '{cluster}'{rest}")
}

/// A table's definition, for one whose replicas meet at a path of the cluster's, the database's and the table's names. Not
/// of the table's id: a server that joins later makes its tables itself, and they must be replicas of those that are there.
fn replicated(definition: &str, cluster: &str) -> String {
    let Some((columns, engine)) = definition.split_once("ENGINE = ") else { return definition.to_owned() };
    let (engine, rest) = engine.split_at(engine.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(engine.len()));
    let (arguments, rest) = match rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((arguments, rest)) => (format!(", {arguments}"), rest),
        None => (String::new(), rest),
    };
    let path = format!("'/clickhouse/chaperone/{cluster}/{{database}}/{{table}}', '{{replica}}'");
    let rest = rest.replace(WINDOW, REPLICATED_WINDOW);
    format!("{columns}ENGINE = Replicated{engine}({path}{arguments}){rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::{MIGRATIONS_TABLE, STEPS, statements};

    #[test]
    fn every_statement_is_made_for_all_replicas() {
        let every = STEPS.iter().flat_map(|(_, sql)| statements(sql)).chain([MIGRATIONS_TABLE.to_owned()]);
        for statement in every {
            let placed = on_cluster(&statement, "c");
            if statement.starts_with("INSERT INTO ") {
                assert_eq!(placed, statement);
                continue;
            }
            assert_eq!(placed.matches(" ON CLUSTER 'c'").count(), 1, "{statement}");
            if statement.starts_with("CREATE TABLE") {
                assert_eq!(placed.matches("ENGINE = Replicated").count(), 1, "{placed}");
                assert!(!placed.contains("non_replicated"), "{placed}");
                assert!(!statement.contains(WINDOW) || placed.contains(REPLICATED_WINDOW), "{placed}");
            } else {
                assert_eq!(placed.replace(" ON CLUSTER 'c'", ""), statement);
            }
        }
        let made = "CREATE TABLE IF NOT EXISTS t (\n  a UInt8\n) ENGINE = ReplacingMergeTree(a)\nORDER BY a\n\
                    SETTINGS non_replicated_deduplication_window = 10000";
        assert_eq!(
            on_cluster(made, "c"),
            "CREATE TABLE IF NOT EXISTS t ON CLUSTER 'c' (\n  a UInt8\n) ENGINE = ReplicatedReplacingMergeTree(\
             '/clickhouse/chaperone/c/{database}/{table}', '{replica}', a)\nORDER BY a\nSETTINGS \
             replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800"
        );
        assert_eq!(on_cluster("ALTER TABLE t REMOVE TTL", "c"), "ALTER TABLE t ON CLUSTER 'c' REMOVE TTL");
    }
}
