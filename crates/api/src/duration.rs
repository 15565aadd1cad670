//! Durations as users write them: `24h`, `1h30m`, `3650d`, `250ms`. Those of the Gateway API (GEP-2257) are among them.

use std::time::Duration;

/// Pattern of what [`parse_duration`] takes, for CRD schemas.
pub(crate) const PATTERN: &str = "^([0-9]+(d|h|m|s|ms))+$";
/// Pattern of the durations of the Gateway API (GEP-2257).
pub(crate) const GATEWAY_PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// Why a text does not parse as a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// The text is empty.
    #[error("it is empty; write for example 24h, 90m or 3650d")]
    Empty,
    /// A number without a unit, a unit without a number, or an unknown unit.
    #[error("{0:?} is not a number followed by d, h, m, s or ms; write for example 24h, 90m, 3650d or 250ms")]
    Part(String),
    /// The sum exceeds 64 bits of milliseconds.
    #[error("{0:?} is too long")]
    TooLong(String),
}

/// Parses numbers with the units `d`, `h`, `m`, `s` and `ms`; their values are added.
///
/// # Errors
/// If the text has another form.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(InvalidDuration::Empty);
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let part = || InvalidDuration::Part(text.to_owned());
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0).ok_or_else(part)?;
        let (number, tail) = rest.split_at(digits);
        let length = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(length);
        let unit_ms = match unit {
            "d" => 86_400_000,
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return Err(part()),
        };
        let too_long = || InvalidDuration::TooLong(text.to_owned());
        let millis = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_ms)).ok_or_else(too_long)?;
        total = total.checked_add(millis).ok_or_else(too_long)?;
        rest = tail;
    }
    Ok(Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_parts_and_says_what_is_wrong_with_others() {
        for (text, millis) in [
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("3650d", 315_360_000_000),
            ("10s", 10_000),
            ("0s", 0),
            ("250ms", 250),
            ("1m1s1ms", 61_001),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse_duration(" "), Err(InvalidDuration::Empty));
        for bad in ["24", "h", "1x", "1h 2m", "-1h", "1.5h", "1h30"] {
            assert_eq!(parse_duration(bad), Err(InvalidDuration::Part(bad.to_owned())), "{bad}");
        }
        for long in ["99999999999999999999s", "999999999999999999d"] {
            assert_eq!(parse_duration(long), Err(InvalidDuration::TooLong(long.to_owned())));
        }
    }
}
