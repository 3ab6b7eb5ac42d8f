//! The schema on servers that are not as they should be, and on clusters: against a real ClickHouse.

use std::{collections::BTreeMap, fs};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    TableSettings, Warehouse, WarehouseConfig, WarehouseError,
    analyst_tests::run,
    cluster::on_cluster,
    schema::all,
    server_tests::{Server, journal, one_call, samples, ship_all, shipper},
    steps::{MIGRATIONS_TABLE, STEPS, statements},
};

fn of_database(server: &Server, database: &str) -> Warehouse {
    let url = format!("http://127.0.0.1:{}", server.http());
    Warehouse::new(WarehouseConfig { database: database.into(), ..WarehouseConfig::new(url, "node") }).unwrap()
}

/// All that is in a database, but for its name and times.
async fn shape(warehouse: &Warehouse) -> String {
    let sql = "SELECT name, engine, sorting_key, replaceAll(as_select, currentDatabase(), 'db'), comment,
                      (SELECT groupArray((c.name, c.type, c.default_expression, c.comment, c.compression_codec))
                       FROM (SELECT * FROM system.columns WHERE database = currentDatabase() ORDER BY position) AS c
                       WHERE c.table = t.name),
                      (SELECT groupArray((i.name, i.expr, i.type_full, i.granularity))
                       FROM (SELECT * FROM system.data_skipping_indices WHERE database = currentDatabase() ORDER BY name) AS i
                       WHERE i.table = t.name)
               FROM system.tables AS t WHERE database = currentDatabase() ORDER BY name";
    run(warehouse, sql).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_breaks_off_after_any_statement_is_mended_by_the_next() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let (whole, broken) = (of_database(&server, "whole"), of_database(&server, "broken"));
    whole.migrate().await.unwrap();
    whole.bare_client().query_raw("CREATE DATABASE broken").execute().await.unwrap();
    run(&broken, MIGRATIONS_TABLE).await.unwrap();
    let mut broke_off = 0;
    for (version, (name, sql)) in (1..).zip(STEPS) {
        let statements = statements(sql);
        // Each run comes one statement further than the one before, which is what a run after one that broke off does.
        for end in 0..statements.len() {
            for statement in &statements[..=end] {
                run(&broken, statement).await.unwrap_or_else(|error| panic!("{name}: {error}: {statement}"));
            }
            let present = broken.present().await.unwrap();
            broken.check_present(&present, version - 1).unwrap_or_else(|error| panic!("{name}: {error}"));
            broke_off += 1;
        }
        // And between the last statement and the note that all of them were run: the program does the whole step again.
        if version == 7 || version == 11 {
            broken.migrate().await.unwrap();
            run(
                &broken,
                &format!("ALTER TABLE schema_migrations DELETE WHERE version > {version} SETTINGS mutations_sync = 2"),
            )
            .await
            .unwrap();
        } else {
            run(&broken, &format!("INSERT INTO schema_migrations (version, name) VALUES ({version}, '{name}')"))
                .await
                .unwrap();
        }
    }
    assert!(broke_off > 80, "{broke_off}");
    broken.migrate().await.unwrap();
    assert_eq!(shape(&broken).await, shape(&whole).await);
    // A replica that joins is told the version before it has a table, and somebody may drop a view.
    let joined = of_database(&server, "joined");
    whole.bare_client().query_raw("CREATE DATABASE joined").execute().await.unwrap();
    run(&joined, "CREATE TABLE schema_migrations AS whole.schema_migrations").await.unwrap();
    run(&joined, "INSERT INTO schema_migrations SELECT * FROM whole.schema_migrations WHERE version < 11")
        .await
        .unwrap();
    joined.migrate().await.unwrap();
    for dropped in ["DROP VIEW joined.hosts", "DROP TABLE joined.retention_changes"] {
        run(&joined, dropped).await.unwrap();
        run(&joined, "ALTER TABLE schema_migrations DELETE WHERE version = 11 SETTINGS mutations_sync = 2")
            .await
            .unwrap();
        joined.migrate().await.unwrap();
    }
    assert_eq!(shape(&joined).await, shape(&whole).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_a_name_of_ours_and_is_not_ours_is_left_alone() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let bare = of_database(&server, "default");
    let mut tried = 0;
    for made in all() {
        // Somebody else's table, view, and a table with our engine and another key.
        for foreign in [
            format!("CREATE TABLE {} (id UInt64, note String) ENGINE = MergeTree ORDER BY id", made.name),
            format!("CREATE TABLE {} (id UInt64, note String) ENGINE = ReplacingMergeTree ORDER BY id", made.name),
            format!("CREATE VIEW {} AS SELECT 1 AS id, 'x' AS note", made.name),
        ] {
            let database = format!("foreign_{tried}");
            tried += 1;
            bare.client().query_raw(&format!("CREATE DATABASE {database}")).execute().await.unwrap();
            let warehouse = of_database(&server, &database);
            run(&warehouse, &foreign).await.unwrap();
            let before = shape(&warehouse).await;
            let error = warehouse.migrate().await.unwrap_err();
            assert!(matches!(&error, WarehouseError::ForeignTable { table, .. } if *table == made.name), "{error}");
            let text = error.to_string();
            assert!(text.contains("warehouse.database") && text.contains(&database), "{text}");
            let after = shape(&warehouse).await;
            let ours = after.lines().filter(|line| !line.starts_with("schema_migrations\t")).collect::<Vec<_>>();
            let theirs = before.lines().filter(|line| made.version > 0 || line.is_empty()).collect::<Vec<_>>();
            assert!(made.version == 0 || ours == theirs, "{after}");
            bare.client().query_raw(&format!("DROP DATABASE {database}")).execute().await.unwrap();
        }
    }
    assert!(tried > 100, "{tried}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_rights_is_told_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users-of-the-test.xml");
    let user = |name: &str, rest: &str| {
        format!(
            "<{name}><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>\
             <quota>default</quota>{rest}</{name}>"
        )
    };
    let none = "<grants><query>GRANT SHOW TABLES ON nothing.*</query></grants>";
    let all = [user("default", ""), user("nobody", none)].concat();
    let xml = format!(
        "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users>{all}</users></clickhouse>"
    );
    fs::write(&users, xml).unwrap();
    let server = Server::start_with_users(&folder.path().join("data"), &users);
    let url = format!("http://127.0.0.1:{}", server.http());
    let user = |name: &str| {
        Warehouse::new(WarehouseConfig { user: Some(name.into()), ..WarehouseConfig::new(&url, "node") }).unwrap()
    };
    let error = user("nobody").migrate().await.unwrap_err().to_string();
    assert!(error.contains("CREATE DATABASE") && error.contains("`chaperone warehouse migrate`"), "{error}");
    let error = user("stranger").migrate().await.unwrap_err().to_string();
    assert!(error.contains("warehouse.user") && error.contains("warehouse.password_file"), "{error}");
    user("default").migrate().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_too_old_is_refused_with_its_version() {
    for (version, is_refused) in [("24.3.5.46", true), ("23.8.1", true), ("24.7.9.1", true), ("24.8.4.1", false)] {
        // Only its version is asked for: what answers needn't be more than a line of HTTP.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answering = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            // RowBinaryWithNamesAndTypes: one column, its name, its type, its value; not compressed.
            let text = |text: &str| [vec![u8::try_from(text.len()).unwrap()], text.as_bytes().to_vec()].concat();
            let body = [vec![1], text("version()"), text("String"), text(version)].concat();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(&[head.into_bytes(), body].concat()).await.unwrap();
        });
        let warehouse = Warehouse::new(WarehouseConfig::new(url, "node")).unwrap();
        match warehouse.without_compression().migrate().await.unwrap_err() {
            error @ WarehouseError::OldServer { .. } if is_refused => {
                let text = error.to_string();
                assert!(text.contains(version) && text.contains("24.8"), "{text}");
            }
            error => assert!(!is_refused && !error.to_string().contains("version()"), "{version}: {error}"),
        }
        answering.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_keep_their_rows_as_the_configuration_says() {
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let with = |table: &str, ttl_days, storage_policy: Option<&str>| {
        let url = format!("http://127.0.0.1:{}", server.http());
        let storage_policy = storage_policy.map(str::to_owned);
        let tables = BTreeMap::from([(table.to_owned(), TableSettings { ttl_days, storage_policy })]);
        Warehouse::new(WarehouseConfig { tables, ..WarehouseConfig::new(url, "node") }).unwrap()
    };
    let nowhere = of_database(&server, "nowhere");
    assert_eq!((nowhere.tables().await.unwrap(), nowhere.schema_version().await.unwrap().0), (Vec::new(), None));
    let changes = "SELECT count() FROM retention_changes";
    let kept = async |warehouse: &Warehouse, table: &str| {
        let found = warehouse.tables().await.unwrap().into_iter().find(|it| it.table == table).unwrap();
        (found.ttl_days, found.other_ttl, found.storage_policy)
    };
    let policy = || "default".to_owned();
    // For every table that can be set: set, the same again, changed, taken away.
    let mut count = 0;
    for (table, column) in crate::kept::KEPT {
        for (days, expected) in [(400, Some(400)), (400, Some(400)), (90, Some(90)), (0, None), (0, None)] {
            let warehouse = with(table, Some(days), None);
            let before = warehouse.prepare().await.map(|()| count);
            before.unwrap_or_else(|error| panic!("{table} {days}: {error}"));
            assert_eq!(kept(&warehouse, table).await, (expected, false, policy()), "{table}.{column} {days}");
        }
        count += 3;
        assert_eq!(run(&with(table, None, None), changes).await.unwrap().trim(), count.to_string(), "{table}");
    }
    let last = "SELECT node, table_name, ttl_days_before, ttl_days FROM retention_changes ORDER BY at DESC LIMIT 1";
    assert_eq!(run(&with("calls", None, None), last).await.unwrap(), "node\tsession_starts\t90\t0\n");
    // Somebody's own TTL is told, stays where nothing is said, and goes where something is.
    let silent = with("calls", None, None);
    run(&silent, "ALTER TABLE calls MODIFY TTL toDateTime(started) + INTERVAL 3 MONTH").await.unwrap();
    silent.prepare().await.unwrap();
    assert_eq!(kept(&silent, "calls").await, (None, true, policy()));
    let set = with("calls", Some(60), Some("default"));
    set.prepare().await.unwrap();
    assert_eq!(kept(&set, "calls").await, (Some(60), false, policy()));
    // It deletes rows that are older, and no others.
    run(
        &set,
        "INSERT INTO calls (agent, started) VALUES ('old', now() - INTERVAL 61 DAY), ('new', now() - INTERVAL 59 DAY)",
    )
    .await
    .unwrap();
    run(&set, "OPTIMIZE TABLE calls FINAL").await.unwrap();
    assert_eq!(run(&set, "SELECT agent FROM calls").await.unwrap(), "new\n");

    // What the server doesn't have is told, with the key; records are shipped all the same.
    let wrong = with("calls", None, Some("glacier"));
    let error = wrong.prepare().await.unwrap_err().to_string();
    assert!(error.contains("warehouse.tables.calls.storage_policy") && error.contains("glacier"), "{error}");
    assert!(error.contains("system.storage_policies"), "{error}");
    let journal = journal(dir.path());
    let session = samples::session();
    one_call(&journal, &session, 1).await;
    let shipping = shipper(&wrong, &journal);
    let status = shipping.status();
    ship_all(shipping, &journal).await;
    assert!(status.borrow().retention_error.as_ref().is_some_and(|error| error.contains("glacier")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clusters_statements_are_sql_and_what_is_no_cluster_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let bare = of_database(&server, "default");
    let every = STEPS.iter().flat_map(|(_, sql)| statements(sql));
    let others = [
        MIGRATIONS_TABLE,
        "CREATE DATABASE IF NOT EXISTS `chaperone`",
        "ALTER TABLE schema_migrations ADD COLUMN IF NOT EXISTS needs UInt32 DEFAULT version COMMENT 'x'",
        "ALTER TABLE calls MODIFY TTL toDateTime(started) + toIntervalDay(90)",
        "ALTER TABLE calls REMOVE TTL",
        "ALTER TABLE calls MODIFY SETTING storage_policy = 'x'",
    ];
    let mut parsed = 0;
    for statement in every.chain(others.map(str::to_owned)) {
        let placed = on_cluster(&statement, "of-the.test_1");
        if placed.starts_with("INSERT") {
            continue; // as on one server, where it is run
        }
        run(&bare, &format!("EXPLAIN AST {placed}")).await.unwrap_or_else(|error| panic!("{error}: {placed}"));
        // What the server makes of it is what was meant.
        let formatted =
            format!("SELECT formatQuerySingleLine('{}')", placed.replace('\\', "\\\\").replace('\'', "\\'"));
        let formatted = run(&bare, &formatted).await.unwrap_or_else(|error| panic!("{error}: {placed}"));
        assert!(formatted.contains("ON CLUSTER `of-the.test_1`") || formatted.contains("ON CLUSTER"), "{formatted}");
        assert_eq!(placed.starts_with("CREATE TABLE"), formatted.contains("Replicated"), "{formatted}");
        parsed += 1;
    }
    assert!(parsed > 90, "{parsed}");

    let url = format!("http://127.0.0.1:{}", server.http());
    let clustered = WarehouseConfig { cluster: Some("nowhere".into()), ..WarehouseConfig::new(&url, "node") };
    let clustered = Warehouse::new(clustered).unwrap();
    let error = clustered.migrate().await.unwrap_err();
    assert!(error.setting() == Some("cluster") && error.to_string().contains("`nowhere`"), "{error}");
    // Tables of one server aren't taken for those of a cluster.
    of_database(&server, "chaperone").migrate().await.unwrap();
    let error = clustered.store().await.unwrap_err().to_string();
    assert!(error.contains("no replicas"), "{error}");
}
