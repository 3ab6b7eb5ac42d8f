//! Who may do what, tried against a real ClickHouse.

use std::fs;

use crate::{
    Warehouse, WarehouseConfig,
    analyst_tests::{filled, run},
    roles::{Seen, sql, users_xml},
    server_tests::Server,
};

/// A server whose users are the roles, and ClickHouse's default one; all without passwords.
fn server(folder: &std::path::Path, seen: &Seen) -> Server {
    let mut xml = users_xml("chaperone", seen);
    for name in ["WRITER", "ANALYST", "AUDITOR", "OPERATOR"] {
        let secret = format!("<password_sha256_hex from_env=\"CHAPERONE_{name}_SHA256\"/>");
        assert!(xml.contains(&secret), "no user without a password");
        xml = xml.replace(&secret, "<password></password>");
    }
    let admin = "<users><default><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>\
                 <quota>default</quota></default>";
    let xml = xml.replace("<profiles>", "<profiles><default/>").replace("<quotas>", "<quotas><default/>");
    let users = folder.join("users-of-the-test.xml");
    fs::write(&users, xml.replace("<users>", admin)).unwrap();
    Server::start_with_users(&folder.join("data"), &users)
}

fn as_user(server: &Server, user: &str) -> Warehouse {
    let url = format!("http://127.0.0.1:{}", server.http());
    let user = Some(format!("chaperone_{user}"));
    Warehouse::new(WarehouseConfig { user, tenant: "generated".into(), ..WarehouseConfig::new(url, "node") }).unwrap()
}

/// What an analyst must not get by.
const ANALYST_TRIES: &[&str] = &[
    "SELECT data FROM body_chunks",
    "SELECT * FROM body_parts",
    "SELECT count() FROM body_chunks",
    "SELECT payload FROM ledger",
    "SELECT * FROM ledger",
    "SELECT l.payload FROM calls AS c JOIN ledger AS l ON l.tenant = c.tenant",
    "SELECT * FROM chain_breaks",
    "SELECT COLUMNS('pay') FROM ledger",
    "SELECT untuple(tuple(payload)) FROM ledger",
    "SELECT (SELECT any(payload) FROM ledger)",
    "SELECT agent FROM calls WHERE agent IN (SELECT payload FROM ledger)",
    "WITH x AS (SELECT payload FROM ledger) SELECT * FROM x",
    "SELECT id FROM calls UNION ALL SELECT sha256 FROM body_chunks",
    "SELECT length(payload) FROM ledger",
    "SELECT count() FROM ledger WHERE payload LIKE '%authorization%'",
    "SELECT count() FROM ledger PREWHERE payload != ''",
    "SELECT seq FROM ledger ORDER BY payload LIMIT 1",
    "SELECT * FROM merge('chaperone', '^body_')",
    "SELECT * FROM merge(currentDatabase(), 'ledger')",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
    "SELECT * FROM remote('127.0.0.1', 'chaperone', 'ledger')",
    "SELECT * FROM remoteSecure('127.0.0.1', 'chaperone', 'ledger')",
    "SELECT * FROM s3('http://127.0.0.1:1/bucket/key', 'CSV', 'a String')",
    "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT * FROM postgresql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT * FROM executable('x', 'TSV', 'a String')",
    "CREATE DICTIONARY d (a UInt64, p String) PRIMARY KEY a SOURCE(CLICKHOUSE(TABLE 'ledger')) LAYOUT(FLAT()) LIFETIME(1)",
    "CREATE VIEW stolen AS SELECT payload FROM ledger",
    "CREATE MATERIALIZED VIEW stolen ENGINE = Memory AS SELECT payload FROM ledger",
    "CREATE TABLE stolen ENGINE = Memory AS SELECT * FROM ledger",
    "CREATE TEMPORARY TABLE stolen AS SELECT payload FROM ledger",
    "CREATE DATABASE stolen",
    "CREATE FUNCTION f AS x -> x",
    "CREATE USER u",
    "GRANT SELECT ON chaperone.ledger TO chaperone_analyst",
    "INSERT INTO calls (agent) VALUES ('me')",
    "INSERT INTO FUNCTION file('/tmp/x', 'TSV') SELECT * FROM calls",
    "INSERT INTO FUNCTION url('http://127.0.0.1:1/', 'TSV') SELECT agent FROM calls",
    "SELECT agent FROM calls INTO OUTFILE '/tmp/stolen'",
    "ALTER TABLE calls DELETE WHERE 1",
    "ALTER TABLE calls DROP PARTITION 202611",
    "DELETE FROM calls WHERE 1",
    "TRUNCATE TABLE calls",
    "DROP TABLE calls",
    "RENAME TABLE calls TO c",
    "OPTIMIZE TABLE calls FINAL",
    "DETACH TABLE calls",
    "BACKUP TABLE calls TO File('/tmp/x')",
    "SYSTEM SHUTDOWN",
    "SYSTEM FLUSH LOGS",
    "KILL QUERY WHERE 1",
    "EXPLAIN PLAN SELECT payload FROM ledger",
    "EXPLAIN ESTIMATE SELECT data FROM body_chunks",
    "DESCRIBE TABLE body_chunks",
    "SHOW CREATE TABLE body_chunks",
    "SELECT * FROM system.query_log",
    "SELECT * FROM mergeTreeIndex('chaperone', 'body_chunks')",
    "SELECT agent FROM calls SETTINGS readonly = 0",
    "SELECT agent FROM calls SETTINGS max_memory_usage = 0",
    "SELECT agent FROM calls SETTINGS max_execution_time = 0",
    "SELECT agent FROM calls SETTINGS allow_ddl = 1",
    "SET readonly = 0",
];

const OPERATOR_TRIES: &[&str] = &[
    "SELECT * FROM calls",
    "SELECT argv FROM command_starts",
    "SELECT cgroup FROM session_starts",
    "SELECT payload FROM ledger",
    "SELECT * FROM what_did(agent = 'agent-001', since = now() - 1, until = now())",
    "SELECT * FROM sessions",
    "INSERT INTO shipped (node) VALUES ('x')",
];

const WRITER_TRIES: &[&str] = &[
    "SELECT * FROM calls",
    "SELECT payload FROM ledger",
    "SELECT data FROM body_chunks",
    "DROP TABLE calls",
    "ALTER TABLE calls DELETE WHERE 1",
    "TRUNCATE TABLE ledger",
    "DELETE FROM decisions WHERE 1",
    "CREATE TABLE t (a UInt8) ENGINE = Memory",
];

const AUDITOR_TRIES: &[&str] = &[
    "INSERT INTO calls (agent) VALUES ('me')",
    "ALTER TABLE ledger DELETE WHERE 1",
    "DROP TABLE ledger",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM remote('127.0.0.1', 'system', 'query_log')",
    "SET readonly = 0",
];

/// What ClickHouse says to who may not; the last, where a pattern of names fits nothing that he may see.
const REFUSED: [&str; 6] = [
    "(ACCESS_DENIED)",
    "(READONLY)",
    "(SETTING_CONSTRAINT_VIOLATION)",
    "(QUERY_IS_PROHIBITED)",
    "(INTO_OUTFILE_NOT_ALLOWED)",
    "(CANNOT_EXTRACT_TABLE_STRUCTURE)",
];

#[tokio::test(flavor = "multi_thread")]
async fn each_role_does_its_work_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path(), &Seen::default());
    let admin = filled(&server).await;
    let [writer, analyst, auditor, operator] =
        ["writer", "analyst", "auditor", "operator"].map(|it| as_user(&server, it));

    writer.migrate().await.unwrap(); // it is as it has to be, which a writer can see
    assert_eq!(writer.store().await.unwrap(), admin.store().await.unwrap()); // and which store it is
    let keep = crate::TableSettings { ttl_days: Some(90), storage_policy: None };
    let tables = std::collections::BTreeMap::from([("calls".to_owned(), keep)]);
    let keeping = Warehouse::new(WarehouseConfig { tables, ..writer.config().clone() }).unwrap();
    let refused = keeping.keep_rows().await.unwrap_err().to_string();
    assert!(refused.contains("warehouse.tables.calls.ttl_days") && refused.contains("warehouse migrate"), "{refused}");
    run(&writer, "INSERT INTO calls (tenant, agent, service, started) VALUES ('generated', 'new', 's3', now())")
        .await
        .unwrap();
    let seen = "SELECT count() FROM first_uses WHERE agent = 'new' AND value = 's3'";
    assert_eq!(
        run(&admin, seen).await.unwrap().trim(),
        "1",
        "what is kept while calls arrive is kept for a writer too"
    );
    let docs = include_str!("../../../docs/queries.md");
    for (query, _) in docs.split("```sql\n").skip(1).filter_map(|it| it.split_once("\n```")) {
        run(&analyst, query).await.unwrap_or_else(|error| panic!("{error}: {query}"));
        run(&auditor, query).await.unwrap_or_else(|error| panic!("{error}: {query}"));
    }
    run(&auditor, "SELECT count() FROM chain_breaks").await.unwrap();
    run(&auditor, "SELECT count(data) FROM body_chunks").await.unwrap();
    run(&operator, "SELECT * FROM hosts").await.unwrap();
    run(&operator, "SELECT * FROM retention_changes").await.unwrap();
    run(&operator, "SELECT * FROM gaps(since = now() - INTERVAL 1 DAY)").await.unwrap();
    run(&operator, "SELECT sum(bytes_on_disk) FROM system.parts").await.unwrap();

    let tries =
        [(&analyst, ANALYST_TRIES), (&operator, OPERATOR_TRIES), (&writer, WRITER_TRIES), (&auditor, AUDITOR_TRIES)];
    let before = run(&admin, "SELECT count() FROM calls").await.unwrap();
    let mut passed = Vec::new();
    for (user, tries) in tries {
        for sql in tries {
            // Who is refused is told so: a try that fails for another reason shows nothing.
            let answer = match run(user, sql).await {
                Err(error) if REFUSED.iter().any(|code| error.contains(code)) => continue,
                Err(error) => error,
                Ok(answer) => answer,
            };
            let answer: String = answer.chars().take(300).collect();
            passed.push(format!("{:?}: {sql}: {answer}", user.config().user));
        }
    }
    assert!(passed.is_empty(), "{}", passed.join("\n"));
    assert_eq!(run(&admin, "SELECT count() FROM calls").await.unwrap(), before);
    // Tables of the system's show an analyst nothing of what isn't his.
    let names = run(&analyst, "SELECT name FROM system.tables WHERE name LIKE 'body%'").await.unwrap_or_default();
    assert_eq!(names, "");
    let payload = "SELECT count() FROM system.columns WHERE table = 'ledger' AND name = 'payload'";
    assert_ne!(run(&analyst, payload).await.unwrap_or_default().trim(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_see_their_tenants_and_groups_rows_alone() {
    let folder = tempfile::tempdir().unwrap();
    let seen = Seen { tenant: Some("generated".into()), group: Some("coders".into()) };
    let server = server(folder.path(), &seen);
    let admin = filled(&server).await;
    run(&admin, "INSERT INTO calls (tenant, agent, service, started) VALUES ('other', 'agent-000', 's3', now())")
        .await
        .unwrap();
    for user in ["analyst", "auditor"] {
        let user = as_user(&server, user);
        // The index would tell of other tenants' rows.
        let index = run(&user, "SELECT count() FROM mergeTreeIndex('chaperone', 'calls')").await;
        assert!(index.is_err_and(|error| error.contains("row policy")));
        for (sql, all) in [
            ("SELECT uniqExact(tenant) FROM calls", "SELECT 1"),
            (
                "SELECT uniqExact(agent) FROM calls",
                "SELECT uniqExact(agent) FROM session_starts WHERE has(groups, 'coders')",
            ),
            (
                "SELECT uniqExact(agent) FROM first_uses",
                "SELECT uniqExact(agent) FROM session_starts WHERE has(groups, 'coders')",
            ),
            ("SELECT count() FROM sessions", "SELECT count() FROM session_starts WHERE has(groups, 'coders')"),
            (
                "SELECT count() FROM what_did(agent = 'agent-001', since = now() - INTERVAL 90 DAY, until = now())",
                "SELECT 0",
            ),
            ("SELECT count() FROM decisions WHERE agent = 'agent-001'", "SELECT 0"),
            (
                "SELECT count() FROM command_starts AS c LEFT ANTI JOIN session_starts AS s ON s.id = c.session",
                "SELECT 0",
            ),
            ("SELECT count() FROM ledger", "SELECT 0"),
            ("SELECT count() FROM merge('chaperone', '^calls$') WHERE tenant = 'other'", "SELECT 0"),
        ] {
            let answer = run(&user, sql).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
            assert_eq!(answer, run(&admin, all).await.unwrap(), "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_statements_are_sql() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let warehouse = Warehouse::new(WarehouseConfig {
        database: "default".into(),
        ..WarehouseConfig::new(format!("http://127.0.0.1:{}", server.http()), "node")
    });
    let warehouse = warehouse.unwrap();
    let seen = Seen { tenant: Some("it's \\ a <tenant>".into()), group: Some("coders".into()) };
    let text = sql("chaperone", &seen);
    let code: Vec<_> = text.lines().filter(|line| !line.starts_with("--") && !line.is_empty()).collect();
    assert!(code.len() > 60, "{text}");
    for statement in code {
        let statement = statement.strip_suffix(';').unwrap();
        run(&warehouse, &format!("EXPLAIN AST {statement}"))
            .await
            .unwrap_or_else(|error| panic!("{error}: {statement}"));
    }
}
