//! The same dashboards for Apache Superset: what `superset import-dashboards` takes, unpacked.
//!
//! Each question is a dataset of its own, whose SQL takes the filters of the dashboard by Superset's templates
//! (`ENABLE_TEMPLATE_PROCESSING`): so a time range bounds what ClickHouse reads and not only what is shown. JSON is YAML.

use serde_json::{Value, json};

use super::{DASHBOARDS, Dashboard, Shape};

/// How far back a chart looks whose dashboard's filter says nothing.
const USUAL_DAYS: u32 = 7;
/// Columns of Superset's grid, and how high a row of it is, in its units of 8 pixels.
const WIDTH: u32 = 12;
/// The address that the import comes with: an analyst's, whose password Superset asks for.
pub const URI: &str = "clickhousedb://chaperone_analyst@clickhouse.example.com:8123/chaperone";
/// Superset has no palette for colour-blind people; what matters most, allowed and denied, has colours of its own.
const COLORS: &str = "supersetColors";

/// The files, by their paths below the folder.
pub(super) fn files() -> Vec<(String, Value)> {
    let mut files = vec![
        (
            "metadata.yaml".to_owned(),
            json!({ "version": "1.0.0", "type": "Dashboard", "timestamp": "2026-01-01T00:00:00+00:00" }),
        ),
        ("databases/Chaperone.yaml".to_owned(), database()),
    ];
    for (name, sql) in FILTERED {
        files.push((format!("datasets/Chaperone/{name}.yaml"), dataset(name, sql, &[])));
    }
    for dashboard in DASHBOARDS {
        for (number, (title, shape, sql)) in (1..).zip(dashboard.panels) {
            let name = format!("{}_{number}", dashboard.file.replace('-', "_"));
            let columns = columns(sql);
            files.push((format!("datasets/Chaperone/{name}.yaml"), dataset(&name, &templated(sql), &columns)));
            files.push((format!("charts/{name}.yaml"), chart(&name, title, *shape, sql, &columns)));
        }
        files.push((format!("dashboards/{}.yaml", dashboard.file), rendered(dashboard)));
    }
    files
}

/// What the filters choose among.
const FILTERED: [(&str, &str); 3] = [
    ("tenants", "SELECT DISTINCT toString(tenant) AS tenant FROM shipped"),
    ("agents", "SELECT DISTINCT toString(agent) AS agent FROM session_starts"),
    (
        "sessions",
        "SELECT toString(session) AS session FROM calls WHERE started >= now() - INTERVAL 7 DAY \
         GROUP BY session ORDER BY max(started) DESC LIMIT 1000",
    ),
];

/// The same for the same name, wherever it is made: an import replaces what an earlier one made. Version 8 of RFC 9562.
fn uuid(name: &str) -> String {
    // FNV-1a, twice.
    let half =
        |seed: u64| name.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let all = format!("{:016x}{:016x}", half(0xcbf2_9ce4_8422_2325), half(0x6c62_272e_07bb_0142));
    format!("{}-{}-8{}-a{}-{}", &all[..8], &all[8..12], &all[13..16], &all[17..20], &all[20..])
}

fn database() -> Value {
    json!({
        "database_name": "Chaperone",
        "sqlalchemy_uri": URI,
        "expose_in_sqllab": true,
        "allow_run_async": false,
        "allow_ctas": false,
        "allow_cvas": false,
        "allow_dml": false,
        "extra": {},
        "uuid": uuid("database"),
        "version": "1.0.0",
    })
}

/// The query with Superset's templates in the places of Grafana's macros.
fn templated(sql: &str) -> String {
    let among = |column: &str, name: &str| {
        format!(
            "{{% if filter_values('{name}', remove_filter=True) %}}{column} IN {{{{ filter_values('{name}')|where_in }}}}\
             {{% else %}}true{{% endif %}}"
        )
    };
    let from = format!(
        "{{% if from_dttm %}}parseDateTimeBestEffort('{{{{ from_dttm }}}}'){{% else %}}now() - INTERVAL {USUAL_DAYS} DAY{{% endif %}}"
    );
    let until = "{% if to_dttm %}parseDateTimeBestEffort('{{ to_dttm }}'){% else %}now(){% endif %}";
    // By `where_in`, which quotes it: whoever may set a filter must not be able to write SQL by it.
    let session =
        "{{ (filter_values('session', remove_filter=True) or ['00000000-0000-0000-0000-000000000000'])[:1]|where_in }}";
    let mut sql = sql.replace("{bounds}", super::BOUNDS).replace("{span}", super::SPAN);
    for name in ["tenant", "agent"] {
        sql = sql.replace(&format!("{name} IN (${{{name}:singlequote}})"), &among(name, name));
    }
    for column in ["started", "at"] {
        let bounded = format!("{column} >= {from} AND {column} < {until}");
        sql = sql.replace(&format!("$__timeFilter({column})"), &bounded);
        sql = sql.replace(&format!("$__timeInterval({column})"), &format!("toStartOfHour({column})"));
    }
    sql.replace("$__fromTime", &from).replace("$__toTime", until).replace("${session:singlequote}", session)
}

/// The names of what a query selects, in order.
fn columns(sql: &str) -> Vec<String> {
    let selected = sql.trim_start_matches("SELECT ").split(" FROM ").next().unwrap_or_default();
    let (mut depth, mut parts, mut quoted) = (0, vec![String::new()], false);
    for c in selected.chars() {
        match c {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            ',' if depth == 0 && !quoted => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts.iter().filter_map(|part| part.rsplit(' ').next().map(|name| name.trim().to_owned())).collect()
}

/// Columns that are times, as the views name them.
const TIMES: [&str; 6] = ["at", "first", "last", "last_session", "last_shipped", "time"];

fn dataset(name: &str, sql: &str, columns: &[String]) -> Value {
    let column = |name: &String| {
        let kind = if TIMES.contains(&name.as_str()) { "DateTime" } else { "String" };
        json!({
            "column_name": name, "is_dttm": TIMES.contains(&name.as_str()), "is_active": true, "type": kind,
            "groupby": true, "filterable": true,
        })
    };
    let columns: Vec<_> = match columns {
        [] => vec![column(&name.trim_end_matches('s').to_owned())],
        columns => columns.iter().map(column).collect(),
    };
    json!({
        "table_name": name, "main_dttm_col": null, "default_endpoint": null, "offset": 0, "cache_timeout": null,
        "schema": null, "sql": sql, "params": null, "template_params": null, "filter_select_enabled": true,
        "fetch_values_predicate": null, "extra": null, "uuid": uuid(&format!("dataset {name}")), "metrics": [],
        "columns": columns, "version": "1.0.0", "database_uuid": uuid("database"),
    })
}

fn metric(sql: &str, label: &str) -> Value {
    json!({
        "expressionType": "SQL", "sqlExpression": sql, "label": label, "hasCustomLabel": true,
        "optionName": format!("metric_{label}"),
    })
}

/// By a unit of Grafana's.
fn format_of(unit: &str) -> &'static str {
    match unit {
        "bytes" => "MEMORY_DECIMAL",
        "s" => "DURATION_SUB",
        _ => ",d",
    }
}

fn chart(name: &str, title: &str, shape: Shape, sql: &str, columns: &[String]) -> Value {
    let (kind, params) = match shape {
        Shape::Number(unit) => {
            let value = &columns[0];
            // Superset's durations are of milliseconds.
            let (format, times) = if unit == "s" { ("DURATION", " * 1000") } else { (format_of(unit), "") };
            (
                "big_number_total",
                json!({
                    "metric": metric(&format!("max({value}){times}"), value), "y_axis_format": format, "header_font_size": 0.6,
                    "subheader_font_size": 0.15,
                }),
            )
        }
        Shape::Lines(unit) => {
            // The second column tells the lines apart where it is a text; otherwise each column is a line.
            let apart = sql.contains("toString(");
            let values: Vec<_> = columns[if apart { 2 } else { 1 }..].iter().collect();
            let metrics: Vec<_> = values.iter().map(|value| metric(&format!("sum({value})"), value)).collect();
            let groups: Vec<_> = if apart { vec![&columns[1]] } else { Vec::new() };
            (
                "echarts_timeseries_bar",
                json!({
                    "x_axis": "time", "time_grain_sqla": "P1D", "metrics": metrics, "groupby": groups, "row_limit": 10000,
                    "stack": "Stack", "y_axis_format": format_of(unit), "rich_tooltip": true, "show_legend": true,
                    "legendOrientation": "top", "color_scheme": COLORS, "x_axis_title_margin": 15,
                    "y_axis_title_margin": 15, "truncate_metric": true, "show_empty_columns": true,
                    "tooltipTimeFormat": "smart_date", "x_axis_time_format": "smart_date", "sort_series_type": "sum",
                }),
            )
        }
        Shape::Rows => {
            let bytes = columns.iter().filter(|name| name.ends_with("_bytes") || *name == "largest");
            let bytes: serde_json::Map<_, _> =
                bytes.map(|name| (name.clone(), json!({ "d3NumberFormat": "MEMORY_DECIMAL" }))).collect();
            (
                "table",
                json!({
                    "query_mode": "raw", "all_columns": columns, "row_limit": 10000, "order_by_cols": [],
                    "table_timestamp_format": "%Y-%m-%d %H:%M:%S", "column_config": bytes, "page_length": 10,
                    "include_search": true, "show_cell_bars": false, "color_pn": false,
                }),
            )
        }
    };
    let mut params = params;
    params["viz_type"] = kind.into();
    params["adhoc_filters"] = json!([]);
    params["extra_form_data"] = json!({});
    json!({
        "slice_name": title, "description": null, "certified_by": null, "certification_details": null, "viz_type": kind,
        "params": params, "query_context": null, "cache_timeout": null, "uuid": uuid(&format!("chart {name}")),
        "version": "1.0.0", "dataset_uuid": uuid(&format!("dataset {name}")),
    })
}

fn rendered(dashboard: &Dashboard) -> Value {
    json!({
        "dashboard_title": format!("Chaperone: {}", dashboard.title),
        "description": null,
        "css": "",
        "slug": format!("chaperone-{}", dashboard.file),
        "certified_by": null,
        "certification_details": null,
        "published": true,
        "uuid": uuid(&format!("dashboard {}", dashboard.file)),
        "position": position(dashboard),
        "metadata": {
            "color_scheme": COLORS,
            "refresh_frequency": 0,
            "expanded_slices": {},
            "label_colors": { "allow": "#0072B2", "deny": "#D55E00" },
            "timed_refresh_immune_slices": [],
            "cross_filters_enabled": false,
            "default_filters": "{}",
            "native_filter_configuration": filters(dashboard),
        },
        "version": "1.0.0",
    })
}

/// Numbers stand beside each other, everything else has a row of its own.
fn position(dashboard: &Dashboard) -> Value {
    let mut all = serde_json::Map::new();
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let numbers = dashboard.panels.iter().filter(|(_, shape, _)| matches!(shape, Shape::Number(_))).count();
    let mut before = None;
    for (number, (title, shape, _)) in (1..).zip(dashboard.panels) {
        let name = format!("{}_{number}", dashboard.file.replace('-', "_"));
        let is_number = matches!(shape, Shape::Number(_));
        let (width, height) = match shape {
            Shape::Number(_) => (WIDTH / u32::try_from(numbers).unwrap_or(1), 24),
            Shape::Lines(_) => (WIDTH, 36),
            Shape::Rows => (WIDTH, 58),
        };
        if before != Some(true) || !is_number {
            rows.push((format!("ROW-{name}"), Vec::new()));
        }
        before = Some(is_number);
        let (row, charts) = rows.last_mut().expect("BUG: a row was just made");
        let id = format!("CHART-{name}");
        all.insert(
            id.clone(),
            json!({
                "type": "CHART", "id": id, "children": [], "parents": ["ROOT_ID", "GRID_ID", row],
                "meta": {
                    "width": width, "height": height, "chartId": 0, "uuid": uuid(&format!("chart {name}")), "sliceName": title,
                },
            }),
        );
        charts.push(id);
    }
    let ids: Vec<_> = rows.iter().map(|(row, _)| row.clone()).collect();
    for (row, charts) in rows {
        let value = json!({
            "type": "ROW", "id": row, "children": charts, "parents": ["ROOT_ID", "GRID_ID"],
            "meta": { "background": "BACKGROUND_TRANSPARENT" },
        });
        all.insert(row, value);
    }
    all.insert("DASHBOARD_VERSION_KEY".into(), "v2".into());
    all.insert("ROOT_ID".into(), json!({ "type": "ROOT", "id": "ROOT_ID", "children": ["GRID_ID"] }));
    all.insert("GRID_ID".into(), json!({ "type": "GRID", "id": "GRID_ID", "children": ids, "parents": ["ROOT_ID"] }));
    let title = format!("Chaperone: {}", dashboard.title);
    all.insert("HEADER_ID".into(), json!({ "type": "HEADER", "id": "HEADER_ID", "meta": { "text": title } }));
    Value::Object(all)
}

fn filters(dashboard: &Dashboard) -> Vec<Value> {
    let scope = json!({ "rootPath": ["ROOT_ID"], "excluded": [] });
    let mut all = vec![json!({
        "id": format!("NATIVE_FILTER-time-{}", dashboard.file), "name": "Time", "filterType": "filter_time",
        "targets": [{}], "controlValues": {}, "cascadeParentIds": [], "scope": scope, "type": "NATIVE_FILTER", "description": "",
        "defaultDataMask": {
            "extraFormData": { "time_range": "Last month" }, "filterState": { "value": "Last month" },
        },
    })];
    for name in ["tenant"].iter().chain(dashboard.variables) {
        all.push(json!({
            "id": format!("NATIVE_FILTER-{name}-{}", dashboard.file),
            "name": if *name == "tenant" { "Tenant" } else if *name == "agent" { "Agent" } else { "Session" },
            "filterType": "filter_select",
            "targets": [{ "datasetUuid": uuid(&format!("dataset {name}s")), "column": { "name": name } }],
            "controlValues": {
                "multiSelect": *name != "session", "enableEmptyFilter": *name == "session", "defaultToFirstItem": *name == "session",
                "inverseSelection": false, "searchAllOptions": false,
            },
            "requiredFirst": *name == "session",
            "cascadeParentIds": [], "scope": scope, "type": "NATIVE_FILTER", "description": "",
            "defaultDataMask": { "extraFormData": {}, "filterState": {} },
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_macro_of_grafanas_is_left_and_every_chart_has_its_columns() {
        for (path, file) in files() {
            let text = file.to_string();
            assert!(!text.contains("$__") && !text.contains("${") && !text.contains("{bounds}"), "{path}");
            // What a filter says is quoted wherever it stands in SQL; the times are Superset's own.
            for inserted in text.split("{{").skip(1).filter_map(|it| it.split("}}").next()) {
                assert!(inserted.trim_end().ends_with("where_in") || inserted.contains("_dttm"), "{path}: {inserted}");
            }
            if let Some(params) = file.get("params").filter(|it| it.is_object()) {
                assert!(params["viz_type"].is_string(), "{path}");
            }
        }
        let sql = "SELECT exe, arrayStringConcat(argv, ' , ') AS command, if(a = 'x', 1, 2) AS n FROM calls";
        assert_eq!(columns(sql), ["exe", "command", "n"]);
    }

    #[test]
    fn ids_are_uuids_and_stay() {
        assert_eq!(uuid("a"), uuid("a"));
        assert_ne!(uuid("a"), uuid("b"));
        let id = uuid("dashboard overview");
        assert_eq!((id.len(), id.as_bytes()[14], id.as_bytes()[19]), (36, b'8', b'a'));
    }
}
