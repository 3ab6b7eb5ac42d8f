//! Which store an address leads to: what exactly-once needs to know where there are several.
//!
//! Whether a batch was taken already is known to the tables' own tokens, which replicas share and other servers don't. So
//! records go on to another address only where it leads to the same tables.

use clickhouse::Row;
use serde::Deserialize;

use crate::{Warehouse, WarehouseError};

#[derive(Row, Deserialize)]
struct CallsTable {
    engine: String,
    engine_full: String,
    uuid: String,
}

impl Warehouse {
    /// What tells this store from others: where its replicas meet, or the table's own id. `None` where ClickHouse gives
    /// tables none (databases with the engine Ordinary).
    pub(crate) async fn store(&self) -> Result<Option<String>, WarehouseError> {
        let query = "SELECT engine, engine_full, toString(uuid) AS uuid FROM system.tables \
                     WHERE database = ? AND name = 'calls'";
        let client = self.client();
        let asked = client.query(query).bind(&self.config().database).fetch_optional::<CallsTable>();
        let Some(table) = self.quickly("ask which store it is", asked).await? else {
            return Err(WarehouseError::Row {
                table: "system.tables",
                why: "it doesn't show the table `calls`".into(),
            });
        };
        if self.config().cluster.is_some() && is_of_one_server(&table.engine) {
            let why = "warehouse.cluster is set, and this table has no replicas: name another database, into which the \
                       records are shipped anew, or have it made a replicated one";
            let database = self.config().database.clone();
            return Err(WarehouseError::ForeignTable { database, table: "calls".into(), why: why.into() });
        }
        Ok(identity(&table.engine, &table.engine_full, &table.uuid))
    }
}

/// Whether no other server has the table's rows.
fn is_of_one_server(engine: &str) -> bool {
    !engine.starts_with("Replicated") && !engine.starts_with("Shared")
}

fn identity(engine: &str, engine_full: &str, uuid: &str) -> Option<String> {
    let own = uuid.bytes().any(|byte| byte != b'0' && byte != b'-').then(|| uuid.to_owned());
    if is_of_one_server(engine) {
        return own;
    }
    // ReplicatedReplacingMergeTree('/path/in/keeper', '{replica}') ORDER BY …
    let path = engine_full.split_once("('").and_then(|(_, rest)| rest.split_once('\'')).map(|(path, _)| path);
    match path {
        Some(path) if !path.contains("{uuid}") => Some(path.to_owned()),
        _ => own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_one_store_and_servers_that_share_nothing_are_not() {
        let (a, b) = ("6f1c0e5e-0000-4000-8000-000000000001", "6f1c0e5e-0000-4000-8000-000000000002");
        let plain = |uuid| identity("ReplacingMergeTree", "ReplacingMergeTree ORDER BY a", uuid);
        assert_eq!(plain(a).as_deref(), Some(a));
        assert_ne!(plain(a), plain(b));
        assert_eq!(plain("00000000-0000-0000-0000-000000000000"), None);
        let replica = |path: &str, uuid| {
            let full = format!("ReplicatedReplacingMergeTree('{path}', '{{replica}}') ORDER BY a");
            identity("ReplicatedReplacingMergeTree", &full, uuid)
        };
        assert_eq!(replica("/a/{database}/{table}", a), replica("/a/{database}/{table}", b));
        assert_ne!(replica("/a/{table}", a), replica("/b/{table}", a));
        assert_ne!(replica("/a/{uuid}", a), replica("/a/{uuid}", b));
        assert_eq!(identity("SharedReplacingMergeTree", "SharedReplacingMergeTree ORDER BY a", a).as_deref(), Some(a));
    }
}
