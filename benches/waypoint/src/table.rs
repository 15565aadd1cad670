//! Output: a table of medians and ratios.

use crate::load::Measured;

/// One proxy in one round of one case.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) proxy: &'static str,
    /// CPU time of the proxy per request in microseconds.
    pub(crate) cpu_us: f64,
    pub(crate) measured: Measured,
}

/// Prints one case: proxies in the order of their first sample, compared with Envoy.
pub(crate) fn print(case: &str, samples: &[Sample]) {
    let mut names: Vec<&str> = Vec::new();
    for sample in samples {
        if !names.contains(&sample.proxy) {
            names.push(sample.proxy);
        }
    }
    let envoy = cpu(samples, "envoy");
    for name in names {
        let of = |figure: fn(&Measured) -> f64| {
            median(
                samples.iter().filter(|sample| sample.proxy == name).map(|sample| figure(&sample.measured)),
            )
        };
        let own = cpu(samples, name);
        println!(
            "{case:28} {name:9} {own:8.1} {:7.2} {:9.0} {:8.2} {:8.2} {:8.2}",
            own / envoy,
            of(rate),
            of(|measured| milliseconds(measured, 0.5)),
            of(|measured| milliseconds(measured, 0.99)),
            of(|measured| milliseconds(measured, 0.999)),
        );
    }
}

/// Prints what the columns are.
pub(crate) fn print_head() {
    println!(
        "{:28} {:9} {:>8} {:>7} {:>9} {:>8} {:>8} {:>8}",
        "CASE", "PROXY", "CPU us", "/envoy", "req/s", "p50 ms", "p99 ms", "p99.9 ms"
    );
}

/// CPU time per request of a proxy, the median of its rounds.
pub(crate) fn cpu(samples: &[Sample], name: &str) -> f64 {
    median(samples.iter().filter(|sample| sample.proxy == name).map(|sample| sample.cpu_us))
}

#[expect(clippy::cast_precision_loss, reason = "some hundred thousand requests")]
fn rate(measured: &Measured) -> f64 {
    measured.requests as f64 / measured.took.as_secs_f64()
}

fn milliseconds(measured: &Measured, share: f64) -> f64 {
    f64::from(measured.quantile(share)) / 1000.0
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_nothing_of_nothing() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert!(median([].into_iter()).is_nan());
    }
}
