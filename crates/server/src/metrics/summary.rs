//! A number of durations and their sum, for what is counted elsewhere and arrives as totals.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::Opts;
use prometheus::core::{Collector, Desc, Describer};
use prometheus::proto;

/// A Prometheus summary without quantiles: `…_count` and `…_sum`.
#[derive(Clone)]
pub(crate) struct Summary(Arc<Inner>);

struct Inner {
    desc: Desc,
    count: AtomicU64,
    micros: AtomicU64,
}

impl Summary {
    pub(crate) fn new(name: &str, help: &str) -> prometheus::Result<Self> {
        let desc = Opts::new(name, help).describe()?;
        Ok(Self(Arc::new(Inner { desc, count: AtomicU64::new(0), micros: AtomicU64::new(0) })))
    }

    /// So many more, which took so long together.
    pub(crate) fn add(&self, count: u64, total: Duration) {
        self.0.count.fetch_add(count, Ordering::Relaxed);
        self.0.micros.fetch_add(micros(total), Ordering::Relaxed);
    }

    /// So many in all, which took so long together.
    pub(crate) fn set(&self, count: u64, total: Duration) {
        self.0.count.store(count, Ordering::Relaxed);
        self.0.micros.store(micros(total), Ordering::Relaxed);
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

impl Collector for Summary {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut summary = proto::Summary::default();
        summary.set_sample_count(self.0.count.load(Ordering::Relaxed));
        summary.set_sample_sum(Duration::from_micros(self.0.micros.load(Ordering::Relaxed)).as_secs_f64());
        let mut metric = proto::Metric::default();
        metric.set_summary(summary);
        let mut family = proto::MetricFamily::default();
        family.set_name(self.0.desc.fq_name.clone());
        family.set_help(self.0.desc.help.clone());
        family.set_field_type(proto::MetricType::SUMMARY);
        family.set_metric(vec![metric]);
        vec![family]
    }
}
