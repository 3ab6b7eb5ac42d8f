//! How long tables keep their rows and where, by configuration: applied when the schema is, and each change on record.
//!
//! Only tables that the configuration names are touched, so that of a fleet's daemons one may say it for all. What rows
//! are deleted by is the time at which they happened, not the time at which they came.

use clickhouse::Row;
use serde::{Deserialize, Serialize};

use crate::{Warehouse, WarehouseError, kept::time_column};

/// How a table keeps its rows now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableState {
    /// Its name.
    pub table: String,
    /// After how many days rows are deleted; `None` is never.
    pub ttl_days: Option<u32>,
    /// Whether another TTL holds than one that this program makes.
    pub other_ttl: bool,
    /// Its storage policy.
    pub storage_policy: String,
    /// Rows, those that a merge will remove included.
    pub rows: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

#[derive(Row, Deserialize)]
struct Found {
    name: String,
    engine_full: String,
    storage_policy: String,
    rows: u64,
    bytes: u64,
}

#[derive(Row, Serialize)]
struct ChangeRow<'a> {
    node: &'a str,
    table_name: &'a str,
    ttl_days_before: u32,
    ttl_days: u32,
    storage_policy_before: &'a str,
    storage_policy: &'a str,
}

impl Warehouse {
    /// How the tables keep their rows now, by name.
    pub async fn tables(&self) -> Result<Vec<TableState>, WarehouseError> {
        let query = "SELECT name, engine_full, storage_policy, ifNull(total_rows, 0) AS rows, \
                     ifNull(total_bytes, 0) AS bytes FROM system.tables WHERE database = ? ORDER BY name";
        // The database may not be there yet.
        let client = self.bare_client();
        let asked = client.query(query).bind(&self.config().database).fetch_all::<Found>();
        let found = self.quickly("ask how tables keep their rows", asked).await?;
        let kept = found.into_iter().filter(|table| time_column(&table.name).is_some());
        Ok(kept
            .map(|found| {
                let ttl = ttl(&found.engine_full);
                TableState {
                    ttl_days: ttl.and_then(days),
                    other_ttl: ttl.is_some_and(|ttl| days(ttl).is_none()),
                    table: found.name,
                    storage_policy: found.storage_policy,
                    rows: found.rows,
                    bytes: found.bytes,
                }
            })
            .collect())
    }

    /// Has the tables keep their rows as the configuration says; nothing where they do.
    pub(crate) async fn keep_rows(&self) -> Result<(), WarehouseError> {
        if self.config().tables.is_empty() {
            return Ok(());
        }
        let tables = self.tables().await?;
        for (name, wanted) in &self.config().tables {
            let column = time_column(name).unwrap_or_default();
            let Some(now) = tables.iter().find(|table| table.table == *name) else {
                let why = "ClickHouse doesn't show this table to the user".to_owned();
                return Err(WarehouseError::Config { setting: format!("tables.{name}"), why });
            };
            let days = wanted.ttl_days.filter(|days| now.other_ttl || *days != now.ttl_days.unwrap_or(0));
            let policy = wanted.storage_policy.as_deref().filter(|policy| *policy != now.storage_policy);
            if days.is_none() && policy.is_none() {
                continue;
            }
            // On record before it is done, so that no row is deleted by what nobody can find.
            let change = ChangeRow {
                node: &self.config().node,
                table_name: name,
                ttl_days_before: now.ttl_days.unwrap_or(0),
                ttl_days: days.or(now.ttl_days).unwrap_or(0),
                storage_policy_before: &now.storage_policy,
                storage_policy: policy.unwrap_or(&now.storage_policy),
            };
            let noted = async {
                let mut insert = self.client().insert::<ChangeRow<'_>>("retention_changes").await?;
                insert.write(&change).await?;
                insert.end().await
            };
            self.quickly(&format!("record that `{name}` is to keep its rows otherwise"), noted).await?;
            if let Some(policy) = policy {
                let sql = format!("ALTER TABLE {name} MODIFY SETTING storage_policy = '{policy}'");
                self.set(name, "storage_policy", &sql).await?;
            }
            match days {
                Some(0) if now.ttl_days.is_some() || now.other_ttl => {
                    self.set(name, "ttl_days", &format!("ALTER TABLE {name} REMOVE TTL")).await?;
                }
                Some(days) if days != 0 => {
                    let sql = format!("ALTER TABLE {name} MODIFY TTL toDateTime({column}) + toIntervalDay({days})");
                    self.set(name, "ttl_days", &sql).await?;
                }
                _ => {}
            }
            tracing::warn!(
                table = name,
                ttl_days_before = change.ttl_days_before,
                ttl_days = change.ttl_days,
                storage_policy = change.storage_policy,
                "the configuration has this table keep its rows otherwise than before"
            );
        }
        Ok(())
    }

    async fn set(&self, table: &str, key: &str, sql: &str) -> Result<(), WarehouseError> {
        self.statement(&self.client(), sql).await.map_err(|error| match error {
            WarehouseError::ClickHouse { doing, url, source } => WarehouseError::ClickHouse {
                doing: format!("apply warehouse.tables.{table}.{key} ({doing})"),
                url,
                source,
            },
            other => other,
        })
    }
}

/// A table's TTL, as ClickHouse writes it behind the engine.
fn ttl(engine_full: &str) -> Option<&str> {
    let (_, rest) = engine_full.split_once(" TTL ")?;
    Some(rest.split_once(" SETTINGS ").map_or(rest, |(ttl, _)| ttl))
}

/// The days of a TTL that this program made.
fn days(ttl: &str) -> Option<u32> {
    let (column, days) = ttl.strip_prefix("toDateTime(")?.split_once(") + toIntervalDay(")?;
    let is_name = column.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    days.strip_suffix(')')?.parse().ok().filter(|_| is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_read_as_clickhouse_writes_it() {
        let of = |engine: &str| (ttl(engine).and_then(days), ttl(engine).is_some());
        let made = "ReplacingMergeTree PARTITION BY toYYYYMM(at) ORDER BY (tenant, at) TTL toDateTime(at) + \
                    toIntervalDay(90) SETTINGS index_granularity = 8192";
        assert_eq!(of(made), (Some(90), true));
        assert_eq!(of("MergeTree ORDER BY a TTL toDateTime(at) + toIntervalDay(400)"), (Some(400), true));
        assert_eq!(of("MergeTree ORDER BY a SETTINGS index_granularity = 8192"), (None, false));
        for other in [
            "toDateTime(at) + toIntervalMonth(3)",
            "at + toIntervalDay(3)",
            "toDateTime(at) + toIntervalDay(3) RECOMPRESS CODEC(ZSTD(9))",
        ] {
            assert_eq!(of(&format!("MergeTree ORDER BY a TTL {other}")), (None, true), "{other}");
        }
    }
}
