//! Counts the gRPC messages of a body while it flows. Pure.
//!
//! Invariant: every message is counted once, when its prefix is complete (one byte of flags, four of length:
//! grpc/doc/PROTOCOL-HTTP2.md), however the body is cut into frames.

/// Bytes of the prefix of a message.
const PREFIX_BYTES: u8 = 5;

/// The messages of one body so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    count: u64,
    /// Bytes of the current prefix so far.
    seen: u8,
    length: u32,
    /// Bytes of the current message still to come.
    left: u32,
}

impl Messages {
    /// Takes the next part of the body.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = bytes.len().min(self.left as usize);
            self.left = self.left.saturating_sub(u32::try_from(skipped).unwrap_or(u32::MAX));
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            if self.seen > 0 {
                self.length = self.length << 8 | u32::from(*byte);
            }
            self.seen += 1;
            if self.seen == PREFIX_BYTES {
                *self = Self { count: self.count.saturating_add(1), seen: 0, length: 0, left: self.length };
            }
        }
    }

    /// Number of messages.
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(lengths: &[usize]) -> Vec<u8> {
        let message = |length: &usize| {
            let prefix = [&[1][..], &u32::try_from(*length).unwrap().to_be_bytes()].concat();
            [prefix, vec![0xff; *length]].concat()
        };
        lengths.iter().flat_map(message).collect()
    }

    fn counted(pieces: &[&[u8]]) -> u64 {
        let mut messages = Messages::default();
        pieces.iter().for_each(|piece| messages.feed(piece));
        messages.count()
    }

    #[test]
    fn empty_messages_count_and_what_only_begins_does_not() {
        let three = body(&[0, 0, 300]);
        assert_eq!(counted(&[&three]), 3);
        assert_eq!(counted(&[&three[..14]]), 2);
        assert_eq!(counted(&[]), 0);
        // A length that never comes is only waited for.
        assert_eq!(counted(&[&[0, 0xff, 0xff, 0xff, 0xff], &[0; 9]]), 1);
    }

    #[test]
    fn pieces_do_not_matter() {
        let lengths = [3, 0, 47, 1, 5, 0, 0, 12];
        let body = body(&lengths);
        for size in 1..=body.len() {
            let pieces: Vec<_> = body.chunks(size).collect();
            assert_eq!(counted(&pieces), lengths.len() as u64, "{size}");
        }
    }
}
