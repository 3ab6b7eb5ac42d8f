//! Several addresses: what arrives, and where, while they fail in turn.

use std::time::Duration;

use chaperone_journal::Journal;
use tokio::sync::{oneshot, watch};

use crate::{
    Shipper, ShipperOptions, ShipperStatus, Warehouse, WarehouseConfig, WarehouseError,
    relay_tests::{Mode, Relay},
    server_tests::{Server, journal, one_call, quick, raw, samples, ship_all},
};

/// What a server that is well doesn't take for an answer here, however busy the machine is.
const QUICK: Duration = Duration::from_secs(2);

fn warehouse(urls: Vec<String>) -> Warehouse {
    let config = WarehouseConfig { urls, ..WarehouseConfig::new("", "node") };
    Warehouse::new(config).unwrap().with_quick(QUICK)
}

fn shipper(warehouse: &Warehouse, journal: &Journal) -> Shipper {
    let options = ShipperOptions { timeout: QUICK, ..quick() };
    Shipper::new(warehouse.clone(), options, journal.dir(), journal.id(), journal.subscribe())
}

/// Writes calls until told to stop; how many.
async fn write_calls(journal: Journal, mut stop: oneshot::Receiver<()>) -> u64 {
    let session = samples::session();
    journal.append(&samples::session_started(&session), true).await.unwrap();
    let mut count = 0;
    while stop.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
        for _ in 0..20 {
            one_call(&journal, &session, usize::try_from(count).unwrap()).await;
            count += 1;
        }
        // Leave the two processors to the server, too.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    count
}

async fn more(status: &mut watch::Receiver<ShipperStatus>, but_not_by: &str) -> ShipperStatus {
    let (before, last) = (status.borrow().records, status.clone());
    let more = status.wait_for(|now| now.records > before + 100 && now.address != but_not_by);
    let Ok(more) = tokio::time::timeout(Duration::from_mins(1), more).await else {
        panic!("nothing more arrives: {:?}", last.borrow())
    };
    more.unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_one_server_fail_in_turn_and_every_record_arrives_once() {
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut server = Server::start(data.path());
    let mut ways = [Relay::start(server.http(), None).await, Relay::start(server.http(), None).await];
    let warehouse = warehouse(ways.iter().map(Relay::url).collect());
    let journal = journal(dir.path());
    let (stop, stopped) = oneshot::channel();
    let writer = tokio::spawn(write_calls(journal.clone(), stopped));

    let running = shipper(&warehouse, &journal);
    let mut status = running.status();
    let (end, ended) = oneshot::channel::<()>();
    let running = tokio::spawn(running.run(async move { drop(ended.await) }));
    for mode in [Mode::Closed, Mode::Silent, Mode::ReadOnly, Mode::Closed, Mode::Silent, Mode::ReadOnly] {
        let now = more(&mut status, "").await;
        let way = ways.iter_mut().find(|way| way.url() == now.address).unwrap();
        way.set(mode).await;
        more(&mut status, &now.address).await;
        way.set(Mode::Open).await;
    }
    assert!(status.borrow().fail_overs >= 6, "{:?}", status.borrow());
    // And the server itself, by both addresses.
    server.kill();
    status.wait_for(|now| now.error.is_some()).await.unwrap();
    server.restart();
    more(&mut status, "").await;
    stop.send(()).unwrap();
    let count = writer.await.unwrap();
    end.send(()).unwrap();
    running.await.unwrap();
    ship_all(shipper(&warehouse, &journal), &journal).await;

    assert_eq!(raw(&warehouse, "SELECT count() FROM calls").await, count);
    assert_eq!(raw(&warehouse, "SELECT uniqExact(id) FROM calls").await, count);
    assert_eq!(raw(&warehouse, "SELECT count() FROM ledger").await, journal.subscribe().borrow().seq.0);
    assert_eq!(warehouse.chain_breaks(10).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_shares_nothing_gets_nothing() {
    let (here, there, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut first, second) = (Server::start(here.path()), Server::start(there.path()));
    let url = |server: &Server| format!("http://127.0.0.1:{}", server.http());
    let both = warehouse(vec![url(&first), url(&second)]);
    let journal = journal(dir.path());
    let (stop, stopped) = oneshot::channel();
    let writer = tokio::spawn(write_calls(journal.clone(), stopped));
    let running = shipper(&both, &journal);
    let mut status = running.status();
    let (end, ended) = oneshot::channel::<()>();
    let running = tokio::spawn(running.run(async move { drop(ended.await) }));
    more(&mut status, "").await;

    first.kill();
    let refused = |now: &ShipperStatus| now.error.as_ref().is_some_and(|error| error.contains("isn't the store"));
    let error = status.wait_for(refused).await.unwrap().error.clone().unwrap();
    assert!(error.contains(&url(&second)) && error.contains("warehouse.urls"), "{error}");
    assert_eq!(raw(&warehouse(vec![url(&second)]), "SELECT count() FROM ledger").await, 0);
    first.restart();
    more(&mut status, "").await;
    stop.send(()).unwrap();
    let count = writer.await.unwrap();
    end.send(()).unwrap();
    running.await.unwrap();
    ship_all(shipper(&both, &journal), &journal).await;
    let first = warehouse(vec![url(&first)]);
    assert_eq!(raw(&first, "SELECT count() FROM calls").await, count);
    assert_eq!(raw(&first, "SELECT count() FROM ledger").await, journal.subscribe().borrow().seq.0);
    assert_eq!(raw(&warehouse(vec![url(&second)]), "SELECT count() FROM ledger").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_behind_is_not_taken_for_one_that_knows() {
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let ways = [Relay::start(server.http(), None).await, Relay::start(server.http(), None).await];
    let warehouse = warehouse(ways.iter().map(Relay::url).collect());
    let written = journal(dir.path());
    let session = samples::session();
    for n in 0..50 {
        one_call(&written, &session, n).await;
    }
    ship_all(shipper(&warehouse, &written), &written).await;
    drop(written);
    // As a replica is that hasn't got the last rows yet.
    warehouse.client().query_raw("RENAME TABLE shipped TO ahead").execute().await.unwrap();
    warehouse.client().query_raw("CREATE TABLE shipped AS ahead").execute().await.unwrap();
    let again = journal(dir.path());
    one_call(&again, &session, 1).await;
    let behind = shipper(&warehouse, &again);
    let mut status = behind.status();
    let running = tokio::spawn(behind.run(std::future::pending()));
    let waits = |now: &ShipperStatus| now.error.as_ref().is_some_and(|error| error.contains("this replica is behind"));
    status.wait_for(waits).await.unwrap();
    assert_eq!(raw(&warehouse, "SELECT uniqExact(id) FROM calls").await, 50);
    // It catches up, by itself.
    warehouse.client().query_raw("EXCHANGE TABLES shipped AND ahead").execute().await.unwrap();
    let last = again.subscribe().borrow().seq;
    status.wait_for(|now| now.shipped.seq >= last && now.error.is_none()).await.unwrap();
    running.abort();
    assert_eq!(raw(&warehouse, "SELECT count() FROM calls").await, 51);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_gets_an_answer_by_whichever_address_is_well() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut ways = [Relay::start(server.http(), None).await, Relay::start(server.http(), None).await];
    let warehouse = warehouse(ways.iter().map(Relay::url).collect()).with_quick(Duration::from_millis(500));
    for mode in [Mode::Closed, Mode::Silent] {
        let current = ways.iter_mut().find(|way| way.url() == warehouse.address()).unwrap();
        current.set(mode).await;
        let broken = current.url();
        warehouse.reach().await.unwrap();
        assert_ne!(warehouse.address(), broken);
        ways.iter_mut().find(|way| way.url() == broken).unwrap().set(Mode::Open).await;
    }
    for way in &mut ways {
        way.set(Mode::Silent).await;
    }
    let error = warehouse.reach().await.unwrap_err();
    assert!(matches!(error, WarehouseError::Silent { .. }), "{error}");
    assert!(error.to_string().contains("no answer within 0.5 s"), "{error}");
}
