//! Accounting of one connection: counters resolved once, and one access log line at the end.
//!
//! Invariant: every flow that is opened is closed exactly once, however its task ends.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    net::SocketAddr,
    rc::Rc,
    time::Instant,
};

use ambit_hbone::Counters;
use ambit_proxy::{
    access_log::AccessLog,
    bytes::{ByteCount, Bytes},
};

use crate::{
    access_log::{Direction, Record, Refused},
    error::Error,
    metrics::{Cache, InUse, Labels, Reporter, Traffic},
};

/// All flows of one worker.
pub(crate) struct Flows {
    log: AccessLog,
    series: RefCell<Cache>,
    live: RefCell<HashMap<u64, Rc<Live>>>,
    next: Cell<u64>,
}

impl fmt::Debug for Flows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flows").field("live", &self.live.borrow().len()).finish_non_exhaustive()
    }
}

/// Bytes of an open flow.
struct Live {
    bytes: ByteCount,
    series: InUse,
    direction: Direction,
}

/// The accounting of one connection whose two ends are known.
pub(crate) struct Flow {
    flows: Rc<Flows>,
    id: u64,
    live: Rc<Live>,
    labels: Labels,
    record: Record,
    begun: Instant,
    result: Result<(), Error>,
}

impl Flows {
    /// For a new worker.
    pub(crate) fn new(log: AccessLog, traffic: &Traffic) -> Rc<Self> {
        Rc::new(Self {
            log,
            series: RefCell::new(traffic.cache()),
            live: RefCell::default(),
            next: Cell::new(0),
        })
    }

    /// Opens a flow that started at `begun`; `record` is completed when it ends.
    pub(crate) fn open(self: &Rc<Self>, labels: Labels, record: Record, begun: Instant) -> Flow {
        let series = self.series.borrow_mut().acquire(&labels);
        series.opened();
        let live = Rc::new(Live { bytes: ByteCount::default(), series, direction: record.direction });
        let id = self.next.get();
        self.next.set(id.wrapping_add(1));
        self.live.borrow_mut().insert(id, live.clone());
        Flow { flows: self.clone(), id, live, labels, record, begun, result: Err(Error::Drained) }
    }

    /// Counts and logs a connection that ended before more than its addresses was known.
    pub(crate) fn refuse(
        &self,
        direction: Direction,
        client: SocketAddr,
        server: Option<SocketAddr>,
        error: &Error,
    ) {
        let reporter = match direction {
            Direction::Outbound => Reporter::Source,
            Direction::Inbound => Reporter::Destination,
        };
        self.series.borrow_mut().failed_early(reporter, error.flags());
        self.log.put(&Refused { direction, client, server, error });
    }

    /// Adds the bytes transferred since the last flush.
    pub(crate) fn flush(&self) {
        self.live.borrow().values().for_each(|live| live.flush());
    }
}

impl Live {
    fn flush(&self) {
        let Bytes { sent, received } = self.bytes.take();
        // The pod is the client of what it opens and the server of what it accepts.
        let (to_server, to_client) = match self.direction {
            Direction::Outbound => (sent, received),
            Direction::Inbound => (received, sent),
        };
        self.series.to_server(to_server);
        self.series.to_client(to_client);
    }
}

impl Flow {
    /// The byte counters: `sent` and `received` by the pod.
    pub(crate) fn counters(&self) -> &Counters {
        &self.live.bytes.counters
    }

    /// Ends the flow.
    pub(crate) fn finish(mut self, result: Result<(), Error>) {
        self.result = result;
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.live.flush();
        self.live.series.closed();
        self.flows.live.borrow_mut().remove(&self.id);
        if let Err(error) = &self.result {
            self.flows.series.borrow_mut().failed(&self.labels, error.flags());
            self.record.error = Some(error.to_string());
        }
        let Bytes { sent, received } = self.live.bytes.total();
        (self.record.bytes_sent, self.record.bytes_recv) = (sent, received);
        self.record.duration = self.begun.elapsed();
        self.flows.log.put(&self.record);
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow").field("id", &self.id).field("record", &self.record).finish_non_exhaustive()
    }
}
