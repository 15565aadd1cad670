//! The bytes of a connection that still runs, on their way to the metrics.
//!
//! Invariant: a byte is counted once, however often the counters are read.

use std::{cell::Cell, sync::atomic::Ordering, time::Duration};

use ambit_hbone::Counters;

/// How often the bytes of open connections are added to the metrics.
pub const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Bytes sent and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// As [`Counters::sent`].
    pub sent: u64,
    /// As [`Counters::received`].
    pub received: u64,
}

/// The bytes of one connection.
#[derive(Debug, Default)]
pub struct ByteCount {
    /// Where a copy counts.
    pub counters: Counters,
    counted: Cell<Bytes>,
}

impl ByteCount {
    /// All bytes so far.
    pub fn total(&self) -> Bytes {
        Bytes {
            sent: self.counters.sent.load(Ordering::Relaxed),
            received: self.counters.received.load(Ordering::Relaxed),
        }
    }

    /// The bytes since the last call.
    pub fn take(&self) -> Bytes {
        let total = self.total();
        let before = self.counted.replace(total);
        Bytes {
            sent: total.sent.saturating_sub(before.sent),
            received: total.received.saturating_sub(before.received),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_taken_once_and_stays_in_the_total() {
        let count = ByteCount::default();
        count.counters.sent.fetch_add(3, Ordering::Relaxed);
        assert_eq!(count.take(), Bytes { sent: 3, received: 0 });
        count.counters.received.fetch_add(7, Ordering::Relaxed);
        assert_eq!(count.take(), Bytes { sent: 0, received: 7 });
        assert_eq!(count.take(), Bytes::default());
        assert_eq!(count.total(), Bytes { sent: 3, received: 7 });
    }
}
