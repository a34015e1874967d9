//! The writer of metrics: the text format of Prometheus (version 0.0.4), and `OpenMetrics` (version
//! 1.0.0), its successor.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use crate::base::histogram::Histogram;

/// The format of a metrics page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text format of Prometheus.
    Prometheus,
    /// `OpenMetrics`.
    OpenMetrics,
}

impl Format {
    /// Returns the media type of the format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// A page of metrics under construction.
#[derive(Debug)]
pub struct Page {
    format: Format,
    text: String,
}

/// A metric, to which samples are added.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    /// The name of the samples.
    name: String,
}

/// Names and values of the labels of a sample.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    /// Creates an empty page.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            text: String::new(),
        }
    }

    /// Adds a counter. `name` is without `_total`, the suffix of its samples.
    pub fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, MetricKind::Counter, help)
    }

    /// Adds a gauge.
    pub fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, MetricKind::Gauge, help)
    }

    /// Adds a histogram of durations, in seconds.
    pub fn histogram(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, MetricKind::Histogram, help)
    }

    fn family(&mut self, name: &str, kind: MetricKind, help: &str) -> Family<'_> {
        let samples = match kind {
            MetricKind::Counter => format!("{name}_total"),
            MetricKind::Gauge | MetricKind::Histogram => name.to_owned(),
        };
        // Prometheus uses the name of the samples as the name of the metric.
        let shown = match self.format {
            Format::Prometheus => &samples,
            Format::OpenMetrics => name,
        };
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let text = &mut self.text;
        put(
            text,
            format_args!("# HELP {shown} {help}\n# TYPE {shown} {kind}\n"),
        );
        Family {
            text,
            name: samples,
        }
    }

    /// Returns the whole page.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

impl Family<'_> {
    /// Adds a sample.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.line("", labels, None, &value);
        self
    }

    /// Adds a sample of seconds.
    pub fn seconds(&mut self, labels: Labels<'_>, value: Duration) -> &mut Self {
        self.sample(labels, value.as_secs_f64())
    }

    /// Adds the samples of a histogram.
    pub fn durations(&mut self, labels: Labels<'_>, histogram: &Histogram) -> &mut Self {
        for (bound, count) in histogram.within() {
            let bound = format!("{:?}", bound.as_secs_f64());
            self.line("_bucket", labels, Some(&bound), &count);
        }
        self.line("_bucket", labels, Some("+Inf"), &histogram.count());
        self.line("_sum", labels, None, &histogram.sum().as_secs_f64());
        self.line("_count", labels, None, &histogram.count());
        self
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, le: Option<&str>, value: &dyn Display) {
        put(self.text, format_args!("{}{suffix}", self.name));
        let bound = le.map(|bound| ("le", bound));
        let mut before = '{';
        for (name, value) in labels.iter().copied().chain(bound) {
            put(self.text, format_args!("{before}{name}=\""));
            for character in value.chars() {
                match character {
                    '\n' => self.text.push_str("\\n"),
                    '"' | '\\' => self.text.extend(['\\', character]),
                    _ => self.text.push(character),
                }
            }
            self.text.push('"');
            before = ',';
        }
        let end = if before == ',' { "}" } else { "" };
        put(self.text, format_args!("{end} {value}\n"));
    }
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what)
        .expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(format: Format) -> String {
        let mut page = Page::new(format);
        page.counter("a_queries", "Queries.").sample(&[], 7_u64);
        page.gauge("a_up", "Whether it is.")
            .sample(&[("upstream", "x\"\\\n"), ("b", "")], 1)
            .seconds(&[("upstream", "y")], Duration::from_millis(1_500));
        page.finish()
    }

    #[test]
    fn page_has_the_syntax_of_both_formats() {
        let samples = "# HELP a_up Whether it is.\n# TYPE a_up gauge\n\
                       a_up{upstream=\"x\\\"\\\\\\n\",b=\"\"} 1\na_up{upstream=\"y\"} 1.5\n";
        assert_eq!(
            page(Format::Prometheus),
            format!(
                "# HELP a_queries_total Queries.\n# TYPE a_queries_total counter\n\
                 a_queries_total 7\n{samples}"
            )
        );
        assert_eq!(
            page(Format::OpenMetrics),
            format!(
                "# HELP a_queries Queries.\n# TYPE a_queries counter\na_queries_total 7\n\
                 {samples}# EOF\n"
            )
        );
    }

    #[test]
    fn histogram_has_every_bound_and_one_more() {
        let mut histogram = Histogram::default();
        histogram.observe(Duration::from_micros(200));
        histogram.observe(Duration::from_secs(9));
        let mut page = Page::new(Format::OpenMetrics);
        page.histogram("a_seconds", "Time.")
            .durations(&[("to", "x")], &histogram);
        let text = page.finish();
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(lines[0], "a_seconds_bucket{to=\"x\",le=\"0.0001\"} 0");
        assert_eq!(lines[1], "a_seconds_bucket{to=\"x\",le=\"0.00025\"} 1");
        assert_eq!(lines[12], "a_seconds_bucket{to=\"x\",le=\"1.0\"} 1");
        assert_eq!(lines[15], "a_seconds_bucket{to=\"x\",le=\"+Inf\"} 2");
        assert_eq!(lines[16], "a_seconds_sum{to=\"x\"} 9.0002");
        assert_eq!(lines[17], "a_seconds_count{to=\"x\"} 2");
        assert_eq!(lines.len(), 19);
    }
}
