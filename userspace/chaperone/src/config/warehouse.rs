//! `[warehouse]`: ClickHouse.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

chaperone_model::documented! {
/// ClickHouse.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WarehouseSection {
    /// Its HTTP interface, such as `https://clickhouse.example.com:8443`.
    pub url: String,
    /// The database; made if the user may.
    #[serde(default = "default_database")]
    pub database: String,
    /// The user; ClickHouse's default one if not given.
    pub user: Option<String>,
    /// A file with the password in it, readable by root alone.
    pub password_file: Option<PathBuf>,
    /// CA certificates (PEM) to verify it by, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whose rows these are, where several share a database.
    #[serde(default)]
    pub tenant: String,
}
}

fn default_database() -> String {
    "chaperone".into()
}
