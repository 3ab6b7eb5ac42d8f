//! What of the schema is there already, and whether it is ours: before a statement of the migrations changes anything.

use clickhouse::Row;
use serde::Deserialize;

use crate::{
    Warehouse, WarehouseError,
    steps::{MIGRATIONS_TABLE, STEPS, statements},
};

/// Something that the migrations make.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) name: String,
    /// The first version that makes it; 0 for what versions are noted in.
    pub(crate) version: u32,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Its engine without what a cluster puts before it, and the key by which rows are sorted, as ClickHouse writes it.
    Table {
        engine: String,
        key: String,
    },
    View,
    MaterializedView,
}

#[derive(Row, Deserialize)]
struct Found {
    name: String,
    engine: String,
    sorting_key: String,
}

/// The tables that the migrations make.
#[cfg(test)]
pub(crate) fn tables() -> Vec<Made> {
    all().into_iter().filter(|made| matches!(made.what, What::Table { .. })).collect()
}

/// All that the migrations make, each once.
pub(crate) fn all() -> Vec<Made> {
    let mut all: Vec<Made> = made(0, MIGRATIONS_TABLE).into_iter().collect();
    for (version, (_, sql)) in (1..).zip(STEPS) {
        for statement in statements(sql) {
            let made = made(version, &statement).filter(|made| all.iter().all(|known| known.name != made.name));
            all.extend(made);
        }
    }
    all
}

fn made(version: u32, statement: &str) -> Option<Made> {
    let name = |prefix: &str| {
        let rest = statement.strip_prefix(prefix)?;
        Some(rest.split([' ', '\n', '(']).next()?.to_owned())
    };
    let of = |name: String, what| Some(Made { name, version, what });
    if let Some(name) = name("CREATE TABLE IF NOT EXISTS ") {
        let (_, engine) = statement.split_once("ENGINE = ")?;
        let (engine, rest) = engine.split_at(engine.find(|c: char| !c.is_ascii_alphanumeric())?);
        let (_, key) = rest.split_once("ORDER BY ")?;
        let key = match key.strip_prefix('(') {
            Some(key) => key.split(')').next()?,
            None => key.split_whitespace().next()?,
        };
        return of(name, What::Table { engine: engine.to_owned(), key: key.to_owned() });
    }
    if let Some(name) = name("CREATE MATERIALIZED VIEW IF NOT EXISTS ") {
        return of(name, What::MaterializedView);
    }
    let view = name("CREATE OR REPLACE VIEW ").or_else(|| name("CREATE VIEW IF NOT EXISTS "));
    view.and_then(|name| of(name, What::View))
}

/// What is in a database, when somebody looked.
pub(crate) struct Present(Vec<Found>);

impl Present {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|found| found.name == name)
    }

    /// The first version that makes something which isn't there; beyond all of them if all is.
    pub(crate) fn first_missing(&self) -> u32 {
        let missing = all().into_iter().filter(|made| made.version > 0 && !self.has(&made.name));
        missing.map(|made| made.version).min().unwrap_or(u32::MAX)
    }
}

impl Warehouse {
    /// Looks at what is there. To be done before the schema's version is asked for: daemons can bring it up to date at the
    /// same time.
    pub(crate) async fn present(&self) -> Result<Present, WarehouseError> {
        let query = "SELECT name, engine, sorting_key FROM system.tables WHERE database = ?";
        let client = self.bare_client();
        let asked = client.query(query).bind(&self.config().database).fetch_all::<Found>();
        Ok(Present(self.quickly("look at what is in the database", asked).await?))
    }

    /// Whether what versions are noted in is ours, or isn't there.
    pub(crate) fn check_noted(&self, present: &Present) -> Result<(), WarehouseError> {
        self.check_made(present, all().into_iter().filter(|made| made.version == 0), 0)
    }

    /// Whether all that has a name of ours is ours, in a schema that is at version `found`.
    pub(crate) fn check_present(&self, present: &Present, found: u32) -> Result<(), WarehouseError> {
        self.check_made(present, all().into_iter(), found)
    }

    fn check_made(
        &self,
        present: &Present,
        all: impl Iterator<Item = Made>,
        version: u32,
    ) -> Result<(), WarehouseError> {
        for made in all {
            let Some(found) = present.0.iter().find(|found| found.name == made.name) else { continue };
            let wrong = |why: String| {
                let database = self.config().database.clone();
                Err(WarehouseError::ForeignTable { database, table: made.name.clone(), why })
            };
            // A first step that broke off made tables of its own alone.
            if version == 0 && made.version > 1 {
                return wrong(
                    "no version of the schema is noted (schema_migrations), so nothing of ours made it".into(),
                );
            }
            let engine = found.engine.as_str();
            match &made.what {
                What::View if engine != "View" => return wrong(format!("it is a {engine}, where ours is a View")),
                What::MaterializedView if engine != "MaterializedView" => {
                    return wrong(format!("it is a {engine}, where ours is a MaterializedView"));
                }
                What::Table { engine: ours, .. } if !is_kind(engine, ours) => {
                    return wrong(format!("its engine is {engine}, where ours is {ours}"));
                }
                What::Table { key, .. } if found.sorting_key != *key => {
                    return wrong(format!("its rows are sorted by ({}), where ours are by ({key})", found.sorting_key));
                }
                What::Table { engine: ours, .. } if self.config().cluster.is_some() && engine == ours => {
                    return wrong("warehouse.cluster is set, and it has no replicas".into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether this engine is ours, or ours with replicas.
fn is_kind(engine: &str, ours: &str) -> bool {
    ["", "Replicated", "Shared"].iter().any(|kind| engine.strip_prefix(kind) == Some(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_migrations_make_is_known() {
        let all = all();
        let find = |name: &str| all.iter().find(|made| made.name == name).unwrap_or_else(|| panic!("{name}"));
        let table = |engine: &str, key: &str| What::Table { engine: engine.into(), key: key.into() };
        assert_eq!(find("schema_migrations").what, table("ReplacingMergeTree", "version"));
        let calls = find("calls");
        assert_eq!(calls.what, table("ReplacingMergeTree", "tenant, agent, service, started, journal, seq"));
        assert_eq!(find("first_uses").what, table("AggregatingMergeTree", "tenant, agent, kind, value"));
        assert_eq!(find("shipped").what, table("ReplacingMergeTree", "tenant, journal"));
        assert_eq!(
            (&find("first_uses_of_calls").what, find("first_uses_of_calls").version),
            (&What::MaterializedView, 7)
        );
        assert_eq!((&find("sessions").what, find("sessions").version), (&What::View, 2));
        let statements = STEPS.iter().flat_map(|(_, sql)| statements(sql)).filter(|sql| sql.starts_with("CREATE "));
        for statement in statements {
            assert!(made(1, &statement).is_some(), "{statement}");
        }
        assert!(is_kind("ReplicatedReplacingMergeTree", "ReplacingMergeTree"));
        assert!(!is_kind("MergeTree", "ReplacingMergeTree") && !is_kind("ReplacingMergeTree", "MergeTree"));
    }
}
