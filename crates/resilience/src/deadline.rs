//! Deadlines of a request and of its tries. Pure.
//!
//! Invariant: no try outlives its request.

use std::time::{Duration, Instant};

use ambit_model::bound::RequestTimeouts;

/// Which limit ended a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// The request's deadline: no further try.
    Request,
    /// The try's own timeout.
    Try,
}

/// The time limits of one request. `None` is no limit; a time beyond the range of the clock counts
/// as none too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    request: Option<Instant>,
    backend: Option<Duration>,
}

impl Deadlines {
    /// For a request that started at `begun`. In the Gateway API, a timeout of zero disables the
    /// limit.
    pub fn new(timeouts: &RequestTimeouts, begun: Instant) -> Self {
        let some = |timeout: Option<Duration>| timeout.filter(|timeout| !timeout.is_zero());
        let request = some(timeouts.request).and_then(|timeout| begun.checked_add(timeout));
        Self { request, backend: some(timeouts.backend) }
    }

    /// The request's deadline.
    pub fn of_request(&self) -> Option<Instant> {
        self.request
    }

    /// The deadline of a try that starts `now`, and the limit it comes from.
    pub fn of_try(&self, now: Instant) -> Option<(Instant, Late)> {
        let own = self.backend.and_then(|timeout| now.checked_add(timeout));
        match (self.request, own) {
            (Some(request), Some(own)) if own < request => Some((own, Late::Try)),
            (Some(request), _) => Some((request, Late::Request)),
            (None, own) => own.map(|own| (own, Late::Try)),
        }
    }

    /// Whether there is time for another try after a pause.
    pub fn leave_time_for(&self, pause: Duration, now: Instant) -> bool {
        match (self.request, now.checked_add(pause)) {
            (Some(request), Some(begin)) => begin < request,
            (Some(_), None) => false,
            (None, _) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_try_ends_at_the_earlier_of_both_limits() {
        let begun = Instant::now();
        let cases = [
            ("none", None, None, 5, None),
            ("only the request's", Some(100), None, 5, Some((100, Late::Request))),
            ("only the try's", None, Some(30), 5, Some((35, Late::Try))),
            ("the try's first", Some(100), Some(30), 5, Some((35, Late::Try))),
            ("the request's first", Some(100), Some(30), 80, Some((100, Late::Request))),
            ("both at once", Some(100), Some(30), 70, Some((100, Late::Request))),
            ("zero is none", Some(0), Some(0), 5, None),
        ];
        for (name, request, backend, at, expected) in cases {
            let timeouts = RequestTimeouts {
                request: request.map(Duration::from_millis),
                backend: backend.map(Duration::from_millis),
            };
            let deadlines = Deadlines::new(&timeouts, begun);
            let found = deadlines.of_try(begun + MS * at);
            assert_eq!(found, expected.map(|(at, late)| (begun + MS * at, late)), "{name}");
        }
    }

    #[test]
    fn a_pause_that_reaches_the_deadline_is_not_made() {
        let begun = Instant::now();
        let limited = RequestTimeouts { request: Some(MS * 100), backend: None };
        let deadlines = Deadlines::new(&limited, begun);
        assert_eq!(deadlines.of_request(), Some(begun + MS * 100));
        assert!(deadlines.leave_time_for(MS * 49, begun + MS * 50));
        assert!(!deadlines.leave_time_for(MS * 50, begun + MS * 50));
        assert!(!deadlines.leave_time_for(Duration::MAX, begun));
        assert!(Deadlines::new(&RequestTimeouts::default(), begun).leave_time_for(MS * 1000, begun));
    }

    #[test]
    fn a_timeout_beyond_the_clock_is_no_limit() {
        let endless = RequestTimeouts { request: Some(Duration::MAX), backend: Some(Duration::MAX) };
        assert_eq!(Deadlines::new(&endless, Instant::now()).of_try(Instant::now()), None);
    }
}
