//! A journal with many calls, also in ClickHouse, for measuring what reads them: `chaperone policy try`.
//!
//!     cargo run --profile lab -p chaperone-warehouse --example recorded_calls -- DIR CALLS [URL]
//!
//! Writes CALLS calls of twenty sessions, each with its outcome, into a journal in DIR; one in a hundred with parameters that
//! were cut. With the address of ClickHouse's HTTP interface it ships them into the database `chaperone`.

#![allow(clippy::unwrap_used)] // a measurement

#[path = "../../journal/src/samples.rs"]
#[allow(dead_code, unreachable_pub)]
mod samples;

use chaperone_journal::{Journal, JournalConfig};
use chaperone_model::{AccessLevel, Action, CallId, Event, TRUNCATED};
use chaperone_warehouse::{Shipper, ShipperOptions, Warehouse, WarehouseConfig};

const ACTIONS: [(&str, &str, &str, AccessLevel); 6] = [
    ("s3", "GetObject", "arn:aws:s3:::bucket/key", AccessLevel::Read),
    ("s3", "PutObject", "arn:aws:s3:::bucket/key", AccessLevel::Write),
    ("s3", "DeleteObject", "arn:aws:s3:::bucket/key", AccessLevel::Write),
    ("ec2", "RunInstances", "arn:aws:ec2:eu-west-1:123456789012:instance/*", AccessLevel::Write),
    ("sqs", "SendMessage", "arn:aws:sqs:eu-west-1:123456789012:queue", AccessLevel::Write),
    ("dynamodb", "GetItem", "arn:aws:dynamodb:eu-west-1:123456789012:table/orders", AccessLevel::Read),
];

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().expect("the folder of the journal that is to be made");
    let calls: usize = arguments.next().expect("how many calls").parse().unwrap();
    let (journal, _) = Journal::open(JournalConfig::new(dir)).unwrap();
    let sessions: Vec<_> = (0..20).map(|_| samples::session()).collect();
    for session in &sessions {
        journal.append(&samples::session_started(session), false).await.unwrap();
    }
    for n in 0..calls {
        let (id, session) = (CallId::new(), sessions[n % sessions.len()].id);
        let mut event = samples::intent(id, session);
        let Event::CallIntent(intent) = &mut event else { unreachable!("BUG: a sample of an intent is one") };
        let (service, operation, resource, level) = ACTIONS[n % ACTIONS.len()];
        let call = intent.call.as_mut().unwrap();
        (call.service, call.operation) = (service.into(), operation.into());
        call.actions = vec![Action { name: format!("{service}:{operation}").into(), level }];
        call.resources = vec![format!("{resource}{}", n % 1000)];
        call.parameters = serde_json::json!({ "Bucket": "bucket", "InstanceType": "t3.micro", "Number": n });
        if n % 100 == 99 {
            call.parameters[TRUNCATED] = true.into();
        }
        intent.decision.message.clear();
        journal.append(&event, false).await.unwrap();
        journal.append(&samples::outcome(id, session, None, None), n + 1 == calls).await.unwrap();
    }
    let last = journal.subscribe().borrow().seq;
    if let Some(url) = arguments.next() {
        let warehouse = Warehouse::new(WarehouseConfig::new(url, "node")).unwrap();
        warehouse.migrate().await.unwrap();
        let shipper =
            Shipper::new(warehouse, ShipperOptions::default(), journal.dir(), journal.id(), journal.subscribe());
        let mut status = shipper.status();
        let running = tokio::spawn(shipper.run(std::future::pending()));
        status.wait_for(|status| status.shipped.seq >= last).await.unwrap();
        running.abort();
    }
    journal.close().await.unwrap();
    println!("{calls} calls, {last} records");
}
