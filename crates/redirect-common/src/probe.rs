//! What the kubelet may send on a connection that reached a pod without authorization.
//!
//! A probe of another pod may use this pod's address, one of its probe ports and any path. Each
//! data segment must therefore start like one of the pod's own probes. Where only the start of a
//! connection can be compared, because the rest is encrypted or binary, [`REST`] lets everything
//! after it pass.

/// Length of a prefix in bytes. Together with cookie and port this is the maximum key data of an
/// LPM trie, 256 bytes.
pub const OPENING_BYTES_MAX: usize = 244;
/// Value of `OPENINGS`: the rest of the connection passes too.
pub const REST: u32 = 1;

/// The key data of `OPENINGS`, after the prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Opening {
    /// Cookie of the pod's network namespace, lower half first.
    pub cookie: [u32; 2],
    /// Port of the pod, host byte order.
    pub port: u32,
    /// Start of a segment, padded with zeros.
    pub bytes: [u8; OPENING_BYTES_MAX],
}

impl Opening {
    /// Key length in bits for a prefix of this many bytes.
    #[inline(always)]
    #[must_use]
    pub const fn bits(bytes: u32) -> u32 {
        ((size_of::<Self>() - OPENING_BYTES_MAX) as u32 + bytes) * 8
    }

    /// The lower and upper half of a cookie.
    #[inline(always)]
    #[must_use]
    pub const fn halves(cookie: u64) -> [u32; 2] {
        [cookie as u32, (cookie >> 32) as u32]
    }

    /// One prefix; `None` if it is empty or too long to be compared completely.
    #[must_use]
    pub fn new(cookie: u64, port: u16, text: &[u8]) -> Option<Self> {
        let mut bytes = [0; OPENING_BYTES_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        (!text.is_empty()).then(|| Self { cookie: Self::halves(cookie), port: u32::from(port), bytes })
    }
}

/// Value of `PROBING`: an admitted connection of the kubelet, and how much of its data has been
/// checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Probing {
    /// Cookie of the pod's network namespace.
    pub cookie: u64,
    /// Port of the pod, host byte order.
    pub port: u32,
    /// [`REST`] or 0.
    pub rest: u32,
    /// Sequence number of the last checked segment.
    pub from: u32,
    /// The sequence number after that segment.
    pub to: u32,
}

impl Probing {
    /// A connection on which nothing was sent yet.
    #[inline(always)]
    #[must_use]
    pub const fn new(cookie: u64, port: u32) -> Self {
        Self { cookie, port, rest: 0, from: 0, to: 0 }
    }

    /// Whether a segment needs no check: it is empty, a retransmission, or after a start that
    /// admits the rest.
    #[inline(always)]
    #[must_use]
    pub const fn is_judged(&self, sequence: u32, length: u32) -> bool {
        // Sequence numbers wrap (RFC 9293, 3.4).
        let offset = sequence.wrapping_sub(self.from) as u64;
        let judged = self.to.wrapping_sub(self.from) as u64;
        length == 0 || self.rest == REST || offset + length as u64 <= judged
    }

    /// The state after a segment that passed the check.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, sequence: u32, length: u32, rest: u32) -> Self {
        Self { rest, from: sequence, to: sequence.wrapping_add(length), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_compared_once_and_what_follows_it_again() {
        let new = Probing::new(7, 80);
        for near_the_end in [0, 1, 1000, u32::MAX - 10, u32::MAX] {
            let sequence = near_the_end;
            assert!(!new.is_judged(sequence, 100) && new.is_judged(sequence, 0));
            let asked = new.after(sequence, 100, 0);
            let at = |offset: u32| sequence.wrapping_add(offset);
            let table = [
                ("sent again", at(0), 100, true),
                ("its end sent again", at(60), 40, true),
                ("its beginning sent again", at(0), 60, true),
                ("nothing behind it", at(100), 0, true),
                ("more behind it", at(100), 1, false),
                ("sent again with more", at(0), 101, false),
                ("its end with more", at(60), 41, false),
                ("before it", at(u32::MAX), 1, false),
                ("around it", at(u32::MAX), 102, false),
            ];
            for (name, sequence, length, want) in table {
                assert_eq!(asked.is_judged(sequence, length), want, "{name} at {near_the_end}");
            }
            assert!(new.after(sequence, 24, REST).is_judged(at(24), 1_000_000));
            assert!(asked.after(at(100), 50, 0).is_judged(at(100), 50));
        }
    }

    #[test]
    fn a_beginning_is_kept_whole_or_not_at_all() {
        assert_eq!(size_of::<Opening>(), 256);
        assert_eq!(size_of::<Probing>(), 24);
        assert_eq!((Opening::bits(0), Opening::bits(244)), (96, 2048));
        let longest = [b'a'; OPENING_BYTES_MAX];
        let opening = Opening::new(0x0102_0304_0506_0708, 80, &longest).unwrap();
        assert_eq!(opening.cookie, [0x0506_0708, 0x0102_0304]);
        assert_eq!(Opening::new(1, 80, &[b'a'; OPENING_BYTES_MAX + 1]), None);
        assert_eq!(Opening::new(1, 80, b""), None);
    }
}
