//! How fast records get into ClickHouse.
//!
//!     cargo run --release -p chaperone-warehouse --example shipping -- URL [CALLS]
//!
//! Writes CALLS (100,000) calls with two small bodies each, then ships them into the database `shipping_example`.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss)] // a measurement

#[path = "../../journal/src/samples.rs"]
#[allow(dead_code, unreachable_pub)]
mod samples;

use std::time::Instant;

use bytes::Bytes;
use chaperone_journal::{Journal, JournalConfig};
use chaperone_model::{CallId, Direction};
use chaperone_warehouse::{Shipper, ShipperOptions, Warehouse, WarehouseConfig};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().expect("the address of ClickHouse's HTTP interface");
    let calls = arguments.next().map_or(100_000, |calls| calls.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(JournalConfig::new(dir.path())).unwrap();
    let session = samples::session();
    for n in 0..calls {
        let call = CallId::new();
        journal.append(&samples::intent(call, session.id), false).await.unwrap();
        let mut bodies = [Direction::Request, Direction::Response].map(|direction| journal.body(call, direction));
        for body in &mut bodies {
            body.push(Bytes::from(format!("{n:0>200}"))).unwrap();
        }
        let [request, response] = bodies.map(|body| Some(body.finish()));
        journal.append(&samples::outcome(call, session.id, request, response), n + 1 == calls).await.unwrap();
    }
    let last = journal.subscribe().borrow().seq;

    let config = WarehouseConfig { database: "shipping_example".into(), ..WarehouseConfig::new(url, "node") };
    let warehouse = Warehouse::new(config).unwrap();
    warehouse.migrate().await.unwrap();
    let options = ShipperOptions::default();
    let shipper = Shipper::new(warehouse, options, journal.dir(), journal.id(), journal.subscribe());
    let mut status = shipper.status();
    let began = Instant::now();
    let running = tokio::spawn(shipper.run(std::future::pending()));
    let batches = status.wait_for(|status| status.shipped.seq >= last).await.unwrap().batches;
    let seconds = began.elapsed().as_secs_f64();
    println!("{last} records in {batches} batches, {seconds:.1} s: {:.0} records/s", last.0 as f64 / seconds);
    running.abort();
}
