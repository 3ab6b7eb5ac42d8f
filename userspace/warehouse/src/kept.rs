//! Which tables can be told how long to keep their rows.

/// The tables that grow, each with its rows' time. Small ones that say what is there, or how far things are, stay whole.
pub(crate) const KEPT: &[(&str, &str)] = &[
    ("body_chunks", "at"),
    ("body_parts", "at"),
    ("calls", "started"),
    ("checkpoints", "at"),
    ("command_ends", "ended"),
    ("command_starts", "started"),
    ("commands_lost", "at"),
    ("connection_closes", "closed"),
    ("connection_opens", "opened"),
    ("decisions", "at"),
    ("ledger", "at"),
    ("session_ends", "ended"),
    ("session_identities", "at"),
    ("session_starts", "started"),
];

/// The column that says when a row of this table happened; `None` if how long it is kept can't be set.
pub(crate) fn time_column(table: &str) -> Option<&'static str> {
    KEPT.iter().find(|(name, _)| *name == table).map(|(_, column)| *column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::{STEPS, statements};

    #[test]
    fn every_table_that_grows_can_be_set_by_a_column_that_it_has() {
        let tables = crate::schema::tables();
        let statements: Vec<_> = STEPS.iter().flat_map(|(_, sql)| statements(sql)).collect();
        for (name, column) in KEPT {
            let made = format!("CREATE TABLE IF NOT EXISTS {name} (");
            let made = statements.iter().find(|it| it.starts_with(&made)).unwrap_or_else(|| panic!("{name}"));
            assert!(made.contains(&format!(" {column} DateTime64(6, 'UTC')")), "{name}.{column}");
        }
        let small = ["first_uses", "notable_actions", "retention_changes", "schema_migrations", "shipped"];
        for table in &tables {
            assert!(time_column(&table.name).is_some() || small.contains(&table.name.as_str()), "{}", table.name);
        }
    }
}
