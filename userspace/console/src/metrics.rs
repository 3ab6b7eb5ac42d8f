//! Metrics in the OpenMetrics text format.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows. Its name gets the suffix `_total`.
    Counter,
    /// It grows and shrinks.
    Gauge,
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
            let kind = match metric.kind {
                Kind::Counter => ConstCounter::new(0.0).metric_type(),
                Kind::Gauge => ConstGauge::new(0.0).metric_type(),
            };
            let number = |encoder: MetricEncoder<'_>, value: f64| match metric.kind {
                Kind::Counter => ConstCounter::new(value).encode(encoder),
                Kind::Gauge => ConstGauge::new(value).encode(encoder),
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
}
