//! Metrics in the OpenMetrics text format.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text},
    metrics::{counter::ConstCounter, gauge::ConstGauge, histogram::Histogram},
    registry::Registry,
};

/// What a metric is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// It only grows. Its name gets the suffix `_total`.
    Counter,
    /// It grows and shrinks.
    Gauge,
    /// How often something took how long; it has no other values.
    Histogram(Histogram),
}

/// One metric, read now.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Its name, without the prefix `chaperone_`.
    pub name: &'static str,
    /// What it counts, with its unit.
    pub help: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Values by label; one without labels has an empty list.
    pub values: Vec<(Vec<(&'static str, String)>, f64)>,
}

#[derive(Debug)]
struct Collected(Vec<Metric>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in &self.0 {
            let kind = match &metric.kind {
                Kind::Counter => ConstCounter::new(0.0).metric_type(),
                Kind::Gauge => ConstGauge::new(0.0).metric_type(),
                Kind::Histogram(histogram) => {
                    let of = encoder.encode_descriptor(metric.name, metric.help, None, histogram.metric_type())?;
                    histogram.encode(of)?;
                    continue;
                }
            };
            let counts = matches!(metric.kind, Kind::Counter);
            let number = |encoder: MetricEncoder<'_>, value: f64| {
                if counts { ConstCounter::new(value).encode(encoder) } else { ConstGauge::new(value).encode(encoder) }
            };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            if let [(labels, value)] = metric.values.as_slice()
                && labels.is_empty()
            {
                // As a family it would be written `name{}`.
                number(family, *value)?;
                continue;
            }
            for (labels, value) in &metric.values {
                number(family.encode_family(labels)?, *value)?;
            }
        }
        Ok(())
    }
}

/// All metrics as text.
pub(crate) fn encode(metrics: Vec<Metric>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("chaperone");
    registry.register_collector(Box::new(Collected(metrics)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_gauges_are_told_apart() {
        let text = encode(vec![
            Metric {
                name: "requests",
                help: "Requests",
                kind: Kind::Counter,
                values: vec![(vec![("decision", "allow".into())], 2.0)],
            },
            Metric { name: "connections", help: "Open", kind: Kind::Gauge, values: vec![(vec![], 1.0)] },
        ])
        .unwrap();
        assert!(text.contains("# TYPE chaperone_requests counter"), "{text}");
        assert!(text.contains("chaperone_requests_total{decision=\"allow\"} 2.0"), "{text}");
        assert!(text.contains("chaperone_connections 1.0"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn a_histogram_is_one() {
        let histogram = Histogram::new([0.1, 1.0]);
        histogram.observe(0.5);
        histogram.observe(0.05);
        let kind = Kind::Histogram(histogram);
        let text = encode(vec![Metric { name: "wait_seconds", help: "Waits", kind, values: Vec::new() }]).unwrap();
        for line in [
            "# TYPE chaperone_wait_seconds histogram",
            "chaperone_wait_seconds_bucket{le=\"0.1\"} 1",
            "chaperone_wait_seconds_bucket{le=\"1.0\"} 2",
            "chaperone_wait_seconds_bucket{le=\"+Inf\"} 2",
            "chaperone_wait_seconds_count 2",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
