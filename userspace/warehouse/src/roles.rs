//! Who may read and write what in ClickHouse: one source, printed as SQL or as a file for `users.d`.
//!
//! What isn't granted is refused: no role has table functions (`file`, `url`, `remote`), dictionaries, temporary tables,
//! DDL or other databases. People's profiles read only, and what bounds their queries can't be set by them.

use std::fmt::Write as _;

/// A role.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// Its name.
    pub name: &'static str,
    /// Who it is for.
    pub for_whom: &'static str,
    /// What it may do: a privilege, and on which tables of the database; `*` is all.
    grants: &'static [(&'static str, &'static [&'static str])],
    /// Tables of ClickHouse's own that it may read.
    system: &'static [&'static str],
    /// Whether people use it: it reads only, within bounds, and sees a tenant's or a group's rows alone.
    people: bool,
}

/// What analysts read whole: there is no body and no header in it.
const RECORDS: &[&str] = &[
    "calls",
    "checkpoints",
    "command_ends",
    "command_starts",
    "commands",
    "commands_lost",
    "connection_closes",
    "connection_opens",
    "connections",
    "cost_drivers",
    "decisions",
    "denials",
    "denials_by_policy",
    "first_time_actions",
    "first_uses",
    "foreign_authority",
    "gaps",
    "hosts",
    "new_hosts_called",
    "notable_actions",
    "refused_destinations",
    "risky_calls",
    "secrets_asked_for",
    "session_ends",
    "session_identities",
    "session_starts",
    "session_timeline",
    "sessions",
    "shipped",
    "unattributed_commands",
    "volume_elsewhere",
    "volume_out",
    "what_did",
    "who_touched",
];
/// The ledger without the events themselves, which hold headers.
const LEDGER: &str = "SELECT(tenant, node, journal, seq, at, kind, code, event, about)";

/// All of them.
pub const ROLES: &[Role] = &[
    Role {
        name: "chaperone_writer",
        for_whom: "the daemon: it adds rows and reads how far it is; the schema is made by somebody who may",
        grants: &[("INSERT", &["*"]), ("SELECT", &["shipped", "schema_migrations", "notable_actions"])],
        system: &[],
        people: false,
    },
    Role {
        name: "chaperone_analyst",
        for_whom: "the security team: calls, commands, connections, decisions; no bodies, no headers",
        grants: &[("SELECT", RECORDS), (LEDGER, &["ledger"])],
        system: &[],
        people: true,
    },
    Role {
        name: "chaperone_auditor",
        for_whom: "whoever proves that the record is whole: everything, bodies too",
        grants: &[("SELECT", &["*"])],
        system: &[],
        people: true,
    },
    Role {
        name: "chaperone_operator",
        for_whom: "whoever keeps it running: hosts, gaps, the schema's version, ClickHouse's parts and disks",
        grants: &[
            ("SELECT", &["commands_lost", "gaps", "hosts", "retention_changes", "schema_migrations", "shipped"]),
            ("SELECT(tenant, journal, agent, started)", &["session_starts"]),
            ("SELECT(tenant, node, journal, seq, at)", &["ledger"]),
        ],
        system: &["disks", "merges", "mutations", "parts"],
        people: true,
    },
];

/// What bounds a query of people's: name and value. None of them can be changed by who is bound.
const BOUNDS: &[(&str, &str)] = &[
    ("allow_ddl", "0"),
    ("allow_introspection_functions", "0"),
    ("max_execution_time", "60"),
    ("max_memory_usage", "2000000000"),
    ("max_result_rows", "1000000"),
    ("max_rows_to_read", "2000000000"),
    ("readonly", "2"),
];
/// Queries an hour.
const QUERIES: u32 = 10_000;

/// Whose rows people see.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Of this tenant alone.
    pub tenant: Option<String>,
    /// Of agents in this group alone.
    pub group: Option<String>,
}

/// Each table with rows of tenants, and the condition under which a row is one of a group's agent's.
const OF_GROUP: &[(&str, &str)] = &[
    ("body_chunks", "0"),
    ("body_parts", "call IN (SELECT id FROM {db}.calls WHERE agent IN ({agents}))"),
    ("calls", "agent IN ({agents})"),
    ("checkpoints", "0"),
    ("command_ends", "id IN (SELECT id FROM {db}.command_starts WHERE session IN ({sessions}))"),
    ("command_starts", "session IN ({sessions})"),
    ("commands_lost", "0"),
    ("connection_closes", "session IN ({sessions})"),
    ("connection_opens", "session IN ({sessions})"),
    ("decisions", "agent IN ({agents})"),
    ("first_uses", "agent IN ({agents})"),
    ("ledger", "0"),
    ("session_ends", "id IN ({sessions})"),
    ("session_identities", "id IN ({sessions})"),
    ("session_starts", "has(groups, {group})"),
    ("shipped", "0"),
];

impl Seen {
    /// The tables whose rows are parted, each with its condition; none if everybody sees all.
    fn conditions(&self, database: &str) -> Vec<(&'static str, String)> {
        if self.tenant.is_none() && self.group.is_none() {
            return Vec::new();
        }
        let condition = |of_group: &str| {
            let tenant = self.tenant.as_ref().map(|tenant| format!("tenant = {}", quoted(tenant)));
            let group = self.group.as_ref().map(|group| {
                let group = quoted(group);
                let these =
                    |column: &str| format!("SELECT {column} FROM {database}.session_starts WHERE has(groups, {group})");
                let filled = of_group.replace("{agents}", &these("agent")).replace("{sessions}", &these("id"));
                filled.replace("{db}", database).replace("{group}", &group)
            });
            tenant.into_iter().chain(group).collect::<Vec<_>>().join(" AND ")
        };
        OF_GROUP.iter().map(|(table, of_group)| (*table, condition(of_group))).collect()
    }
}

/// The statements that make the roles, for a ClickHouse with access management by SQL.
pub fn sql(database: &str, seen: &Seen) -> String {
    let mut sql = String::from("-- Roles of Chaperone: grant them to users, as in GRANT chaperone_analyst TO alice.\n");
    let bounds: Vec<_> = BOUNDS.iter().map(|(name, value)| format!("{name} = {value} CONST")).collect();
    for role in ROLES {
        let _ = writeln!(sql, "\n-- For {}.\nCREATE ROLE IF NOT EXISTS {};", role.for_whom, role.name);
        for grant in grants(role, database) {
            let _ = writeln!(sql, "{grant} TO {};", role.name);
        }
        if role.people {
            let (name, bounds) = (role.name, bounds.join(", "));
            let _ = writeln!(sql, "CREATE SETTINGS PROFILE IF NOT EXISTS {name} SETTINGS {bounds} TO {name};");
            let _ = writeln!(
                sql,
                "CREATE QUOTA IF NOT EXISTS {name} KEYED BY user_name FOR INTERVAL 1 HOUR MAX queries = {QUERIES} TO {name};"
            );
            for (table, condition) in seen.conditions(database) {
                let _ = writeln!(
                    sql,
                    "CREATE ROW POLICY IF NOT EXISTS {name} ON {database}.{table} FOR SELECT USING {condition} TO {name};"
                );
            }
        }
    }
    sql
}

/// A file for `users.d`: a user for each role, whose password's SHA-256 the server takes from its environment.
pub fn users_xml(database: &str, seen: &Seen) -> String {
    let (mut profiles, mut quotas, mut users) = (String::new(), String::new(), String::new());
    for role in ROLES {
        let name = role.name;
        let _ = writeln!(profiles, "    <{name}>");
        if role.people {
            for (setting, value) in BOUNDS {
                let _ = writeln!(profiles, "      <{setting}>{value}</{setting}>");
            }
            let bound: Vec<_> = BOUNDS.iter().map(|(setting, _)| format!("<{setting}><const/></{setting}>")).collect();
            let _ = writeln!(profiles, "      <constraints>{}</constraints>", bound.concat());
        }
        let _ = writeln!(profiles, "    </{name}>");
        let queries = if role.people { QUERIES } else { 0 };
        let _ = writeln!(
            quotas,
            "    <{name}><interval><duration>3600</duration><queries>{queries}</queries></interval></{name}>"
        );
        let _ = writeln!(users, "    <!-- For {}. -->\n    <{name}>", role.for_whom);
        let _ = writeln!(users, "      <password_sha256_hex from_env=\"{}_SHA256\"/>", name.to_uppercase());
        let _ = writeln!(users, "      <networks><ip>::/0</ip></networks>");
        let _ = writeln!(users, "      <profile>{name}</profile><quota>{name}</quota>");
        let _ = writeln!(users, "      <grants>");
        for grant in grants(role, database) {
            let _ = writeln!(users, "        <query>{grant}</query>");
        }
        let _ = writeln!(users, "      </grants>");
        let conditions = seen.conditions(database);
        if role.people && !conditions.is_empty() {
            let _ = writeln!(users, "      <databases><{database}>");
            for (table, condition) in conditions {
                let _ = writeln!(users, "        <{table}><filter>{}</filter></{table}>", escaped(&condition));
            }
            let _ = writeln!(users, "      </{database}></databases>");
        }
        let _ = writeln!(users, "    </{name}>");
    }
    format!(
        "<clickhouse>\n  <profiles>\n{profiles}  </profiles>\n  <quotas>\n{quotas}  </quotas>\n  <users>\n{users}  </users>\n</clickhouse>\n"
    )
}

fn grants(role: &Role, database: &str) -> Vec<String> {
    let of_database = role.grants.iter().flat_map(|(privilege, tables)| {
        tables.iter().map(move |table| format!("GRANT {privilege} ON {database}.{table}"))
    });
    let system = role.system.iter().map(|table| format!("GRANT SELECT ON system.{table}"));
    of_database.chain(system).collect()
}

/// A text as SQL has it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
