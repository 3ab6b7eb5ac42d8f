//! `cargo xtask dashboards`: dashboards for Grafana and for Superset, and Grafana's alert rules, from one source.
//!
//! For Grafana's ClickHouse data source by Grafana Labs (`grafana-clickhouse-datasource`). Every panel's title is the
//! question that it answers. The queries are run against a ClickHouse by a test of `chaperone-warehouse`.

mod alerting;
mod daemon;
mod superset;
mod trial;

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::{place, setup};

/// Arguments of `cargo xtask dashboards`.
#[derive(Args, Debug)]
pub struct Options {
    /// Change nothing; fail unless the files are what would be written.
    #[arg(long)]
    check: bool,
    /// Read Grafana's by the types of its own foundation SDK, which are made from its schema.
    #[arg(long, conflicts_with_all = ["check", "superset"])]
    schema: bool,
    /// Import them into a real Superset over a month of generated calls, and take a picture of each into this folder. It
    /// takes some minutes the first time, and 1.5 GB.
    #[arg(long, value_name = "FOLDER", conflicts_with = "check")]
    superset: Option<PathBuf>,
    /// … over this ClickHouse, which `cargo xtask warehouse fill` has filled, instead of one of its own.
    #[arg(long, requires = "superset", value_name = "HOST:PORT")]
    clickhouse: Option<String>,
    /// … and leave Superset there to be looked at.
    #[arg(long, requires = "superset")]
    serve: bool,
}

/// How a panel shows its answer.
#[derive(Clone, Copy)]
enum Shape {
    /// One number, in a unit of Grafana's.
    Number(&'static str),
    /// Lines over time, in a unit of Grafana's.
    Lines(&'static str),
    /// Rows.
    Rows,
}

use Shape::{Lines, Number, Rows};

struct Dashboard {
    file: &'static str,
    title: &'static str,
    /// Variables besides the tenant, which all have.
    variables: &'static [&'static str],
    panels: &'static [(&'static str, Shape, &'static str)],
}

/// What every query of calls is bounded by.
const BOUNDS: &str = "tenant IN (${tenant:singlequote}) AND $__timeFilter(started)";
const SPAN: &str = "since = $__fromTime, until = $__toTime";

const DASHBOARDS: &[Dashboard] = &[
    Dashboard {
        file: "overview",
        title: "Overview",
        variables: &[],
        panels: &[
            ("How many calls were made?", Number("short"), "SELECT count() AS calls FROM calls WHERE {bounds}"),
            (
                "How many were denied?",
                Number("short"),
                "SELECT countIf(decision = 'deny') AS denied FROM calls WHERE {bounds}",
            ),
            (
                "How many agents were at work?",
                Number("short"),
                "SELECT uniq(agent) AS agents FROM calls WHERE {bounds}",
            ),
            (
                "How long is the oldest silence of a host?",
                Number("s"),
                "SELECT max(silent_seconds) AS silence FROM hosts WHERE tenant IN (${tenant:singlequote})",
            ),
            (
                "Which services are called?",
                Lines("short"),
                "SELECT $__timeInterval(started) AS time, toString(service) AS service, count() AS calls FROM calls \
                 WHERE {bounds} GROUP BY time, service ORDER BY time",
            ),
            (
                "What is decided?",
                Lines("short"),
                "SELECT $__timeInterval(started) AS time, toString(decision) AS decision, count() AS calls FROM calls \
                 WHERE {bounds} GROUP BY time, decision ORDER BY time",
            ),
            (
                "How much data goes to AWS?",
                Lines("bytes"),
                "SELECT $__timeInterval(started) AS time, sum(request_bytes) AS sent, sum(response_bytes) AS received \
                 FROM calls WHERE {bounds} GROUP BY time ORDER BY time",
            ),
            (
                "Which agents call most?",
                Rows,
                "SELECT agent, count() AS calls, countIf(decision = 'deny') AS denied, uniq(session) AS sessions \
                 FROM calls WHERE {bounds} GROUP BY agent ORDER BY calls DESC LIMIT 20",
            ),
        ],
    },
    Dashboard {
        file: "agent",
        title: "Agent",
        variables: &["agent"],
        panels: &[
            (
                "When was the agent at work?",
                Lines("short"),
                "SELECT $__timeInterval(started) AS time, toString(decision) AS decision, count() AS calls FROM calls \
                 WHERE {bounds} AND agent IN (${agent:singlequote}) GROUP BY time, decision ORDER BY time",
            ),
            (
                "What did the agent do?",
                Rows,
                "SELECT service, operation, decision, count() AS calls, sum(request_bytes) AS sent_bytes, \
                 max(started) AS last FROM calls WHERE {bounds} AND agent IN (${agent:singlequote}) \
                 GROUP BY service, operation, decision ORDER BY calls DESC LIMIT 100",
            ),
            (
                "What did the agent do for the first time?",
                Rows,
                "SELECT at, agent, kind, value FROM first_time_actions({span}) \
                 WHERE tenant IN (${tenant:singlequote}) AND agent IN (${agent:singlequote}) LIMIT 100",
            ),
            (
                "Which sessions did the agent have?",
                Rows,
                "SELECT session, min(started) AS first, max(started) AS last, count() AS calls, \
                 countIf(decision = 'deny') AS denied FROM calls \
                 WHERE {bounds} AND agent IN (${agent:singlequote}) GROUP BY session ORDER BY last DESC LIMIT 100",
            ),
        ],
    },
    Dashboard {
        file: "session",
        title: "Session",
        variables: &["session"],
        panels: &[
            (
                "What happened in this session, in order?",
                Rows,
                "SELECT at, what, subject, detail, result, id, \
                 if(what = 'call', concat('chaperone show ', toString(id)), '') AS bodies \
                 FROM session_timeline(session = ${session:singlequote}) WHERE tenant IN (${tenant:singlequote}) LIMIT 5000",
            ),
            (
                "Which commands made which calls?",
                Rows,
                "SELECT exe, arrayStringConcat(argv, ' ') AS command, count() AS calls, countIf(decision = 'deny') AS denied \
                 FROM calls WHERE tenant IN (${tenant:singlequote}) AND session = toUUID(${session:singlequote}) \
                 GROUP BY exe, command ORDER BY calls DESC LIMIT 100",
            ),
        ],
    },
    Dashboard {
        file: "denials",
        title: "Denials and policies",
        variables: &[],
        panels: &[
            (
                "When was something denied, and why?",
                Lines("short"),
                "SELECT $__timeInterval(at) AS time, toString(reason) AS reason, count() AS denied FROM decisions \
                 WHERE tenant IN (${tenant:singlequote}) AND $__timeFilter(at) AND decision = 'deny' \
                 GROUP BY time, reason ORDER BY time",
            ),
            (
                "Which policies refuse most, and whom?",
                Rows,
                "SELECT policy, reason, calls, agents, operations, last, last_agent, message \
                 FROM denials_by_policy({span}) WHERE tenant IN (${tenant:singlequote}) LIMIT 100",
            ),
            (
                "Did anybody use keys that aren't ours?",
                Rows,
                "SELECT at, agent, reason, service, operation, message FROM foreign_authority({span}) \
                 WHERE tenant IN (${tenant:singlequote}) LIMIT 100",
            ),
        ],
    },
    Dashboard {
        file: "data-leaving",
        title: "Data leaving",
        variables: &[],
        panels: &[
            (
                "When does data leave for AWS?",
                Lines("bytes"),
                "SELECT $__timeInterval(started) AS time, toString(service) AS service, sum(request_bytes) AS sent \
                 FROM calls WHERE {bounds} GROUP BY time, service ORDER BY time",
            ),
            (
                "Who sends most, and where to?",
                Rows,
                "SELECT agent, service, host, sent_bytes, calls, largest, largest_call FROM volume_out({span}) \
                 WHERE tenant IN (${tenant:singlequote}) LIMIT 100",
            ),
            (
                "How much goes to hosts that aren't AWS's?",
                Rows,
                "SELECT host, agent, sessions, connections, sent_bytes, received_bytes, last \
                 FROM volume_elsewhere({span}) WHERE tenant IN (${tenant:singlequote}) LIMIT 100",
            ),
            (
                "Where were agents not let go?",
                Rows,
                "SELECT host, agent, policy, connections, sessions, last, last_exe, message \
                 FROM refused_destinations({span}) WHERE tenant IN (${tenant:singlequote}) LIMIT 100",
            ),
            (
                "Which hosts did nobody call before?",
                Rows,
                "SELECT first, host, kind, agent, connections, exe FROM new_hosts_called({span}) \
                 WHERE tenant IN (${tenant:singlequote}) LIMIT 100",
            ),
        ],
    },
    Dashboard {
        file: "risky",
        title: "Risky and first-time",
        variables: &[],
        panels: &[
            (
                "Did anybody do something dangerous?",
                Rows,
                "SELECT at, agent, severity, action, reason, resources, decision, session, call \
                 FROM risky_calls({span}) WHERE tenant IN (${tenant:singlequote}) LIMIT 200",
            ),
            (
                "Who asked for secrets?",
                Rows,
                "SELECT agent, action, resources, decision, calls, masked_values, last FROM secrets_asked_for({span}) \
                 WHERE tenant IN (${tenant:singlequote}) LIMIT 200",
            ),
            (
                "What was done for the first time?",
                Rows,
                "SELECT at, agent, kind, value FROM first_time_actions({span}) \
                 WHERE tenant IN (${tenant:singlequote}) LIMIT 200",
            ),
            (
                "Who started what costs money?",
                Rows,
                "SELECT agent, action, severity, reason, account, region, calls, denied, last FROM cost_drivers({span}) \
                 WHERE tenant IN (${tenant:singlequote}) LIMIT 200",
            ),
        ],
    },
    Dashboard {
        file: "fleet-health",
        title: "Fleet health",
        variables: &[],
        panels: &[
            (
                "How many hosts are silent for ten minutes?",
                Number("short"),
                "SELECT countIf(silent_seconds > 600) AS silent FROM hosts WHERE tenant IN (${tenant:singlequote})",
            ),
            (
                "How many records are missing?",
                Number("short"),
                "SELECT sumIf(amount, what = 'records missing') AS missing FROM gaps(since = $__fromTime) \
                 WHERE tenant IN (${tenant:singlequote})",
            ),
            (
                "Do all hosts report?",
                Rows,
                "SELECT node, last_shipped, silent_seconds, records, sessions, last_session FROM hosts \
                 WHERE tenant IN (${tenant:singlequote}) ORDER BY silent_seconds DESC",
            ),
            (
                "What is missing?",
                Rows,
                "SELECT at, node, what, amount FROM gaps(since = $__fromTime) WHERE tenant IN (${tenant:singlequote}) LIMIT 200",
            ),
            (
                "Which commands belong to nobody?",
                Rows,
                "SELECT at, node, what, subject, detail FROM unattributed_commands({span}) \
                 WHERE tenant IN (${tenant:singlequote}) LIMIT 200",
            ),
        ],
    },
];

/// Writes the files, or checks them.
/// Serves them in a Superset, until it is interrupted.
pub fn serve() -> Result<()> {
    trial::run(&place::target()?.join("superset/pictures"), None, true)
}

pub fn run(options: &Options) -> Result<()> {
    if let Some(folder) = &options.superset {
        return trial::run(folder, options.clickhouse.as_deref(), options.serve);
    }
    if options.schema {
        return schema();
    }
    for (path, text) in files()? {
        let there = fs::read_to_string(&path).unwrap_or_default();
        if same(&there, &text) {
            continue;
        }
        ensure!(!options.check, "{} is not what `cargo xtask dashboards` writes: run it", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Whether both say the same: in which order members stand depends on what else serde_json is built for.
/// Whether Grafana's own types know all that its dashboards say.
fn schema() -> Result<()> {
    setup::root_user()?;
    let venv = place::target()?.join("grafana-sdk");
    setup::python(&venv, "grafana-requirements.txt", "Grafana's foundation SDK, 30 MB")?;
    let of_grafana = |(path, _): &(PathBuf, String)| path.parent().is_some_and(|folder| folder.ends_with("grafana"));
    let files: Vec<_> = files()?.into_iter().filter(of_grafana).map(|(path, _)| path).collect();
    let script = place::root().join("xtask/python/grafana_schema.py");
    setup::run(Command::new(venv.join("bin/python")).arg(script).args(files))
}

fn same(one: &str, other: &str) -> bool {
    let [one, other] = [one, other].map(|text| serde_json::from_str::<Value>(text).ok());
    one.is_some() && one == other
}

fn files() -> Result<Vec<(PathBuf, String)>> {
    let folder = place::root().join("dashboards/grafana");
    let file = |dashboard: &Dashboard| {
        let text = serde_json::to_string_pretty(&rendered(dashboard)).context("writing a dashboard as JSON")?;
        Ok((folder.join(format!("{}.json", dashboard.file)), text + "\n"))
    };
    let text = serde_json::to_string_pretty(&alerting::file()).context("writing the alert rules as JSON")?;
    let alerts = (folder.join("provisioning/alerting/chaperone.json"), text + "\n");
    let import = place::root().join("dashboards/superset");
    let superset = superset::files().into_iter().map(|(path, value)| {
        let text = serde_json::to_string_pretty(&value).context("writing a file for Superset")?;
        Ok((import.join(path), text + "\n"))
    });
    let text = serde_json::to_string_pretty(&daemon::rendered()).context("writing a dashboard as JSON")?;
    let daemon = (folder.join("daemon.json"), text + "\n");
    DASHBOARDS.iter().map(file).chain([Ok(alerts), Ok(daemon)]).chain(superset).collect()
}

fn source() -> Value {
    json!({ "type": "grafana-clickhouse-datasource", "uid": "${source}" })
}

fn rendered(dashboard: &Dashboard) -> Value {
    let (mut x, mut y, mut row) = (0, 0, 0);
    let mut panels = Vec::new();
    for (id, (title, shape, sql)) in (1..).zip(dashboard.panels) {
        let (width, height) = match shape {
            Number(_) => (6, 4),
            Lines(_) => (24, 8),
            Rows => (24, 9),
        };
        if x + width > 24 {
            (x, y) = (0, y + row);
        }
        panels.push(panel(id, title, *shape, sql, &json!({ "x": x, "y": y, "w": width, "h": height })));
        (x, row) = (x + width, height);
    }
    json!({
        "uid": format!("chaperone-{}", dashboard.file),
        "title": format!("Chaperone: {}", dashboard.title),
        "tags": ["chaperone"],
        "schemaVersion": 39,
        "editable": true,
        "graphTooltip": 1,
        "timezone": "utc",
        "time": { "from": "now-24h", "to": "now" },
        "refresh": "",
        "links": [{
            "type": "dashboards", "title": "Chaperone", "tags": ["chaperone"], "asDropdown": false,
            "includeVars": true, "keepTime": true, "targetBlank": false, "icon": "external link", "tooltip": "", "url": "",
        }],
        "templating": { "list": variables(dashboard.variables) },
        "annotations": { "list": [] },
        "panels": panels,
    })
}

fn variables(more: &[&str]) -> Vec<Value> {
    let asked = |name: &str, label: &str, sql: &str| {
        json!({
            "type": "query", "name": name, "label": label, "datasource": source(), "query": sql,
            "refresh": 2, "multi": true, "includeAll": true, "current": { "text": ["All"], "value": ["$__all"] },
            "options": [], "sort": 1, "hide": 0,
        })
    };
    let mut list = vec![
        json!({
            "type": "datasource", "name": "source", "label": "ClickHouse", "query": "grafana-clickhouse-datasource",
            "current": {}, "options": [], "hide": 0, "refresh": 1,
        }),
        asked("tenant", "Tenant", "SELECT DISTINCT tenant FROM shipped ORDER BY tenant"),
    ];
    for name in more {
        list.push(match *name {
            "agent" => asked("agent", "Agent", "SELECT DISTINCT agent FROM session_starts ORDER BY agent"),
            _ => json!({
                "type": "textbox", "name": name, "label": "Session", "hide": 0, "options": [],
                "query": "00000000-0000-0000-0000-000000000000",
                "current": { "text": "00000000-0000-0000-0000-000000000000", "value": "00000000-0000-0000-0000-000000000000" },
            }),
        });
    }
    list
}

/// Columns that lead to another dashboard: the column, the dashboard and its variable.
const LINKS: [(&str, &str, &str); 3] =
    [("session", "session", "session"), ("agent", "agent", "agent"), ("last_agent", "agent", "agent")];

fn panel(id: u32, title: &str, shape: Shape, sql: &str, place: &Value) -> Value {
    let sql = sql.replace("{bounds}", BOUNDS).replace("{span}", SPAN);
    let (kind, unit, format) = match shape {
        Number(unit) => ("stat", unit, 1),
        Lines(unit) => ("timeseries", unit, 0),
        Rows => ("table", "", 1),
    };
    let links: Vec<_> = LINKS
        .iter()
        .map(|(column, dashboard, variable)| {
            let url = format!(
                "/d/chaperone-{dashboard}?var-{variable}=${{__value.raw}}&${{__url_time_range}}&${{tenant:queryparam}}"
            );
            json!({
                "matcher": { "id": "byName", "options": column },
                "properties": [{ "id": "links", "value": [{ "title": format!("Show the {variable}"), "url": url }] }],
            })
        })
        .collect();
    let bytes = json!({
        "matcher": { "id": "byRegexp", "options": ".*_bytes|largest" },
        "properties": [{ "id": "unit", "value": "bytes" }],
    });
    let overrides = if matches!(shape, Rows) { [links, vec![bytes]].concat() } else { Vec::new() };
    json!({
        "id": id,
        "type": kind,
        "title": title,
        "datasource": source(),
        "gridPos": place,
        "targets": [{
            "refId": "A", "datasource": source(), "editorType": "sql", "rawSql": sql, "format": format,
            "queryType": if matches!(shape, Lines(_)) { "timeseries" } else { "table" },
        }],
        "fieldConfig": {
            // A palette that is told apart without seeing red and green.
            "defaults": { "unit": unit, "color": { "mode": "palette-classic-by-name" }, "noValue": "nothing in this time" },
            "overrides": overrides,
        },
        "options": {},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dashboards_are_what_is_written_and_each_panel_asks_a_question() {
        for (path, text) in files().unwrap() {
            assert!(same(&fs::read_to_string(&path).unwrap(), &text), "run `cargo xtask dashboards`");
        }
        for dashboard in DASHBOARDS {
            for (title, _, sql) in dashboard.panels {
                assert!(title.ends_with('?'), "{title}");
                assert!(sql.contains("tenant") || sql.contains("{bounds}"), "{title} is of all tenants");
            }
        }
    }

    #[test]
    fn each_alert_has_a_section_of_the_docs_and_a_test() {
        let read = |path: &str| fs::read_to_string(place::root().join(path)).unwrap();
        let (rules, tests) = (read("dashboards/prometheus/rules.yml"), read("dashboards/prometheus/rules.test.yml"));
        let docs = read("docs/alerts.md");
        let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
        assert!(alerts.len() >= 7);
        for alert in alerts {
            assert!(rules.contains(&format!("docs/alerts.md#{}\n", alert.to_lowercase())), "{alert}");
            assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} is not seen to fire");
            assert!(tests.contains(&format!("alertname: {alert}, exp_alerts: []")), "{alert} is not seen to clear");
            let section = docs.split("\n## ").find(|section| section.starts_with(&format!("{alert}\n")));
            let section = section.unwrap_or_else(|| panic!("docs/alerts.md has no {alert}"));
            assert!(["**Means**", "**Look at**", "**Do**"].iter().all(|part| section.contains(part)), "{alert}");
        }
    }
}
