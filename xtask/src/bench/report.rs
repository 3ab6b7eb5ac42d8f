//! Medians, the tables, and whether the marks are met.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{
    Case, CaseName, Proxy,
    hooks::{self, Cost},
    load::Sample,
};

/// All samples.
#[derive(Debug, Default)]
pub(super) struct Report {
    samples: BTreeMap<(Case, Proxy), Vec<Sample>>,
    hooks: Vec<Cost>,
}

#[derive(Debug, Serialize)]
struct Row {
    proxy: Proxy,
    case: CaseName,
    connections: u32,
    rps: Option<f64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    cpu_us: Option<f64>,
    cpu_s: Option<f64>,
    mib_per_s: Option<f64>,
    rss_mib: Option<f64>,
    rss_peak_mib: Option<f64>,
}

/// A goal, and what was reached.
#[derive(Debug, Serialize)]
struct Mark {
    what: &'static str,
    reached: f64,
    goal: f64,
    unit: &'static str,
    is_met: bool,
}

#[derive(Debug, Serialize)]
struct Everything<'a> {
    rows: &'a [Row],
    marks: &'a [Mark],
    hooks: &'a [Cost],
}

impl Report {
    pub(super) fn add(&mut self, proxy: Proxy, case: Case, sample: Sample) {
        self.samples.entry((case, proxy)).or_default().push(sample);
    }

    pub(super) fn with_hooks(self, hooks: Vec<Cost>) -> Self {
        Self { hooks, ..self }
    }

    pub(super) fn print(&self, json: bool) -> Result<()> {
        let rows = self.rows();
        let marks = marks(&rows);
        if json {
            let all = Everything { rows: &rows, marks: &marks, hooks: &self.hooks };
            println!("{}", serde_json::to_string(&all).context("encoding the figures")?);
            return Ok(());
        }
        if !rows.is_empty() {
            print_rows(&rows);
        }
        if !self.hooks.is_empty() {
            hooks::print(&self.hooks);
        }
        println!();
        for mark in &marks {
            let word = if mark.is_met { "met   " } else { "MISSED" };
            println!("{word} {}: {:.2}{} (mark: {}{})", mark.what, mark.reached, mark.unit, mark.goal, mark.unit);
        }
        Ok(())
    }

    fn rows(&self) -> Vec<Row> {
        let row = |((case, proxy), samples): (&(Case, Proxy), &Vec<Sample>)| {
            let median = |of: fn(&Sample) -> Option<f64>| median(samples.iter().filter_map(of).collect());
            Row {
                proxy: *proxy,
                case: case.name,
                connections: case.connections,
                rps: median(|it| it.rps),
                p50_us: median(|it| it.p50_us),
                p99_us: median(|it| it.p99_us),
                cpu_us: median(|it| it.cpu_us),
                cpu_s: median(|it| it.cpu_s),
                mib_per_s: median(|it| it.mib_per_s),
                rss_mib: median(|it| it.rss_mib),
                // A peak is no less true for being seen once.
                rss_peak_mib: samples.iter().filter_map(|it| it.rss_peak_mib).reduce(f64::max),
            }
        };
        self.samples.iter().map(row).collect()
    }
}

/// Of an even number, the mean of the middle two. Rounded to what can mean anything.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((f64::midpoint(upper, lower) * 1000.0).round() / 1000.0)
}

fn print_rows(rows: &[Row]) {
    println!(
        "{:<12} {:>5} {:<10} {:>9} {:>8} {:>8} {:>8} {:>8} {:>9} {:>7} {:>8} {:>8}",
        "case",
        "conn",
        "proxy",
        "/s",
        "p50 µs",
        "p99 µs",
        "CPU µs",
        "× nginx",
        "CPU-s/GiB",
        "MiB/s",
        "RSS MiB",
        "peak MiB"
    );
    for row in rows {
        let of =
            |value: Option<f64>, digits: usize| value.map_or_else(String::new, |value| format!("{value:.digits$}"));
        let cost = |row: &Row| row.cpu_us.or(row.cpu_s);
        let nginx =
            rows.iter().find(|it| (it.case, it.connections, it.proxy) == (row.case, row.connections, Proxy::Nginx));
        let times = nginx.and_then(cost).and_then(|nginx| Some(cost(row)? / nginx));
        let name = match row.case {
            CaseName::Small => "small",
            CaseName::Handshake => "handshake",
            CaseName::Down => "down",
            CaseName::Up => "up",
            CaseName::Chunked => "chunked",
        };
        println!(
            "{name:<12} {:>5} {:<10} {:>9} {:>8} {:>8} {:>8} {:>8} {:>9} {:>7} {:>8} {:>8}",
            row.connections,
            row.proxy,
            of(row.rps, 0),
            of(row.p50_us, 0),
            of(row.p99_us, 0),
            of(row.cpu_us, 1),
            of(times, 2),
            of(row.cpu_s, 2),
            of(row.mib_per_s, 0),
            of(row.rss_mib, 1),
            of(row.rss_peak_mib, 1)
        );
    }
}

/// The marks for which there are figures.
fn marks(rows: &[Row]) -> Vec<Mark> {
    let of = |proxy: Proxy, case: CaseName, connections: u32| {
        rows.iter().find(move |row| (row.proxy, row.case, row.connections) == (proxy, case, connections))
    };
    let cpu = |proxy| of(proxy, CaseName::Small, 32)?.cpu_us;
    let p50 = |proxy| of(proxy, CaseName::Small, 1)?.p50_us;
    let large = |proxy, case| of(proxy, case, 1)?.cpu_s;
    let (ours, nginx) = (Proxy::Chaperone, Proxy::Nginx);
    let rate = |case| of(ours, case, 1)?.mib_per_s;
    let ratio = |one: Option<f64>, other: Option<f64>| Some(one? / other?);
    let peak = rows.iter().filter(|row| row.proxy == ours).filter_map(|row| row.rss_peak_mib).reduce(f64::max);
    let at_most = |what, reached: Option<f64>, goal: f64, unit| {
        reached.map(|reached| Mark { what, reached, goal, unit, is_met: reached <= goal })
    };
    let at_least = |what, reached: Option<f64>, goal: f64, unit| {
        reached.map(|reached| Mark { what, reached, goal, unit, is_met: reached >= goal })
    };
    [
        at_most("CPU per call at 32 connections, at most", ratio(cpu(ours), cpu(nginx)), 2.5, " × nginx's"),
        at_least(
            "CPU per call at 32 connections, mitmproxy's is at least",
            ratio(cpu(Proxy::Mitmproxy), cpu(ours)),
            15.0,
            " × as much",
        ),
        at_most(
            "p50 at one connection, above nginx's at most",
            p50(ours).zip(p50(nginx)).map(|(a, b)| a - b),
            200.0,
            " µs",
        ),
        at_most(
            "CPU of 1 GiB down, at most",
            ratio(large(ours, CaseName::Down), large(nginx, CaseName::Down)),
            2.0,
            " × nginx's",
        ),
        at_most(
            "CPU of 1 GiB up, at most",
            ratio(large(ours, CaseName::Up), large(nginx, CaseName::Up)),
            2.0,
            " × nginx's",
        ),
        at_least(
            "throughput of an upload in signed chunks, at least",
            ratio(rate(CaseName::Chunked), rate(CaseName::Up)),
            0.8,
            " × the plain one's",
        ),
        at_most("resident memory at its peak, at most", peak.map(|mib| mib * 1.048_576), 60.0, " MB"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn marks_need_figures_and_compare_with_nginx() {
        let mut report = Report::default();
        let case = Case { name: CaseName::Small, connections: 32 };
        report.add(
            Proxy::Chaperone,
            case,
            Sample { cpu_us: Some(50.0), rss_peak_mib: Some(30.0), ..Sample::default() },
        );
        assert_eq!(marks(&report.rows()).len(), 1, "only memory has a figure of its own");
        report.add(Proxy::Nginx, case, Sample { cpu_us: Some(10.0), ..Sample::default() });
        let marks = marks(&report.rows());
        assert!((marks[0].reached - 5.0).abs() < 1e-9 && !marks[0].is_met);
        assert!(marks[1].is_met);
    }
}
