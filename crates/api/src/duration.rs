//! Durations as users write them: `24h`, `1h30m`, `3650d`.

use std::time::Duration;

/// Pattern of a duration, for CRD schemas.
pub const PATTERN: &str = "^([0-9]+[dhms])+$";

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// Nothing there.
    #[error("it is empty; write for example 24h, 90m or 3650d")]
    Empty,
    /// A number without unit, or a unit without number, or another letter.
    #[error("{0:?} is not a number followed by d, h, m or s; write for example 24h, 90m or 3650d")]
    Part(String),
    /// More than 64 bits of seconds.
    #[error("{0:?} is too long")]
    TooLong(String),
}

/// Parses numbers with units `d`, `h`, `m`, `s`, added up.
///
/// # Errors
/// When the text has another form.
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
        let mut letters = tail.chars();
        let unit = match letters.next() {
            Some('d') => 86_400,
            Some('h') => 3_600,
            Some('m') => 60,
            Some('s') => 1,
            _ => return Err(part()),
        };
        let too_long = || InvalidDuration::TooLong(text.to_owned());
        let seconds = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(too_long)?;
        total = total.checked_add(seconds).ok_or_else(too_long)?;
        rest = letters.as_str();
    }
    Ok(Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_parts_and_says_what_is_wrong_with_others() {
        for (text, seconds) in
            [("24h", 86_400), ("1h30m", 5_400), ("3650d", 315_360_000), ("10s", 10), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
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
