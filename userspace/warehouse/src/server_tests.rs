//! Tests against a real ClickHouse, started by `xtask/python/clickhouse_server.py`.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use chaperone_journal::{CallFilter, Calls, Exchange, Journal, JournalConfig, Position, sessions};
use chaperone_model::{
    CallId, CommandEnded, CommandExit, CommandsLost, ConnectionClosed, ConnectionId, ConnectionKind, ConnectionOpened,
    Decision, Direction, Event, OriginalDst, ProcessFacts, Reason, SessionEnded, SessionId, Verdict,
};
use chaperone_query::{Body, EventFilter, JournalQuery, Query};
use futures_util::TryStreamExt as _;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use crate::{
    Shipper, ShipperOptions, Warehouse, WarehouseConfig, WarehouseError,
    batch::Gatherer,
    progress::{Plan, write_plan},
    rows::Source,
};

#[path = "../../journal/tests/next/mod.rs"]
#[allow(dead_code, unreachable_pub)]
mod next;
#[path = "../../journal/src/samples.rs"]
pub(crate) mod samples;

/// A ClickHouse of the test's own.
pub(crate) struct Server {
    child: Child,
    data: PathBuf,
    http: u16,
    tcp: u16,
}

impl Server {
    pub(crate) fn start(data: &Path) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (http, tcp) = (free(), free());
        Self { child: spawn(data, http, tcp, None), data: data.to_owned(), http, tcp }
    }

    /// With users of the test's own.
    pub(crate) fn start_with_users(data: &Path, users: &Path) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (http, tcp) = (free(), free());
        Self { child: spawn(data, http, tcp, Some(users)), data: data.to_owned(), http, tcp }
    }

    /// SIGKILL, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.data, self.http, self.tcp, None);
    }

    /// The port of its HTTP interface.
    pub(crate) const fn http(&self) -> u16 {
        self.http
    }

    pub(crate) fn warehouse(&self) -> Warehouse {
        Warehouse::new(WarehouseConfig::new(format!("http://127.0.0.1:{}", self.http), "node")).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(data: &Path, http: u16, tcp: u16, users: Option<&Path>) -> Child {
    let python = std::env::var("CHAPERONE_TEST_PYTHON").expect(
        "CHAPERONE_TEST_PYTHON must name a Python that has the package chdb-core 26.9.0: \
         python3 -m venv V && V/bin/pip install chdb-core==26.9.0 (`cargo xtask test` does it)",
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../xtask/python/clickhouse_server.py");
    let mut child = Command::new(python)
        .arg(script.canonicalize().unwrap())
        .args(["--log-level", "fatal", "--http-port", &http.to_string(), "--tcp-port", &tcp.to_string(), "--dir"])
        .arg(data)
        .args(users.into_iter().flat_map(|users| [Path::new("--users"), users]))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.any(|line| line.is_ok_and(|line| line.starts_with("ready")));
    assert!(ready, "ClickHouse did not start");
    child
}

pub(crate) fn journal(dir: &Path) -> Journal {
    Journal::open(JournalConfig { segment_bytes: 4 << 20, ..JournalConfig::new(dir) }).unwrap().0
}

pub(crate) fn quick() -> ShipperOptions {
    ShipperOptions {
        linger: Duration::from_millis(5),
        longest_pause: Duration::from_millis(200),
        farewell: Duration::from_secs(30),
        ..ShipperOptions::default()
    }
}

pub(crate) fn shipper(warehouse: &Warehouse, journal: &Journal) -> Shipper {
    Shipper::new(warehouse.clone(), quick(), journal.dir(), journal.id(), journal.subscribe())
}

pub(crate) async fn one_call(journal: &Journal, session: &chaperone_model::Session, n: usize) -> CallId {
    let call = CallId::new();
    journal.append(&samples::intent(call, session.id), false).await.unwrap();
    let mut request = journal.body(call, Direction::Request);
    request.push(Bytes::from(format!("request {n}"))).unwrap();
    let mut response = journal.body(call, Direction::Response);
    response.push(Bytes::from(vec![7; n % 100])).unwrap();
    let (request, response) = (Some(request.finish()), Some(response.finish()));
    journal.append(&samples::outcome(call, session.id, request, response), n.is_multiple_of(100)).await.unwrap();
    call
}

/// Rows as they are in the table, those that a merge would remove included.
pub(crate) async fn raw(warehouse: &Warehouse, sql: &str) -> u64 {
    warehouse.client().query_raw(sql).fetch_one::<u64>().await.unwrap()
}

/// Closes the journal, so that not even a checkpoint comes after, and ships everything there is.
pub(crate) async fn ship_all(shipper: Shipper, journal: &Journal) {
    journal.close().await.unwrap();
    let mut status = shipper.status();
    let last = journal.subscribe().borrow().seq;
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(shipper.run(async move { drop(stopped.await) }));
    status.wait_for(|status| status.shipped.seq >= last).await.unwrap();
    drop(stop);
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_calls_arrive_once_though_both_sides_are_killed() {
    const CALLS: usize = 20_000;
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut server = Server::start(data.path());
    let warehouse = server.warehouse();
    let journal = journal(dir.path());
    let session = samples::session();
    journal.append(&samples::session_started(&session), true).await.unwrap();

    let writer = tokio::spawn({
        let (journal, session) = (journal.clone(), session.clone());
        async move {
            for n in 0..CALLS {
                one_call(&journal, &session, n).await;
            }
        }
    });
    // The shipper is dropped at whatever it is doing, again and again; ClickHouse is killed in the middle.
    for round in 0..12u64 {
        let shipper = shipper(&warehouse, &journal);
        if round == 5 {
            server.kill();
        }
        let cut_off = tokio::time::timeout(Duration::from_millis(40 + 37 * round), shipper.run(std::future::pending()));
        assert!(Box::pin(cut_off).await.is_err());
        if round == 7 {
            server.restart();
        }
    }
    writer.await.unwrap();
    journal.append(&samples::intent(CallId::new(), session.id), true).await.unwrap(); // one stays open
    ship_all(shipper(&warehouse, &journal), &journal).await;

    let mut calls = Calls::scan(dir.path(), CallFilter::default()).unwrap();
    let (mut count, mut sent, mut received) = (0, 0, 0);
    while let Some(row) = calls.next_row().unwrap() {
        count += 1;
        sent += row.request_bytes;
        received += row.response_bytes;
    }
    assert_eq!(count, CALLS as u64);
    assert_eq!(raw(&warehouse, "SELECT count() FROM calls").await, count);
    assert_eq!(raw(&warehouse, "SELECT uniqExact(id) FROM calls").await, count);
    assert_eq!(raw(&warehouse, "SELECT sum(request_bytes) FROM calls").await, sent);
    assert_eq!(raw(&warehouse, "SELECT sum(response_bytes) FROM calls").await, received);
    assert_eq!(raw(&warehouse, "SELECT sum(length) FROM body_parts").await, sent + received);
    assert_eq!(raw(&warehouse, "SELECT count() FROM decisions").await, count + 1);
    let last = journal.subscribe().borrow().seq.0;
    assert_eq!(raw(&warehouse, "SELECT count() FROM ledger").await, last);
    assert_eq!(warehouse.chain_breaks(10).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_events_are_read_back_as_the_journal_has_them() {
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let warehouse = server.warehouse();
    warehouse.migrate().await.unwrap();
    let journal = journal(dir.path());
    let session = samples::session();
    journal.append(&samples::session_started(&session), true).await.unwrap();
    let mut made = Vec::new();
    for n in 0..50 {
        made.push(one_call(&journal, &session, n).await);
    }
    ship_all(shipper(&warehouse, &journal), &journal).await;
    let now = OffsetDateTime::now_utc();
    for (since, expected) in [(None, 50), (Some(now - time::Duration::HOUR), 50), (Some(now + time::Duration::HOUR), 0)]
    {
        let wanted = EventFilter { names: vec!["call-intent"], since, always: Vec::new() };
        let events: Vec<_> = warehouse.events(wanted.clone()).try_collect().await.unwrap();
        let ours: Vec<_> = JournalQuery::new(dir.path()).events(wanted).try_collect().await.unwrap();
        assert_eq!(events, ours);
        let calls: Vec<_> = events
            .into_iter()
            .map(|event| match event {
                Event::CallIntent(intent) => (intent.id, intent.call.unwrap().resources),
                other => panic!("{other:?}"),
            })
            .collect();
        let resources = vec!["arn:aws:s3:::bucket/key".to_owned()];
        let wanted: Vec<_> = made.iter().take(expected).map(|id| (*id, resources.clone())).collect();
        assert_eq!(calls, wanted);
    }
    let wanted = EventFilter {
        names: vec!["call-outcome"],
        since: Some(now + time::Duration::HOUR),
        always: vec!["session-started"],
    };
    for (since, expected) in [(None, 51), (wanted.since, 1)] {
        let wanted = EventFilter { since, ..wanted.clone() };
        let names: Vec<_> = warehouse.events(wanted.clone()).map_ok(|event| event.name()).try_collect().await.unwrap();
        assert_eq!((names.len(), names[0]), (expected, "session-started"));
        assert_eq!(names.get(1), (expected > 1).then_some(&"call-outcome"));
        let ours = JournalQuery::new(dir.path());
        let ours: Vec<_> = ours.events(wanted).map_ok(|event| event.name()).try_collect().await.unwrap();
        assert_eq!(names, ours);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_arrived_and_was_not_confirmed_is_taken_once() {
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let warehouse = server.warehouse();
    warehouse.migrate().await.unwrap();
    warehouse.migrate().await.unwrap(); // nothing to do
    let journal = journal(dir.path());
    let session = samples::session();
    for n in 0..200 {
        one_call(&journal, &session, n).await;
    }
    // A shipper sends everything of a first batch, and dies before it says so.
    let first = journal.subscribe().borrow().seq;
    let source = Source { tenant: String::new(), node: "node".into(), journal: journal.id() };
    let mut gatherer = Gatherer::begin(dir.path(), source, Position::default(), Position::default()).unwrap();
    let batch = gatherer.gather(first, false).unwrap();
    write_plan(dir.path(), Plan { from: batch.from.seq, to: batch.to.seq }).unwrap();
    shipper(&warehouse, &journal).insert(&batch).await.unwrap();
    // Meanwhile the journal has grown.
    for n in 200..400 {
        one_call(&journal, &session, n).await;
    }
    one_call(&journal, &session, 500).await;
    ship_all(shipper(&warehouse, &journal), &journal).await;
    assert_eq!(raw(&warehouse, "SELECT count() FROM calls").await, 401);
    assert_eq!(raw(&warehouse, "SELECT count() FROM ledger").await, journal.subscribe().borrow().seq.0);
    assert_eq!(
        raw(&warehouse, "SELECT count() FROM body_parts").await,
        raw(&warehouse, "SELECT uniqExact(seq) FROM body_parts").await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_warehouse_answers_as_the_journal_does() {
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let warehouse = server.warehouse();
    let journal = journal(dir.path());
    let session = samples::session();
    journal.append(&samples::session_started(&session), false).await.unwrap();
    let connection = ConnectionId::new();
    let Event::CallIntent(intent) = samples::intent(CallId::new(), session.id) else { unreachable!() };
    let opened = ConnectionOpened {
        id: connection,
        session: session.id,
        at: OffsetDateTime::now_utc(),
        process: intent.process.clone(),
        destination: OriginalDst("192.0.2.1:443".parse().unwrap()),
        upstream: None,
        name: Some("example.com".into()),
        kind: ConnectionKind::Passed,
        error: None,
        decision: None,
    };
    journal.append(&Event::ConnectionOpened(Box::new(opened)), false).await.unwrap();
    for n in 0..20 {
        one_call(&journal, &session, n).await;
    }
    // A big body, of which many parts are alike.
    let big = CallId::new();
    journal.append(&samples::intent(big, session.id), false).await.unwrap();
    let mut body = journal.body(big, Direction::Response);
    let mut content = Vec::new();
    for n in 0..100u8 {
        let part = Bytes::from(vec![n / 2; 60_000]);
        content.extend_from_slice(&part);
        std::future::poll_fn(|cx| body.poll_ready(cx)).await.unwrap();
        body.push(part).unwrap();
    }
    let digest = body.finish();
    journal.append(&samples::outcome(big, session.id, None, Some(digest)), false).await.unwrap();
    let mut denied = intent;
    denied.decision.verdict = Verdict::Deny;
    let made = samples::command(Some(session.id), &["aws", "s3", "mb"]);
    let deleted = samples::command(None, &["aws", "s3", "rb"]);
    denied.process = ProcessFacts { command: Some(deleted.id), ..(*denied.process).clone() }.into();
    let ended = CommandEnded { id: made.id, at: OffsetDateTime::now_utc(), exit: CommandExit::Signal(9) };
    let lost = CommandsLost { at: OffsetDateTime::now_utc(), count: 7 };
    for event in [
        Event::CommandStarted(Box::new(made.clone())),
        Event::CommandStarted(Box::new(deleted.clone())),
        Event::CommandEnded(ended),
        Event::CommandsLost(lost),
    ] {
        journal.append(&event, false).await.unwrap();
    }
    journal.append(&Event::CallIntent(denied.clone()), false).await.unwrap();
    journal.append(&samples::outcome(denied.id, session.id, None, None), false).await.unwrap();
    let closed = ConnectionClosed {
        id: connection,
        session: session.id,
        at: OffsetDateTime::now_utc(),
        sent_bytes: 1,
        received_bytes: 2,
        error: None,
    };
    journal.append(&Event::ConnectionClosed(closed), false).await.unwrap();
    let ended = SessionEnded { id: session.id, at: OffsetDateTime::now_utc(), why: "the cgroup is empty".into() };
    journal.append(&Event::SessionEnded(ended), true).await.unwrap();
    ship_all(shipper(&warehouse, &journal), &journal).await;

    let filters = [
        CallFilter::default(),
        CallFilter { session: Some(session.id), service: Some("s3".into()), ..CallFilter::default() },
        CallFilter { action: Some("S3:put*".into()), agent: Some("coder".into()), ..CallFilter::default() },
        CallFilter { action: Some("s3:Put_bject".into()), ..CallFilter::default() },
        CallFilter { decision: Some(Verdict::Deny), ..CallFilter::default() },
        CallFilter { until: Some(session.started), ..CallFilter::default() },
        CallFilter { since: Some(session.started), ..CallFilter::default() },
    ];
    for filter in filters {
        let mut calls = Calls::scan(dir.path(), filter.clone()).unwrap();
        let mut ours: Vec<_> = std::iter::from_fn(|| calls.next_row().unwrap()).collect();
        // ClickHouse keeps microseconds.
        for row in &mut ours {
            let micros = row.started.unix_timestamp_nanos() / 1000;
            row.started = OffsetDateTime::from_unix_timestamp_nanos(micros * 1000).unwrap();
        }
        ours.sort_by_key(|row| (row.started, row.id));
        assert_eq!(warehouse.calls(&filter, 1000).await.unwrap(), ours, "{filter:?}");
    }
    // The commands, and which of them made a call.
    let mut commands = chaperone_journal::Commands::scan(dir.path(), None).unwrap();
    let mut ours: Vec<_> = std::iter::from_fn(|| commands.next_row().unwrap()).collect();
    ours.extend(commands.open_rows());
    let theirs = warehouse.commands(None, 10).await.unwrap();
    assert_eq!(theirs.iter().map(|row| row.id).collect::<Vec<_>>(), [made.id, deleted.id]);
    for (theirs, ours) in theirs.iter().zip(&ours) {
        let key = |row: &chaperone_journal::CommandRow| {
            let row = row.clone();
            (row.id, row.session, row.parent, row.exit, row.argv, row.exe_sha256, row.directory, row.pid)
        };
        assert_eq!(key(theirs), key(ours));
    }
    assert_eq!(warehouse.commands(Some(session.id), 10).await.unwrap().len(), 1);
    let who = "SELECT count() FROM calls AS calls FINAL JOIN commands ON commands.id = calls.command \
               WHERE has(commands.argv, 'rb')";
    assert_eq!(raw(&warehouse, who).await, 1);
    assert_eq!(raw(&warehouse, "SELECT sum(count) FROM commands_lost").await, 7);
    let (theirs, ours) = (warehouse.sessions().await.unwrap(), sessions(dir.path()).unwrap());
    assert_eq!((theirs.len(), ours.len()), (1, 1));
    let key = |row: &chaperone_journal::SessionRow| {
        let row = row.clone();
        (row.id, row.calls, row.denied, row.connections, row.request_bytes, row.response_bytes, row.why, row.cgroup)
    };
    assert_eq!(key(&theirs[0]), key(&ours[0]));
    assert!(ours[0].container.is_some());
    assert_eq!(theirs[0].container, ours[0].container);
    assert_eq!(raw(&warehouse, "SELECT count() FROM sessions WHERE container_labels['team'] = 'red'").await, 1);
    assert_eq!(theirs[0].calls, 22);

    let theirs = warehouse.exchange(big).await.unwrap().unwrap();
    let ours = Exchange::find(dir.path(), big).unwrap().unwrap();
    assert_eq!((&theirs.row, &theirs.intent, &theirs.outcome), (&ours.row, &ours.intent, &ours.outcome));
    let mut body = warehouse.body(big, Direction::Response).await.unwrap();
    assert_eq!(body.remaining(), content.len() as u64);
    let mut got = Vec::new();
    while let Some(part) = body.next_part().await.unwrap() {
        got.extend_from_slice(&part);
    }
    assert!(got == content);
    assert!(warehouse.exchange(CallId::new()).await.unwrap().is_none());

    let (theirs, ours): (&dyn Query, &dyn Query) = (&warehouse, &JournalQuery::new(dir.path()));
    let (mut rows, mut bodies) = (Vec::new(), Vec::new());
    for record in [theirs, ours] {
        rows.push(record.connections(None, 10).try_collect::<Vec<_>>().await.unwrap());
        assert_eq!(record.connections(Some(SessionId::new()), 10).try_collect::<Vec<_>>().await.unwrap(), []);
        let parts: Vec<_> = record.body(big, Body::Of(Direction::Response)).try_collect().await.unwrap();
        bodies.push(parts.concat());
        assert!(record.body(CallId::new(), Body::Of(Direction::Response)).try_next().await.unwrap().is_none());
    }
    assert_eq!((rows[0].len(), rows[0][0].received_bytes), (1, 2));
    // ClickHouse has microseconds, the journal nanoseconds.
    for row in &mut rows[1] {
        row.opened = row.opened.truncate_to_microsecond();
        row.closed = row.closed.map(OffsetDateTime::truncate_to_microsecond);
    }
    assert_eq!(rows[0], rows[1]);
    assert!(bodies.iter().all(|body| *body == content));
    assert_eq!(raw(&warehouse, "SELECT sum(received_bytes) FROM connections").await, 2);
    assert_eq!(raw(&warehouse, "SELECT count() FROM denials").await, 1);
    assert_eq!(warehouse.chain_breaks(10).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_policies_said_of_connections_is_in_the_warehouse() {
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let warehouse = server.warehouse();
    let journal = journal(dir.path());
    let session = samples::session();
    journal.append(&samples::session_started(&session), false).await.unwrap();
    let Event::CallIntent(intent) = samples::intent(CallId::new(), session.id) else { unreachable!() };
    let decided = |verdict, reason, policy: &str| Decision {
        verdict,
        reason,
        policies: vec![policy.to_owned()],
        policy_version: "ab".repeat(32),
        message: format!("{policy} says so"),
    };
    for (name, kind, decision) in [
        ("asked.example", ConnectionKind::Passed, Some(decided(Verdict::Allow, Reason::Permitted, "known"))),
        ("refused.example", ConnectionKind::Refused, Some(decided(Verdict::Deny, Reason::Forbidden, "only-these"))),
        ("refused.example", ConnectionKind::Refused, Some(decided(Verdict::Deny, Reason::Forbidden, "only-these"))),
        ("sts.amazonaws.com", ConnectionKind::Inspected, None),
    ] {
        let opened = ConnectionOpened {
            id: ConnectionId::new(),
            session: session.id,
            at: OffsetDateTime::now_utc(),
            process: intent.process.clone(),
            destination: OriginalDst("192.0.2.1:443".parse().unwrap()),
            upstream: None,
            name: Some(name.into()),
            kind,
            error: None,
            decision,
        };
        journal.append(&Event::ConnectionOpened(Box::new(opened)), false).await.unwrap();
    }
    ship_all(shipper(&warehouse, &journal), &journal).await;
    for (condition, count) in [
        ("name = 'asked.example' AND decision = 'allow' AND reason = 'permitted' AND policies = ['known']", 1),
        (
            "decision = 'deny' AND reason = 'forbidden' AND message = 'only-these says so' AND length(policy_version) = 64",
            2,
        ),
        ("name = 'sts.amazonaws.com' AND decision = '' AND policies = [] AND reason = ''", 1),
    ] {
        let sql = format!("SELECT count() FROM connections WHERE {condition}");
        assert_eq!(raw(&warehouse, &sql).await, count, "{condition}");
    }
    let refused = "SELECT sum(connections) FROM refused_destinations(since = now() - 60, until = now() + 60) \
                   WHERE host = 'refused.example' AND agent = 'coder' AND policy = 'only-these'";
    assert_eq!(raw(&warehouse, refused).await, 2);
    let hosts = "SELECT count() FROM refused_destinations(since = now() - 60, until = now() + 60)";
    assert_eq!(raw(&warehouse, hosts).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changes_in_the_warehouse_is_found_there() {
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let warehouse = server.warehouse();
    let journal = journal(dir.path());
    let session = samples::session();
    for n in 0..10 {
        one_call(&journal, &session, n).await;
    }
    journal.append(&samples::session_started(&session), true).await.unwrap();
    ship_all(shipper(&warehouse, &journal), &journal).await;
    assert_eq!(warehouse.chain_breaks(10).await.unwrap(), []);
    let change = |sql: &'static str| {
        let client = warehouse.client().clone().with_setting("mutations_sync", "2");
        async move { client.query_raw(sql).execute().await.unwrap() }
    };
    change("ALTER TABLE ledger UPDATE payload = replaceAll(payload, 'coder', 'other') WHERE seq = 2").await;
    change("ALTER TABLE ledger UPDATE flags = 0, digest = SHA256('x') WHERE seq = 7").await;
    change("ALTER TABLE ledger DELETE WHERE seq = 11").await;
    let breaks = warehouse.chain_breaks(10).await.unwrap();
    let places: Vec<_> = breaks.iter().map(|found| found.seq).collect();
    assert_eq!(places, [2, 7, 12], "{breaks:?}");

    // A journal that was put back from an old copy is not taken for a new one.
    let old = Shipper::new(
        warehouse.clone(),
        quick(),
        dir.path(),
        journal.id(),
        tokio::sync::watch::Sender::new(Position::default()).subscribe(),
    );
    let mut status = old.status();
    let running = tokio::spawn(old.run(std::future::pending()));
    let error = status.wait_for(|status| status.error.is_some()).await.unwrap().error.clone().unwrap();
    assert!(error.contains("taken from its end"), "{error}");
    running.abort();

    // Steps of a later version that say so can be gone on with.
    change("INSERT INTO schema_migrations (version, name, needs) VALUES (998, 'added', 5)").await;
    warehouse.migrate().await.unwrap();
    // A schema of the future is left alone.
    change("INSERT INTO schema_migrations (version, name) VALUES (999, 'future')").await;
    assert!(matches!(warehouse.migrate().await, Err(WarehouseError::NewerSchema { found: 999, .. })));
}

/// A journal and a schema of the next version, after which this one goes on: all of it is in the ledger, by name.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_next_version_recorded_is_shipped_by_this_one() {
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let warehouse = server.warehouse();
    let session = samples::session();
    let written = journal(dir.path());
    one_call(&written, &session, 1).await;
    ship_all(shipper(&warehouse, &written), &written).await;
    drop(written);

    // The next version adds columns and tables, and says that this one can go on.
    let run = |sql: &'static str| {
        let client = warehouse.client().clone();
        async move { client.query_raw(sql).execute().await.unwrap() }
    };
    run("ALTER TABLE ledger ADD COLUMN sealed_to Array(String) DEFAULT []").await;
    run("ALTER TABLE calls ADD COLUMN held_us UInt64 DEFAULT 0").await;
    run("INSERT INTO schema_migrations (version, name, needs) VALUES (77, 'holds', 5)").await;
    let open = CallId::new();
    let mut segment = next::Segment::begin(dir.path(), &serde_json::json!({ "minor": 77, "written_by": "9.9.9" }));
    let mut intent = serde_json::to_value(samples::intent(open, session.id)).unwrap();
    intent["decision"]["verdict"] = "held".into();
    segment.event(*open.as_bytes(), &intent);
    segment.end();
    let last = next::write_next_version(dir.path(), *open.as_bytes());

    let again = journal(dir.path());
    one_call(&again, &session, 2).await;
    ship_all(shipper(&warehouse, &again), &again).await;
    let end = again.subscribe().borrow().seq.0;
    assert!(end > last);
    assert_eq!(raw(&warehouse, "SELECT count() FROM ledger FINAL").await, end);
    assert_eq!(warehouse.chain_breaks(10).await.unwrap(), []);
    for (condition, count) in [
        ("event = 'call-held' AND kind = 'event' AND about = unhex(repeat('07', 16))", 1),
        ("event = 'call-held' AND JSONExtractString(payload, 'approvers', 1) = 'ops'", 1),
        ("event = 'call-intent'", 3),
        ("event = 'call-outcome'", 3),
        ("kind = 'unknown-200' AND code = 200 AND flags = 132 AND hex(payload) = 'FF0062696E617279'", 1),
        ("kind = 'header' AND JSONExtractString(payload, 'written_by') = '9.9.9'", 2),
        ("flags = 140 OR flags = 132", 2),
        ("event = '' AND kind = 'event'", 0),
    ] {
        let sql = format!("SELECT count() FROM ledger FINAL WHERE {condition}");
        assert_eq!(raw(&warehouse, &sql).await, count, "{condition}");
    }
    assert_eq!(raw(&warehouse, "SELECT count() FROM calls FINAL").await, 2);
}
