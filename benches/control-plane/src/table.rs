//! Rows that line up: four sizes, the growth between them, and what the row must become.

use std::time::Duration;

/// Prints the column headers.
pub(crate) fn print_head() {
    println!("{:58} {:^71} {:>6}  TARGET", "WHAT (CPU time of one thread)", "TIME AT SIZE", "GROWTH");
}

/// Prints one row.
pub(crate) fn print(name: &str, target: &str, points: &[(usize, Duration)]) {
    let cells: String =
        points.iter().map(|(size, took)| format!("{:>9} at {size:<5}", time(*took))).collect();
    println!("{name:58} {cells} {:>6}  {target}", growth(points));
}

/// The exponent of the growth from the first size to the last.
fn growth(points: &[(usize, Duration)]) -> String {
    let (Some((small, least)), Some((large, most))) = (points.first(), points.last()) else {
        return String::new();
    };
    if least.is_zero() || most.is_zero() || small == large {
        return "-".to_owned();
    }
    let exponent = (most.as_secs_f64() / least.as_secs_f64()).ln() / (count(*large) / count(*small)).ln();
    format!("n^{exponent:.2}")
}

#[expect(clippy::cast_precision_loss, reason = "some ten thousand objects")]
fn count(number: usize) -> f64 {
    number as f64
}

/// Three digits and a unit.
fn time(took: Duration) -> String {
    let seconds = took.as_secs_f64();
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "us"),
    };
    match value {
        v if v >= 100.0 => format!("{v:.0} {unit}"),
        v if v >= 10.0 => format!("{v:.1} {unit}"),
        v => format!("{v:.2} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_times_the_size_at_eight_times_the_price_is_linear() {
        let points = [(10, Duration::from_millis(2)), (80, Duration::from_millis(16))];
        assert_eq!(growth(&points), "n^1.00");
        assert_eq!(growth(&[(10, Duration::ZERO), (80, Duration::ZERO)]), "-");
    }

    #[test]
    fn times_have_three_digits() {
        let times = [2_400_000, 146_000, 3_800, 45].map(|us| time(Duration::from_micros(us)));
        assert_eq!(times, ["2.40 s", "146 ms", "3.80 ms", "45.0 us"]);
    }
}
