//! The schema is brought up to date: each step is applied once, in order, and noted in `schema_migrations`.

use std::time::Duration;

use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};

use crate::{
    Warehouse, WarehouseError,
    steps::{MIGRATIONS_TABLE, STEPS, statements},
};

/// A statement of the schema's that takes longer hangs: the longest fill an aggregate from all calls.
const PATIENCE: Duration = Duration::from_mins(30);

#[derive(Row, Serialize, Deserialize)]
struct Applied {
    version: u32,
    name: String,
    needs: u32,
}

impl Warehouse {
    /// Makes the database and brings its schema up to date. Safe to do at every start, and by several at a time:
    /// every statement does nothing where its work is done. How tables keep their rows is `keep_rows`'s.
    pub async fn migrate(&self) -> Result<(), WarehouseError> {
        self.ping().await?;
        let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
        let query = "SELECT max(version), max(needs) FROM schema_migrations";
        // A user who may write rows, and nothing else, is enough where the schema is as it has to be.
        let client = self.client();
        let there = self.quickly("read the schema's version", client.query(query).fetch_one::<(u32, u32)>()).await;
        let present = self.present().await?;
        // A replica that joins gets what versions are noted in before it has the tables.
        let is_whole = self.config().cluster.is_none() || present.first_missing() > known;
        if is_whole && there.is_ok_and(|(found, needs)| found == known && needs <= known) {
            return self.load_notable_actions().await;
        }
        self.check_cluster().await?;
        let database = &self.config().database;
        self.check_noted(&present)?;
        self.statement(&self.bare_client(), &format!("CREATE DATABASE IF NOT EXISTS `{database}`")).await?;
        self.statement(&self.client(), MIGRATIONS_TABLE).await?;
        let needs = "ALTER TABLE schema_migrations ADD COLUMN IF NOT EXISTS needs UInt32 DEFAULT version \
                     COMMENT 'the version that a program must know to use this one'";
        self.statement(&self.client(), needs).await?;
        self.client().clear_cached_metadata().await;
        let client = self.client();
        let found = self.quickly("read the schema's version", client.query(query).fetch_one::<(u32, u32)>()).await;
        let (found, needs) = found?;
        if needs > known {
            return Err(WarehouseError::NewerSchema { database: database.clone(), found, known });
        }
        if found > known {
            tracing::info!(
                found,
                known,
                database,
                "the warehouse's schema is a later version's, which this one can use"
            );
        }
        self.check_present(&present, found)?;
        // What somebody dropped, or a replica that joined hasn't got, is made again.
        let from = found.min(present.first_missing() - 1);
        for (version, (name, sql)) in (1..).zip(STEPS).skip(from as usize) {
            for statement in statements(sql) {
                self.statement(&self.client(), &statement).await?;
            }
            let row = Applied { version, name: (*name).to_owned(), needs: version };
            let noted = async {
                let mut insert = self.client().insert::<Applied>("schema_migrations").await?;
                insert.write(&row).await?;
                insert.end().await
            };
            self.within(PATIENCE, "note the schema's version", noted).await?;
            tracing::info!(version, name, database, "the warehouse's schema was brought up to date");
        }
        self.load_notable_actions().await?;
        self.client().clear_cached_metadata().await;
        Ok(())
    }

    /// The schema's version, and the one that this program knows; `None` where there is no schema.
    pub async fn schema_version(&self) -> Result<(Option<u32>, u32), WarehouseError> {
        let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
        let present = self.present().await?;
        if !present.has("schema_migrations") {
            return Ok((None, known));
        }
        self.check_noted(&present)?;
        let client = self.client();
        let asked = client.query("SELECT max(version) FROM schema_migrations").fetch_one::<u32>();
        Ok((Some(self.quickly("read the schema's version", asked).await?), known))
    }

    /// Brings the schema up to date, and has the tables keep their rows as the configuration says.
    pub async fn prepare(&self) -> Result<(), WarehouseError> {
        self.migrate().await?;
        self.keep_rows().await
    }

    pub(crate) async fn statement(&self, client: &Client, sql: &str) -> Result<(), WarehouseError> {
        let placed = self.placed(sql);
        let first = placed.lines().next().unwrap_or_default();
        self.within(PATIENCE, &format!("run `{first}`"), client.query_raw(&placed).execute()).await
    }
}
