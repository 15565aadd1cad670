//! The labels of requests and streams.
//!
//! Invariant: names and values are Istio's. Unknown values are `unknown`. Beyond the limit of series all values are
//! `overflow`, except that a status keeps its class (`5xx`), so that errors remain visible.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use ambit_model::NamespacedName;
pub use ambit_proxy::labels::End;
use ambit_proxy::labels::{DESTINATION, OrElse, SOURCE, UNKNOWN, encode_service};
use ambit_runtime::series;
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};

const OVERFLOW: &str = "overflow";
/// The highest status that gRPC defines; other numbers count as `UNKNOWN`, since an endpoint may send any.
const GRPC_STATUS_MAX: u16 = 16;
const GRPC_UNKNOWN: u16 = 2;
/// Response flags that are kept of one request.
const FLAGS_MAX: usize = 2;

/// The value of `request_protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `http`
    Http,
    /// `grpc`
    Grpc,
    /// `tcp`
    Tcp,
}

/// The value of `response_flags`, in Envoy's and Istio's abbreviations; `-` if there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags([Option<&'static str>; FLAGS_MAX]);

impl Flags {
    /// The first flags that are not empty.
    pub fn new(flags: &[&'static str]) -> Self {
        let mut said = flags.iter().copied().filter(|flag| !flag.is_empty());
        Self([said.next(), said.next()])
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [None, _] => f.write_char('-'),
            [Some(one), None] => f.write_str(one),
            [Some(one), Some(other)] => write!(f, "{one},{other}"),
        }
    }
}

/// How a request or stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ended {
    protocol: Protocol,
    /// Status of the response; 0 if none was sent.
    code: u16,
    grpc_status: Option<u16>,
    flags: Flags,
}

impl Ended {
    /// A request; `code` is 0 if no response was sent.
    pub fn request(code: u16, flags: Flags) -> Self {
        Self { protocol: Protocol::Http, code, grpc_status: None, flags }
    }

    /// A gRPC request; `status` is `None` if it ended before its trailers.
    pub fn grpc(code: u16, status: Option<u16>, flags: Flags) -> Self {
        let status = status.map(|status| if status > GRPC_STATUS_MAX { GRPC_UNKNOWN } else { status });
        Self { protocol: Protocol::Grpc, code, grpc_status: status, flags }
    }

    /// Whether it is a gRPC request.
    pub(super) fn is_grpc(&self) -> bool {
        self.protocol == Protocol::Grpc
    }

    /// A byte stream.
    pub fn stream(flags: Flags) -> Self {
        Self { protocol: Protocol::Tcp, code: 0, grpc_status: None, flags }
    }
}

/// The label set of one series.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Labels {
    pub(super) source: Arc<End>,
    pub(super) destination: Arc<End>,
    /// The service that the client addressed: namespace and hostname.
    pub(super) service: Option<NamespacedName>,
    pub(super) ended: Ended,
    pub(super) overflow: bool,
}

impl series::Labels for Labels {
    fn overflow(&self) -> Self {
        let ended = Ended {
            code: self.ended.code / 100 * 100,
            flags: Flags::default(),
            grpc_status: None,
            protocol: self.ended.protocol,
        };
        Self { source: Arc::default(), destination: Arc::default(), service: None, ended, overflow: true }
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        let absent = if self.overflow { OVERFLOW } else { UNKNOWN };
        ("reporter", "waypoint").encode(encoder.encode_label())?;
        self.source.encode(encoder, SOURCE, absent)?;
        encode_service(encoder, self.service.as_ref(), absent)?;
        self.destination.encode(encoder, DESTINATION, absent)?;
        let Ended { protocol, code, grpc_status, flags } = &self.ended;
        let (name, answered) = match protocol {
            Protocol::Http => ("http", true),
            Protocol::Grpc => ("grpc", true),
            Protocol::Tcp => ("tcp", false),
        };
        ("request_protocol", name).encode(encoder.encode_label())?;
        if answered {
            let class = self.overflow.then(|| format!("{}xx", code / 100));
            match class {
                Some(class) => ("response_code", class.as_str()).encode(encoder.encode_label())?,
                None => ("response_code", OrElse(Some(code), "")).encode(encoder.encode_label())?,
            }
        }
        if *protocol == Protocol::Grpc {
            ("grpc_response_status", OrElse(grpc_status.as_ref(), absent)).encode(encoder.encode_label())?;
        }
        ("response_flags", OrElse(Some(flags), "")).encode(encoder.encode_label())?;
        // Requests arrive through tunnels only.
        ("connection_security_policy", "mutual_tls").encode(encoder.encode_label())
    }
}
