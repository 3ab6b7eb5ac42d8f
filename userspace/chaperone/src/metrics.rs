//! The daemon's metrics, read from where they are counted.

use chaperone_approvals::messages::LaneStatus;
use chaperone_capture::Counters;
use chaperone_console::{Kind, Metric};
use chaperone_model::OutcomeStatus;
use chaperone_proxy::{CallLabels, Calls, DataPlane};
use chaperone_warehouse::ShipperStatus;
use time::OffsetDateTime;

/// All metrics, now.
pub fn read(
    shared: &DataPlane,
    counters: &Counters,
    hooks_in_force: bool,
    shipping: Option<&ShipperStatus>,
    receivers: &[LaneStatus],
    ca_expires: OffsetDateTime,
) -> Vec<Metric> {
    let metrics = &shared.metrics;
    let mut all = vec![
        gauge("connections", "Connections of agents that are open", metrics.connections.get()),
        counter("connections_accepted", "Connections of agents that were accepted", metrics.accepted.get()),
        counter(
            "connections_refused",
            "Connections refused: no origin, session, name or handshake",
            metrics.refused.get(),
        ),
        counter(
            "connections_over_share",
            "… among them those of agents that had as many as limits.session_connections allows",
            metrics.over_share.connections.get(),
        ),
        counter(
            "requests_over_memory_share",
            "Requests refused because their session, their agent or all together held as much memory as they may",
            metrics.over_share.memory.get(),
        ),
        counter(
            "requests_over_refusal_share",
            "Requests refused, and not recorded one by one, because limits.refusals_per_second were refused already",
            metrics.over_share.refusals.get(),
        ),
        gauge(
            "request_memory_bytes",
            "Memory that agents' requests hold, of limits.spool_total_bytes",
            shared.memory_used() as u64,
        ),
        counter(
            "connections_passed",
            "Connections passed on unopened, because they aren't AWS's",
            metrics.passed.get(),
        ),
        counter("metadata_connections", "Connections to the metadata services' stand-in", metrics.metadata.get()),
        counter("requests", "Requests on opened connections", metrics.requests.get()),
        counter("requests_denied", "Requests refused by policy or because they can't be trusted", metrics.denied.get()),
        counter("requests_unrecorded", "Requests refused because they could not be recorded", metrics.unrecorded.get()),
        counter("commands_undigested", "Commands recorded without the digest of their file", metrics.undigested.get()),
    ];
    all.push(calls(&metrics.calls));
    for (name, help, durations) in [
        (
            "call_duration_seconds",
            "How long forwarded calls took, from the head read to the answer's end",
            &metrics.seconds,
        ),
        ("ruling_duration_seconds", "How long policies took to rule on a call", &metrics.ruling),
        ("recording_duration_seconds", "How long calls waited until their intent was on record", &metrics.recording),
    ] {
        all.push(Metric { name, help, kind: Kind::Histogram(durations.histogram()), values: Vec::new() });
    }
    all.push(gauge(
        "stops",
        "Agents, sessions and groups that operators have stopped",
        shared.stops.list().len() as u64,
    ));
    all.push(Metric {
        name: "ca_expiry_timestamp_seconds",
        help: "When the local CA's certificate ends, in seconds since 1970",
        kind: Kind::Gauge,
        values: vec![(vec![], seconds(ca_expires))],
    });
    let expiries = shared.generation().lending.expiries();
    all.push(Metric {
        name: "credentials_expiry_timestamp_seconds",
        help: "When the credentials end that calls are signed with, in seconds since 1970: of each role, and the daemon's own",
        kind: Kind::Gauge,
        values: expiries
            .into_iter()
            .map(|(role, expiry)| (vec![("role", role)], seconds(OffsetDateTime::from(expiry))))
            .collect(),
    });
    all.push(Metric {
        name: "build_info",
        help: "1, with the version as a label",
        kind: Kind::Gauge,
        values: vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)],
    });
    if let Ok(state) = shared.journal.state() {
        all.push(gauge(
            "journal_writable",
            "1 while calls can be recorded, else 0",
            u64::from(state.trouble.is_none()),
        ));
        all.push(gauge("journal_room_bytes", "Bytes that can be recorded before the disk is full", state.room_bytes));
        all.push(gauge("journal_used_bytes", "Bytes of the journal's segments", state.used_bytes));
        all.push(gauge("journal_queued_bytes", "Bytes of records that wait for the disk", state.queued_bytes as u64));
        all.push(gauge("journal_segments", "Segments of the journal", state.segments));
        all.push(counter("journal_syncs", "How often the disk made records durable", state.syncs));
        all.push(Metric {
            name: "journal_sync_seconds",
            help: "How long that took in all",
            kind: Kind::Counter,
            values: vec![(vec![], std::time::Duration::from_micros(state.sync_micros).as_secs_f64())],
        });
        all.push(gauge("journal_committed_seq", "Number of the last durable record", state.committed.seq.0));
    }
    all.push(gauge(
        "hooks_in_force",
        "1 while the kernel hooks are as they were attached, else 0",
        u64::from(hooks_in_force),
    ));
    if let Ok(counted) = counters.read() {
        all.push(Metric {
            name: "hook_events",
            help: "What the kernel hooks did, by outcome",
            kind: Kind::Counter,
            values: counted
                .into_iter()
                .map(|(counter, value)| (vec![("outcome", counter.as_str().to_owned())], float(value)))
                .collect(),
        });
    }
    if let Some(status) = shipping {
        all.push(gauge("warehouse_lag_records", "Durable records that ClickHouse hasn't got", status.lag_records));
        all.push(gauge("warehouse_lag_bytes", "About how many bytes they are", status.lag_bytes));
        all.push(counter("warehouse_records", "Records shipped to ClickHouse", status.records));
        all.push(counter("warehouse_batches", "Batches of them", status.batches));
        all.push(counter("warehouse_shipped_bytes", "Bytes of them, as the journal has them", status.bytes));
        all.push(counter(
            "warehouse_fail_overs",
            "How often records went on to another address of ClickHouse's",
            status.fail_overs,
        ));
        all.push(Metric {
            name: "warehouse_unshipped_age_seconds",
            help: "How old the oldest record that ClickHouse lacks is at most",
            kind: Kind::Gauge,
            values: vec![(vec![], unshipped_age(status, OffsetDateTime::now_utc()))],
        });
        all.push(gauge(
            "warehouse_retention_applied",
            "1 while tables keep their rows as the configuration says, else 0",
            u64::from(status.retention_error.is_none()),
        ));
        all.push(counter(
            "warehouse_failures",
            "Inserts into ClickHouse that failed and were tried again",
            status.failures,
        ));
    }
    let open = shared.approvals.questions().iter().filter(|asking| asking.state.is_open()).count();
    all.push(gauge("approvals_open", "Questions to approvers that are open", open as u64));
    let of = |name, help, kind, value: fn(&LaneStatus) -> u64| Metric {
        name,
        help,
        kind,
        values: receivers.iter().map(|it| (vec![("receiver", it.name.clone())], float(value(it)))).collect(),
    };
    if !receivers.is_empty() {
        all.extend([
            of("approval_messages_waiting", "Messages about questions that wait to be delivered", Kind::Gauge, |it| {
                it.waiting as u64
            }),
            of("approval_messages_dead", "Messages about questions that were given up", Kind::Gauge, |it| {
                it.dead as u64
            }),
            of("approval_messages_delivered", "Messages about questions that were delivered", Kind::Counter, |it| {
                it.delivered
            }),
            of("approval_messages_failed", "Attempts to deliver a message that failed", Kind::Counter, |it| it.failed),
            of("approval_messages_trouble", "Whether something is wrong with a receiver now", Kind::Gauge, |it| {
                it.trouble.is_some().into()
            }),
        ]);
    }
    all.push(gauge("sessions", "Sessions that are open", shared.sessions.open().len() as u64));
    all
}

/// How old the oldest record that ClickHouse lacks is at most, in seconds; 0 where it lacks none, or where nothing was
/// shipped since the start, of which `warehouse_lag_records` tells.
fn unshipped_age(status: &ShipperStatus, now: OffsetDateTime) -> f64 {
    match status.shipped_until {
        Some(until) if status.lag_records > 0 => (now - until).as_seconds_f64().max(0.0),
        _ => 0.0,
    }
}

fn seconds(at: OffsetDateTime) -> f64 {
    (at - OffsetDateTime::UNIX_EPOCH).as_seconds_f64()
}

/// Calls by service, decision and class of status.
fn calls(calls: &Calls) -> Metric {
    let value = |(labels, count): (CallLabels, u64)| {
        let decision = if labels.outcome == OutcomeStatus::Denied { "deny" } else { "allow" };
        let outcome = match labels.outcome {
            OutcomeStatus::Completed => "completed",
            OutcomeStatus::Denied => "denied",
            OutcomeStatus::Aborted => "aborted",
            OutcomeStatus::Failed => "failed",
            OutcomeStatus::Interrupted => "interrupted",
        };
        let service = if labels.service.is_empty() { "none" } else { labels.service };
        let status = if labels.status_class == 0 { "none".to_owned() } else { format!("{}xx", labels.status_class) };
        let labels = vec![
            ("service", service.to_owned()),
            ("decision", decision.to_owned()),
            ("outcome", outcome.to_owned()),
            ("status", status),
        ];
        (labels, float(count))
    };
    let mut values: Vec<_> = calls.get().into_iter().map(value).collect();
    values.sort_by(|(one, _), (other, _)| one.cmp(other));
    Metric {
        name: "calls",
        help: "Calls that are over, by service, decision, how they ended and the class of their status",
        kind: Kind::Counter,
        values,
    }
}

fn counter(name: &'static str, help: &'static str, value: u64) -> Metric {
    Metric { name, help, kind: Kind::Counter, values: vec![(vec![], float(value))] }
}

fn gauge(name: &'static str, help: &'static str, value: u64) -> Metric {
    Metric { name, help, kind: Kind::Gauge, values: vec![(vec![], float(value))] }
}

/// Prometheus has floats alone; beyond 2^53 it counts roughly.
#[allow(clippy::cast_precision_loss)]
fn float(value: u64) -> f64 {
    value as f64
}
