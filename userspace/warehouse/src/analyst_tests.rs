//! The questions, their documentation, and who may ask what: against a real ClickHouse with a made-up past.

use std::{fs, path::Path};

use chaperone_query::{Arguments, QUESTIONS, Question};

use crate::{Warehouse, WarehouseConfig, server_tests::Server};

/// The statements of xtask's made-up past, for `calls` calls.
fn past(calls: u64) -> Vec<String> {
    let sql = include_str!("../../../xtask/warehouse/fill.sql");
    let code: Vec<_> = sql.lines().filter(|line| !line.starts_with("--")).collect();
    let code = code.join("\n") + "\n";
    let numbers = [("calls", calls), ("agents", 20), ("days", 90), ("seed", 7), ("sessions", calls / 50), ("from", 0)];
    let filled = |statement: &str| {
        let named = statement.replace("{many}", &calls.to_string());
        numbers.iter().fold(named, |sql, (name, value)| sql.replace(&format!("{{{name}}}"), &value.to_string()))
    };
    code.split(";\n").map(str::trim).filter(|it| !it.is_empty()).map(filled).collect()
}

pub(crate) async fn run(warehouse: &Warehouse, sql: &str) -> Result<String, String> {
    let bytes = warehouse.client().query_raw(sql).fetch_bytes("TSV").map_err(|error| error.to_string())?;
    let mut bytes = bytes;
    let bytes = bytes.collect().await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A warehouse with a past, asked as the tenant whose it is.
pub(crate) async fn filled(server: &Server) -> Warehouse {
    let url = format!("http://127.0.0.1:{}", server.http());
    let config = WarehouseConfig { tenant: "generated".into(), ..WarehouseConfig::new(url, "node") };
    let warehouse = Warehouse::new(config).unwrap();
    warehouse.migrate().await.unwrap();
    for statement in past(20_000) {
        warehouse.client().query_raw(&statement).execute().await.unwrap_or_else(|error| panic!("{error}: {statement}"));
    }
    warehouse
}

#[tokio::test(flavor = "multi_thread")]
async fn every_question_and_every_query_of_the_docs_is_answered() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let warehouse = filled(&server).await;
    let session = run(&warehouse, "SELECT id FROM session_starts LIMIT 1").await.unwrap();
    let arguments = Arguments {
        agent: Some("agent-001".into()),
        resource: Some("arn:aws:s3:::bucket-8".into()),
        session: Some(session.trim().parse().unwrap()),
        since: time::OffsetDateTime::now_utc() - time::Duration::days(91),
        until: time::OffsetDateTime::now_utc() + time::Duration::minutes(1),
    };
    for question in QUESTIONS {
        let answer = warehouse.ask(question, &arguments, 1000).await.unwrap();
        assert!(!answer.rows.is_empty(), "{} has no answer", question.name);
        assert!(answer.rows.iter().all(|row| row.len() == answer.columns.len()), "{}", question.name);
    }
    // What one is told is told as a value, whatever is in it.
    let named = Question::named("what_did").unwrap();
    for hostile in ["' OR 1 = 1 --", "\\'", "x'); DROP TABLE calls; --", "{agent:String}", "?"] {
        let arguments = Arguments { agent: Some(hostile.into()), ..arguments.clone() };
        assert!(warehouse.ask(named, &arguments, 10).await.unwrap().rows.is_empty(), "{hostile}");
    }

    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/queries.md")).unwrap();
    let queries: Vec<_> = docs.split("```sql\n").skip(1).filter_map(|it| it.split_once("\n```")).collect();
    assert!(queries.len() >= QUESTIONS.len());
    for (sql, _) in queries {
        run(&warehouse, sql).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_and_column_says_what_it_is() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let warehouse = server.warehouse();
    warehouse.migrate().await.unwrap();
    let tables = "SELECT name FROM system.tables WHERE database = currentDatabase() AND comment = ''";
    assert_eq!(run(&warehouse, tables).await.unwrap(), "");
    let columns =
        "SELECT concat(table, '.', name) FROM system.columns WHERE database = currentDatabase() AND comment = ''
                   AND table IN (SELECT name FROM system.tables WHERE engine NOT IN ('View', 'MaterializedView'))";
    assert_eq!(run(&warehouse, columns).await.unwrap(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_read_no_more_than_they_have_to() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let warehouse = filled(&server).await;
    let sql = include_str!("../migrations/0007_questions.sql");
    assert!(
        !sql.replace("reads with `FINAL`", "").lines().any(|line| !line.starts_with("--") && line.contains("FINAL"))
    );
    // A day of ninety: other months' partitions are not even opened.
    let explained = "EXPLAIN indexes = 1 SELECT * FROM volume_out(since = now() - INTERVAL 1 DAY, until = now())";
    let plan = run(&warehouse, explained).await.unwrap();
    let parts = plan.lines().find_map(|line| line.split_once("Parts: ")?.1.split_once('/'));
    let (read, all) = parts.unwrap_or_else(|| panic!("{plan}"));
    assert!(read.parse::<u32>().unwrap() < all.parse::<u32>().unwrap(), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_broke_off_and_calls_of_before_are_mended() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let warehouse = filled(&server).await;
    let before = run(
        &warehouse,
        "SELECT count(), min(first) FROM (SELECT agent, kind, value, min(first) AS first FROM first_uses GROUP BY ALL)",
    );
    let before = before.await.unwrap();
    // As a version of before left it, with half of the step done.
    for sql in [
        "DROP VIEW first_uses_of_calls",
        "TRUNCATE TABLE first_uses",
        "DROP VIEW hosts",
        "ALTER TABLE calls DROP INDEX by_time",
        "DELETE FROM schema_migrations WHERE name IN ('questions', 'comments', 'parents', 'unmasked', 'egress')",
    ] {
        run(&warehouse, sql).await.unwrap();
    }
    warehouse.migrate().await.unwrap();
    warehouse.migrate().await.unwrap();
    let after =
        "SELECT count(), min(first) FROM (SELECT agent, kind, value, min(first) AS first FROM first_uses GROUP BY ALL)";
    assert_eq!(run(&warehouse, after).await.unwrap(), before);
    assert_eq!(run(&warehouse, "SELECT count() FROM hosts").await.unwrap().trim(), "20");
    let lists = "SELECT uniqExact(list), toUInt8(count() > 50) FROM notable_actions";
    assert_eq!(run(&warehouse, lists).await.unwrap().trim(), "1\t1");
}

/// A query of a dashboard's as Grafana's data source sends it.
fn as_sent(sql: &str, session: &str) -> String {
    let time = |sql: String, name: &str, text: &dyn Fn(&str) -> String| {
        let mut sql = sql;
        while let Some((before, rest)) = sql.split_once(name) {
            let (column, after) = rest.split_once(')').unwrap();
            sql = format!("{before}{}{after}", text(column));
        }
        sql
    };
    let (from, to) = ("toDateTime(now() - INTERVAL 90 DAY)", "toDateTime(now())");
    let sql = time(sql.to_owned(), "$__timeFilter(", &|column| format!("{column} >= {from} AND {column} <= {to}"));
    let sql =
        time(sql, "$__timeInterval(", &|column| format!("toStartOfInterval(toDateTime({column}), INTERVAL 60 second)"));
    let sql = sql.replace("$__fromTime", from).replace("$__toTime", to).replace("${tenant:singlequote}", "'generated'");
    sql.replace("${agent:singlequote}", "'agent-001','agent-002'")
        .replace("${session:singlequote}", &format!("'{session}'"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_and_variable_of_the_dashboards_is_answered() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let warehouse = filled(&server).await;
    let session = run(&warehouse, "SELECT id FROM session_starts LIMIT 1").await.unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dashboards/grafana");
    let (mut dashboards, mut panels) = (0, 0);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // The daemons' own is of Prometheus.
        if path.extension().is_none_or(|extension| extension != "json") || path.ends_with("daemon.json") {
            continue;
        }
        dashboards += 1;
        let dashboard: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let asked =
            dashboard["panels"].as_array().unwrap().iter().map(|it| (&it["title"], &it["targets"][0]["rawSql"]));
        let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
        let variables = variables.filter(|it| it["type"] == "query").map(|it| (&it["name"], &it["query"]));
        for (title, sql) in asked.chain(variables) {
            let sql = as_sent(sql.as_str().unwrap(), session.trim());
            assert!(!sql.contains('$'), "{title}: {sql}");
            let answer = run(&warehouse, &sql).await.unwrap_or_else(|error| panic!("{title}: {error}: {sql}"));
            assert!(!answer.trim().is_empty(), "{title} shows nothing: {sql}");
            panels += 1;
        }
    }
    assert!(dashboards == 7 && panels > 35, "{dashboards} {panels}");

    // Grafana's alert rules: each asks for one number, above which it fires.
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dashboards/grafana/provisioning/alerting/chaperone.json");
    let file: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let rules = file["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() >= 5);
    for rule in rules {
        let sql = rule["data"][0]["model"]["rawSql"].as_str().unwrap();
        let answer = run(&warehouse, sql).await.unwrap_or_else(|error| panic!("{}: {error}", rule["title"]));
        assert!(answer.trim().parse::<u64>().is_ok(), "{}: {answer}", rule["title"]);
    }
}
