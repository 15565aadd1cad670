//! Metrics of the discovery server, computed at each scrape.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ambit_xds::Stats;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

#[derive(Debug)]
pub(super) struct XdsCollector(pub(super) Arc<Stats>);

impl Collector for XdsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let open = ConstGauge::new(i64::try_from(read(&self.0.streams)).unwrap_or(i64::MAX));
        let metric = encoder.encode_descriptor(
            "ambit_xds_streams",
            "Discovery streams open",
            None,
            open.metric_type(),
        )?;
        open.encode(metric)?;
        for (name, help, count) in [
            ("ambit_xds_responses", "Discovery responses sent", &self.0.responses),
            ("ambit_xds_nacks", "Discovery responses refused by clients", &self.0.nacks),
            ("ambit_xds_refused_streams", "Discovery streams refused", &self.0.refused),
        ] {
            let counter = ConstCounter::new(read(count));
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}
