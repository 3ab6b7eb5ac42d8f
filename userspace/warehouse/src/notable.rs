//! The list of actions that a security team wants to see, and its way into the warehouse.

use clickhouse::Row;
use serde::Serialize;

use crate::{Warehouse, WarehouseError};

const LIST: &str = include_str!("../data/notable_actions.tsv");

#[derive(Debug, Row, Serialize)]
struct NotableRow {
    list: u32,
    kind: &'static str,
    action: &'static str,
    severity: &'static str,
    reason: &'static str,
}

impl Warehouse {
    /// Brings the list into the warehouse, unless one as new is there: of a fleet's daemons the newest one's counts.
    pub(crate) async fn load_notable_actions(&self) -> Result<(), WarehouseError> {
        let number = number();
        let client = self.client();
        let there = client.query("SELECT max(list) FROM notable_actions").fetch_one::<u32>();
        if self.quickly("read the list of notable actions", there).await? >= number {
            return Ok(());
        }
        // One insert: all of it or nothing. Two daemons at once write the same rows, with the same token.
        let token = format!("notable-actions-{number}");
        let client = self.client().with_setting("insert_deduplication_token", token);
        let loaded = async {
            let mut insert = client.insert::<NotableRow>("notable_actions").await?;
            for row in rows(number) {
                insert.write(&row).await?;
            }
            insert.end().await
        };
        self.quickly("load the list of notable actions", loaded).await
    }
}

/// The number of this program's list.
fn number() -> u32 {
    LIST.lines().find_map(|line| line.strip_prefix("# list ")?.parse().ok()).unwrap_or_default()
}

fn rows(list: u32) -> impl Iterator<Item = NotableRow> {
    LIST.lines().filter(|line| !line.starts_with('#')).filter_map(move |line| {
        let mut fields = line.split('\t');
        let (kind, action) = (fields.next()?, fields.next()?);
        Some(NotableRow { list, kind, action, severity: fields.next()?, reason: fields.next()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_is_whole_sorted_and_there_once() {
        assert!(number() > 0);
        let lines: Vec<_> = LIST.lines().filter(|line| !line.starts_with('#')).collect();
        let rows: Vec<_> = rows(1).collect();
        assert_eq!(rows.len(), lines.len());
        for (row, line) in rows.iter().zip(&lines) {
            assert!(["risk", "secret", "cost"].contains(&row.kind), "{line}");
            assert!(["low", "medium", "high", "critical"].contains(&row.severity), "{line}");
            assert!(row.action.contains(':') && !row.reason.is_empty(), "{line}");
        }
        let keys: Vec<_> = rows.iter().map(|row| (row.kind, row.action)).collect();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(keys, sorted, "sorted, and each once");
    }
}
