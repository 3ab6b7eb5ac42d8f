//! A handle to the warehouse.

use clickhouse::Client;

use crate::{WarehouseConfig, WarehouseError};

/// The warehouse. Cheap to clone; connections are made when needed.
#[derive(Clone)]
pub struct Warehouse {
    config: WarehouseConfig,
    bare: Client,
    client: Client,
}

impl std::fmt::Debug for Warehouse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warehouse").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Warehouse {
    /// A handle; talks to nobody yet.
    pub fn new(config: WarehouseConfig) -> Result<Self, WarehouseError> {
        let bare = config.client()?;
        let client = bare.clone().with_database(&config.database);
        Ok(Self { config, bare, client })
    }

    /// Its configuration.
    pub const fn config(&self) -> &WarehouseConfig {
        &self.config
    }

    /// Asks ClickHouse for its version: whether it is there and lets us in.
    pub async fn ping(&self) -> Result<String, WarehouseError> {
        let version = self.bare.query("SELECT version()").fetch_one::<String>().await;
        version.map_err(|source| self.failed("ask for its version", source))
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) const fn bare_client(&self) -> &Client {
        &self.bare
    }

    pub(crate) fn failed(&self, doing: &str, source: clickhouse::error::Error) -> WarehouseError {
        let url = self.config.url.clone();
        WarehouseError::ClickHouse { doing: doing.to_owned(), url, source }
    }
}
