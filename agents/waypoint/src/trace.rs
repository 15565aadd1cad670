//! Distributed tracing: W3C trace context is propagated, and a span of each sampled request is sent to a collector, with a
//! child for each try if there were several.
//!
//! Invariant: a request never waits for a span; beyond [`SPANS_MAX`] spans are dropped and counted. The first service of a
//! trace decides whether it is sampled.

mod context;
mod export;
mod span;

use std::{future::Future, time::SystemTime};

use ambit_proto::opentelemetry::proto::trace::v1::Span;
use http::{HeaderMap, HeaderName, HeaderValue};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

pub use context::Context;
pub use export::{Origin, UnusableCollector};
use span::OpenSpan;
pub use span::Tried;

use crate::access_log::Record;

/// Spans that may wait for the collector.
pub const SPANS_MAX: usize = 4096;

const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const MILLION: u32 = 1_000_000;

/// Begins and ends spans. Clone one per worker.
#[derive(Clone, Debug)]
pub struct Tracer {
    sampled_per_million: u32,
    spans: mpsc::Sender<Span>,
    dropped: Counter,
}

/// A request's place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Id of the trace.
    pub id: u128,
    /// The waypoint's span; `None` if the trace is not sampled.
    open: Option<OpenSpan>,
}

impl Trace {
    /// Whether spans are recorded.
    pub fn is_sampled(&self) -> bool {
        self.open.is_some()
    }

    /// Makes `span` the parent of the endpoint's spans, before a request is sent again.
    pub fn again(&self, headers: &mut HeaderMap, span: u64) {
        if let Some(context) = Context::of(headers).filter(|_| self.is_sampled()) {
            set(headers, context.below(span));
        }
    }

    /// The trace of a request, if it is only propagated.
    pub fn passed(headers: &HeaderMap) -> Option<Self> {
        Context::of(headers).map(|context| Self { id: context.trace_id, open: None })
    }
}

impl Tracer {
    /// A tracer, and the future that delivers its spans until the last clone is gone. `sampled` is the share of the traces
    /// begun here that is sampled, 0 to 1; `sent` and `dropped` count spans.
    ///
    /// # Errors
    /// When `collector` is not `http://host:port`.
    pub fn start(
        collector: &str,
        sampled: f64,
        origin: Origin,
        [sent, dropped]: [Counter; 2],
    ) -> Result<(Self, impl Future<Output = ()> + use<>), UnusableCollector> {
        let (spans, waiting) = mpsc::channel(SPANS_MAX);
        let exporter = export::run(waiting, collector, origin, [sent, dropped.clone()])?;
        Ok((Self { sampled_per_million: per_million(sampled), spans, dropped }, exporter))
    }

    /// Continues the trace of a request, or begins one, before it is forwarded.
    pub fn begin(&self, headers: &mut HeaderMap, random: [u64; 3]) -> Trace {
        let [high, low, span] = random;
        let id = span.max(1);
        let context = match Context::of(headers) {
            Some(parent) if !parent.is_sampled() => return Trace { id: parent.trace_id, open: None },
            Some(parent) => {
                let open = OpenSpan { id, parent: Some(parent.span_id) };
                set(headers, parent.below(id));
                return Trace { id: parent.trace_id, open: Some(open) };
            }
            None => Context::new((u128::from(high) << 64 | u128::from(low)).max(1), id, self.samples(high)),
        };
        // Without a valid traceparent, tracestate has no meaning (W3C Trace Context 3.4).
        headers.remove(TRACESTATE);
        set(headers, context);
        let open = context.is_sampled().then_some(OpenSpan { id, parent: None });
        Trace { id: context.trace_id, open }
    }

    /// Records the spans of a finished request. `tried` are its tries, if there were several.
    pub fn end(&self, trace: &Trace, record: &Record<'_>, tried: &[Tried], now: SystemTime) {
        let Some(open) = &trace.open else { return };
        let whole = span::of(trace.id, open, record, now);
        let begun = whole.start_time_unix_nano;
        self.put(whole);
        for (nth, one) in tried.iter().enumerate() {
            self.put(span::of_try((trace.id, open.id), record, (nth, one), begun));
        }
    }

    fn put(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.dropped.inc();
        }
    }

    fn samples(&self, random: u64) -> bool {
        // The low bits, because other samplers of the same trace use the high ones.
        let draw = (random & u64::from(u32::MAX)) * u64::from(MILLION);
        draw >> 32 < u64::from(self.sampled_per_million)
    }
}

fn set(headers: &mut HeaderMap, context: Context) {
    // Digits and dashes are always a valid value.
    if let Ok(value) = HeaderValue::try_from(context.to_string()) {
        headers.insert(context::TRACEPARENT, value);
    }
}

fn per_million(share: f64) -> u32 {
    // `as` saturates: a float out of range becomes the nearest integer, NaN becomes zero.
    ((share * f64::from(MILLION)).round() as u32).min(MILLION)
}

#[cfg(test)]
mod tests;
