//! The schema, by version: each step is applied once, in order, and noted in `schema_migrations`.

use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};

use crate::{Warehouse, WarehouseError};

/// Name and statements of each version, the first being version 1. A published step is never changed.
///
/// A program that was rolled back meets steps of a later version. It goes on with them if each says, in the column
/// `needs` of `schema_migrations`, that a program which knows this one's version can: new tables, and columns that have a
/// `DEFAULT`. Steps that don't say so need a program that knows them.
const STEPS: &[(&str, &str)] = &[
    ("tables", include_str!("../migrations/0001_tables.sql")),
    ("views", include_str!("../migrations/0002_views.sql")),
    ("commands", include_str!("../migrations/0003_commands.sql")),
    ("containers", include_str!("../migrations/0004_containers.sql")),
    ("events", include_str!("../migrations/0005_events.sql")),
    ("identities", include_str!("../migrations/0006_identities.sql")),
    ("questions", include_str!("../migrations/0007_questions.sql")),
    ("comments", include_str!("../migrations/0008_comments.sql")),
    ("parents", include_str!("../migrations/0009_parents.sql")),
    ("unmasked", include_str!("../migrations/0010_unmasked.sql")),
];

#[derive(Row, Serialize, Deserialize)]
struct Applied {
    version: u32,
    name: String,
    needs: u32,
}

impl Warehouse {
    /// Makes the database and brings its schema up to date. Safe to do at every start, and by several at a time:
    /// every statement does nothing where its work is done.
    pub async fn migrate(&self) -> Result<(), WarehouseError> {
        let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
        let query = "SELECT max(version), max(needs) FROM schema_migrations";
        // A user who may write rows, and nothing else, is enough where the schema is as it has to be.
        let there = self.client().query(query).fetch_one::<(u32, u32)>().await;
        if there.is_ok_and(|(found, needs)| found == known && needs <= known) {
            return self.load_notable_actions().await;
        }
        let bare = self.bare_client();
        let database = &self.config().database;
        self.statement(bare, &format!("CREATE DATABASE IF NOT EXISTS `{database}`")).await?;
        let made = "CREATE TABLE IF NOT EXISTS schema_migrations (version UInt32, name String, \
                    at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = ReplacingMergeTree ORDER BY version";
        self.statement(self.client(), made).await?;
        let needs = "ALTER TABLE schema_migrations ADD COLUMN IF NOT EXISTS needs UInt32 DEFAULT version \
                     COMMENT 'the version that a program must know to use this one'";
        self.statement(self.client(), needs).await?;
        self.client().clear_cached_metadata().await;
        let found = self.client().query(query).fetch_one::<(u32, u32)>().await;
        let (found, needs) = found.map_err(|source| self.failed("read the schema's version", source))?;
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
        for (version, (name, sql)) in (1..).zip(STEPS).skip(found as usize) {
            for statement in statements(sql) {
                self.statement(self.client(), &statement).await?;
            }
            let row = Applied { version, name: (*name).to_owned(), needs: version };
            let noted = async {
                let mut insert = self.client().insert::<Applied>("schema_migrations").await?;
                insert.write(&row).await?;
                insert.end().await
            };
            noted.await.map_err(|source| self.failed("note the schema's version", source))?;
            tracing::info!(version, name, database, "the warehouse's schema was brought up to date");
        }
        self.load_notable_actions().await?;
        self.client().clear_cached_metadata().await;
        Ok(())
    }

    pub(crate) async fn statement(&self, client: &Client, sql: &str) -> Result<(), WarehouseError> {
        let first = sql.lines().next().unwrap_or_default();
        client.query_raw(sql).execute().await.map_err(|source| self.failed(&format!("run `{first}`"), source))
    }
}

/// The statements of a script: they end with `;` at a line's end. Comments on lines of their own are left out.
fn statements(sql: &str) -> Vec<String> {
    let code: Vec<_> = sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    let code = code.join("\n");
    code.split(";\n").map(|statement| statement.trim().to_owned()).filter(|statement| !statement.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_made_of_whole_statements_that_can_be_repeated() {
        for (name, sql) in STEPS {
            let statements = statements(sql);
            assert!(!statements.is_empty(), "{name}");
            for statement in statements {
                let repeats = statement.starts_with("CREATE OR REPLACE VIEW ")
                    || statement.starts_with("CREATE ") && statement.contains("IF NOT EXISTS")
                    || statement.starts_with("ALTER TABLE ") && statement.contains("ADD COLUMN IF NOT EXISTS")
                    || statement.starts_with("ALTER TABLE ") && statement.contains("ADD INDEX IF NOT EXISTS")
                    || statement.starts_with("ALTER TABLE ") && statement.contains(" COMMENT")
                    // A table of minima: what is there twice changes nothing.
                    || statement.starts_with("INSERT INTO first_uses\n");
                assert!(repeats, "{name}: {statement}");
                // A version that was rolled back inserts without the columns that it doesn't know.
                let old = ["commands", "containers"].contains(name);
                let columns = statement.matches("ADD COLUMN").count();
                assert!(old || columns <= statement.matches(" DEFAULT ").count(), "{name}: {statement}");
                assert!(!statement.contains("MergeTree") || statement.contains("deduplication_window"), "{statement}");
            }
        }
    }
}
