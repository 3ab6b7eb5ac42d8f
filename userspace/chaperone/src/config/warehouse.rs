//! `[warehouse]`: ClickHouse.

use std::{collections::BTreeMap, path::PathBuf};

use chaperone_warehouse::{TableSettings, WarehouseConfig};
use serde::{Deserialize, Serialize};

chaperone_model::documented! {
/// ClickHouse.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WarehouseSection {
    /// Its HTTP interface, such as `https://clickhouse.example.com:8443`.
    #[serde(default)]
    pub url: String,
    /// More addresses, tried in this order after `url` (which may then be missing) when one fails: of the same server, or of
    /// replicas of the same tables (docs/operate.md).
    #[serde(default)]
    pub urls: Vec<String>,
    /// The database; made if the user may.
    #[serde(default = "default_database")]
    pub database: String,
    /// The user; ClickHouse's default one if not given.
    pub user: Option<String>,
    /// A file with the password in it, readable by root alone. A file that is exchanged is in force within seconds; so are
    /// those with certificates.
    pub password_file: Option<PathBuf>,
    /// CA certificates (PEM) to verify it by, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// A certificate (PEM, with those between it and the server's CA) to show it.
    pub client_cert_file: Option<PathBuf>,
    /// That certificate's key (PEM), readable by root alone.
    pub client_key_file: Option<PathBuf>,
    /// A cluster of one shard, as the servers' configuration names it, on whose replicas the tables are made
    /// (docs/operate.md). Without it, on one server.
    pub cluster: Option<String>,
    /// How tables keep their rows, as in `tables.ledger = { ttl_days = 400, storage_policy = "cold" }`: deleted after so many
    /// days (30 at least; 0 is never), and where. What isn't said stays as it is.
    #[serde(default)]
    pub tables: BTreeMap<String, TableSettings>,
    /// Whose rows these are, where several share a database.
    #[serde(default)]
    pub tenant: String,
}
}

impl WarehouseSection {
    /// The warehouse's own configuration, on this node.
    pub fn config(&self, node: String) -> WarehouseConfig {
        let first = Some(&self.url).filter(|url| !url.is_empty());
        WarehouseConfig {
            urls: first.into_iter().chain(&self.urls).cloned().collect(),
            database: self.database.clone(),
            user: self.user.clone(),
            password_file: self.password_file.clone(),
            ca_file: self.ca_file.clone(),
            client_cert_file: self.client_cert_file.clone(),
            client_key_file: self.client_key_file.clone(),
            cluster: self.cluster.clone(),
            tables: self.tables.clone(),
            tenant: self.tenant.clone(),
            node,
        }
    }
}

fn default_database() -> String {
    "chaperone".into()
}
