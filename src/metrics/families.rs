//! Writes metric families: one name, one type, one help text, any number of series. A thin layer over the encoder of
//! `prometheus-client`, so that a family is one call.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabel, EncodeLabelSet, LabelSetEncoder,
    MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

use crate::pool::{Distribution, Histogram};

/// The destination of metric families.
pub struct Families<'a>(DescriptorEncoder<'a>);

/// The labels of a series, in order.
pub type Labels<'a> = [(&'a str, &'a str)];

impl<'a> Families<'a> {
    /// Families written through this encoder.
    pub fn new(encoder: DescriptorEncoder<'a>) -> Families<'a> {
        Families(encoder)
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.gauges(name, help, |series| series.put(&[], value))
    }

    /// A counter without labels; its name is written without `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        self.counters(name, help, |series| series.put(&[], value))
    }

    /// A gauge with labels.
    pub fn gauges(&mut self, name: &str, help: &str, fill: impl FnOnce(&mut Gauges<'_>) -> fmt::Result) -> fmt::Result {
        fill(&mut Gauges(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?))
    }

    /// A counter with labels; its name is written without `_total`.
    pub fn counters(
        &mut self,
        name: &str,
        help: &str,
        fill: impl FnOnce(&mut Counters<'_>) -> fmt::Result,
    ) -> fmt::Result {
        fill(&mut Counters(self.0.encode_descriptor(name, help, None, MetricType::Counter)?))
    }

    /// A histogram of durations with labels.
    pub fn histograms(
        &mut self,
        name: &str,
        help: &str,
        fill: impl FnOnce(&mut Histograms<'_>) -> fmt::Result,
    ) -> fmt::Result {
        fill(&mut Histograms(self.0.encode_descriptor(name, help, None, MetricType::Histogram)?))
    }

    /// Facts in labels; the name is written without `_info`.
    pub fn info(&mut self, name: &str, help: &str, labels: &Labels<'_>) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&Series(labels))
    }
}

/// The series of a gauge.
pub struct Gauges<'a>(MetricEncoder<'a>);

impl Gauges<'_> {
    /// Writes one.
    pub fn put(&mut self, labels: &Labels<'_>, value: impl EncodeGaugeValue) -> fmt::Result {
        match labels {
            [] => self.0.encode_gauge(&value),
            labels => self.0.encode_family(&Series(labels))?.encode_gauge(&value),
        }
    }
}

/// The series of a counter.
pub struct Counters<'a>(MetricEncoder<'a>);

impl Counters<'_> {
    /// Writes one.
    pub fn put(&mut self, labels: &Labels<'_>, value: impl EncodeCounterValue) -> fmt::Result {
        match labels {
            [] => self.0.encode_counter::<NoLabelSet, _, f64>(&value, None),
            labels => self.0.encode_family(&Series(labels))?.encode_counter::<NoLabelSet, _, f64>(&value, None),
        }
    }
}

/// The series of a histogram.
pub struct Histograms<'a>(MetricEncoder<'a>);

impl Histograms<'_> {
    /// Writes one. The count is the sum of the buckets as they were read, so that count and buckets always agree.
    pub fn put(&mut self, labels: &Labels<'_>, values: Distribution) -> fmt::Result {
        let bounds = Histogram::BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(values.counts).collect();
        let count = buckets.iter().map(|(_, n)| n).sum();
        let labels = Series(labels);
        let mut series = self.0.encode_family(&labels)?;
        series.encode_histogram::<NoLabelSet>(values.seconds, count, &buckets, None)
    }

    /// Writes one without bounds: its sum in seconds and its count.
    pub fn put_sum(&mut self, labels: &Labels<'_>, seconds: f64, count: u64) -> fmt::Result {
        let labels = Series(labels);
        let mut series = self.0.encode_family(&labels)?;
        series.encode_histogram::<NoLabelSet>(seconds, count, &[(f64::INFINITY, count)], None)
    }
}

/// Borrowed labels, as the encoder wants them.
#[derive(Debug)]
struct Series<'a>(&'a Labels<'a>);

impl EncodeLabelSet for Series<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|label| label.encode(encoder.encode_label()))
    }
}
