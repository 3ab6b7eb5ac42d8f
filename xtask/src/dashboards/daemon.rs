//! Grafana's dashboard of the daemon's own metrics, from Prometheus.

use serde_json::{Value, json};

/// Questions, units of Grafana's, and PromQL; what tells lines apart stands in the legend.
const PANELS: [(&str, &str, &str, &str); 12] = [
    (
        "How many calls are there, and how do they end?",
        "reqps",
        "sum by (decision, outcome) (rate(chaperone_calls_total{instance=~\"$instance\"}[$__rate_interval]))",
        "{{decision}} {{outcome}}",
    ),
    (
        "Which services are called?",
        "reqps",
        "topk(10, sum by (service) (rate(chaperone_calls_total{instance=~\"$instance\"}[$__rate_interval])))",
        "{{service}}",
    ),
    (
        "What does AWS answer?",
        "reqps",
        "sum by (status) (rate(chaperone_calls_total{instance=~\"$instance\"}[$__rate_interval]))",
        "{{status}}",
    ),
    (
        "How long do calls take, for 99 of 100?",
        "s",
        "histogram_quantile(0.99, sum by (le, instance) \
         (rate(chaperone_call_duration_seconds_bucket{instance=~\"$instance\"}[$__rate_interval])))",
        "{{instance}}",
    ),
    (
        "How long do policies take, for 99 of 100?",
        "s",
        "histogram_quantile(0.99, sum by (le, instance) \
         (rate(chaperone_ruling_duration_seconds_bucket{instance=~\"$instance\"}[$__rate_interval])))",
        "{{instance}}",
    ),
    (
        "How long do calls wait for their record, for 99 of 100?",
        "s",
        "histogram_quantile(0.99, sum by (le, instance) \
         (rate(chaperone_recording_duration_seconds_bucket{instance=~\"$instance\"}[$__rate_interval])))",
        "{{instance}}",
    ),
    (
        "How much memory do agents' requests hold?",
        "bytes",
        "chaperone_request_memory_bytes{instance=~\"$instance\"}",
        "{{instance}}",
    ),
    ("How many connections are open?", "short", "chaperone_connections{instance=~\"$instance\"}", "{{instance}}"),
    (
        "How much room has the journal?",
        "bytes",
        "chaperone_journal_room_bytes{instance=~\"$instance\"}",
        "{{instance}}",
    ),
    (
        "How far is ClickHouse behind?",
        "s",
        "chaperone_warehouse_unshipped_age_seconds{instance=~\"$instance\"}",
        "{{instance}}",
    ),
    ("Are the hooks in force?", "bool_yes_no", "chaperone_hooks_in_force{instance=~\"$instance\"}", "{{instance}}"),
    (
        "When do credentials and the CA end?",
        "s",
        "min by (instance, role) (chaperone_credentials_expiry_timestamp_seconds{instance=~\"$instance\"}) - time() or \
         chaperone_ca_expiry_timestamp_seconds{instance=~\"$instance\"} - time()",
        "{{instance}} {{role}}",
    ),
];

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${source}" })
}

/// The dashboard.
pub(super) fn rendered() -> Value {
    let panel = |(number, (title, unit, query, legend)): (u32, &(&str, &str, &str, &str))| {
        let at = number - 1;
        json!({
            "id": number,
            "type": "timeseries",
            "title": title,
            "datasource": source(),
            "gridPos": { "x": at % 2 * 12, "y": at / 2 * 8, "w": 12, "h": 8 },
            "targets": [{ "refId": "A", "datasource": source(), "expr": query, "legendFormat": legend }],
            "fieldConfig": {
                "defaults": { "unit": unit, "min": 0, "color": { "mode": "palette-classic-by-name" }, "noValue": "nothing in this time" },
                "overrides": [],
            },
            "options": {},
        })
    };
    json!({
        "uid": "chaperone-daemon",
        "title": "Chaperone: The daemons",
        "tags": ["chaperone"],
        "schemaVersion": 39,
        "editable": true,
        "graphTooltip": 1,
        "timezone": "utc",
        "time": { "from": "now-6h", "to": "now" },
        "refresh": "1m",
        "links": [],
        "templating": { "list": [
            {
                "type": "datasource", "name": "source", "label": "Prometheus", "query": "prometheus", "current": {},
                "options": [], "hide": 0, "refresh": 1,
            },
            {
                "type": "query", "name": "instance", "label": "Host", "datasource": source(), "multi": true,
                "includeAll": true, "query": "label_values(chaperone_build_info, instance)",
                "refresh": 2, "sort": 1, "hide": 0,
                "current": { "text": ["All"], "value": ["$__all"] }, "options": [],
            },
        ] },
        "annotations": { "list": [] },
        "panels": (1..).zip(&PANELS).map(panel).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_panel_asks_a_question_of_metrics_that_there_are() {
        let there = include_str!("../../../userspace/chaperone/src/metrics.rs");
        let name = regex::Regex::new(r"chaperone_([a-z_]+?)(_total|_bucket)?\{").unwrap();
        for (title, _, query, _) in PANELS {
            assert!(title.ends_with('?'), "{title}");
            let mut found = 0;
            for one in name.captures_iter(query) {
                found += 1;
                assert!(there.contains(&format!("\"{}\"", &one[1])), "{title}: {}", &one[1]);
            }
            assert!(found > 0, "{title}");
        }
    }
}
