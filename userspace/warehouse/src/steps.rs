//! The schema, by version: what the migrations are made of.

/// Name and statements of each version, the first being version 1. A published step is never changed.
///
/// A program that was rolled back meets steps of a later version. It goes on with them if each says, in the column
/// `needs` of `schema_migrations`, that a program which knows this one's version can: new tables, and columns that have a
/// `DEFAULT`. Steps that don't say so need a program that knows them.
pub(crate) const STEPS: &[(&str, &str)] = &[
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
    ("egress", include_str!("../migrations/0011_egress.sql")),
];

/// What versions are noted in.
pub(crate) const MIGRATIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (version UInt32, name String, at DateTime64(3, 'UTC') DEFAULT now64(3)) \
     ENGINE = ReplacingMergeTree ORDER BY version";

/// The statements of a script: they end with `;` at a line's end. Comments on lines of their own are left out.
pub(crate) fn statements(sql: &str) -> Vec<String> {
    let code: Vec<_> = sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    let code = code.join("\n");
    code.split(";\n")
        .map(|statement| statement.trim().trim_end_matches(';').to_owned())
        .filter(|statement| !statement.is_empty())
        .collect()
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
