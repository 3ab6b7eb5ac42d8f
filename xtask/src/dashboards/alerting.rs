//! Grafana's alert rules on ClickHouse: what the fleet's record tells, where Prometheus' rules tell of one host's daemon.

use serde_json::{Value, json};

/// A rule: it fires while its query's number is above the bound.
struct Alert {
    uid: &'static str,
    title: &'static str,
    /// One number, over the last quarter of an hour or what the query says.
    sql: &'static str,
    above: u32,
    severity: &'static str,
    /// What to do, as a command or a section of the docs.
    then: &'static str,
}

const ALERTS: &[Alert] = &[
    Alert {
        uid: "chaperone-host-silent",
        title: "A host has shipped nothing for an hour",
        sql: "SELECT countIf(silent_seconds > 3600) AS silent FROM hosts WHERE last_shipped > now() - INTERVAL 7 DAY",
        above: 0,
        severity: "critical",
        then: "chaperone ask hosts; then docs/alerts.md, ChaperoneDown and ChaperoneWarehouseLags, on that host",
    },
    Alert {
        uid: "chaperone-records-missing",
        title: "Records are missing in ClickHouse",
        sql: "SELECT sumIf(amount, what = 'records missing') AS missing FROM gaps(since = now() - INTERVAL 1 DAY)",
        above: 0,
        severity: "critical",
        then: "chaperone ask gaps; the journal on the host has what is missing: chaperone verify",
    },
    Alert {
        uid: "chaperone-critical-allowed",
        title: "A critical action was allowed",
        sql: "SELECT count() AS calls FROM risky_calls(since = now() - INTERVAL 15 MINUTE, until = now()) \
              WHERE severity = 'critical' AND decision = 'allow'",
        above: 0,
        severity: "critical",
        then: "chaperone ask risky_calls since=1h; chaperone stop AGENT, if it shouldn't have been",
    },
    Alert {
        uid: "chaperone-foreign-keys",
        title: "Calls are signed by keys that aren't the agents'",
        sql: "SELECT count() AS calls FROM foreign_authority(since = now() - INTERVAL 15 MINUTE, until = now())",
        above: 0,
        severity: "warning",
        then: "chaperone ask foreign_authority since=1h: where did the agent get the key?",
    },
    Alert {
        uid: "chaperone-destinations-refused",
        title: "Agents try again and again to get where policies don't let them",
        sql: "SELECT sum(connections) AS connections \
              FROM refused_destinations(since = now() - INTERVAL 15 MINUTE, until = now())",
        above: 50,
        severity: "warning",
        then: "chaperone ask refused_destinations since=1h",
    },
];

/// The file for Grafana's folder `provisioning/alerting`.
pub(super) fn file() -> Value {
    let rules: Vec<_> = ALERTS.iter().map(rule).collect();
    json!({
        "apiVersion": 1,
        "groups": [{ "orgId": 1, "name": "chaperone", "folder": "Chaperone", "interval": "5m", "rules": rules }],
    })
}

fn rule(alert: &Alert) -> Value {
    let range = json!({ "from": 900, "to": 0 });
    json!({
        "uid": alert.uid,
        "title": alert.title,
        "condition": "B",
        "for": "5m",
        "noDataState": "OK",
        "execErrState": "Error",
        "labels": { "severity": alert.severity },
        "annotations": { "summary": alert.title, "description": alert.then },
        "data": [
            {
                "refId": "A",
                "relativeTimeRange": range,
                "datasourceUid": "chaperone",
                "model": { "refId": "A", "editorType": "sql", "rawSql": alert.sql, "format": 1, "queryType": "table" },
            },
            {
                "refId": "B",
                "relativeTimeRange": range,
                "datasourceUid": "__expr__",
                "model": {
                    "refId": "B",
                    "type": "threshold",
                    "expression": "A",
                    "conditions": [{ "evaluator": { "type": "gt", "params": [alert.above] } }],
                },
            },
        ],
    })
}
