//! External authorization: which requests are sent to which provider, and how its response is
//! applied.
//!
//! Invariant: a provider that does not respond in time, or whose response is not understood, denies
//! the request, unless its owner configured the opposite ([`CheckProvider::fail_open`]).

use std::{sync::Arc, time::Duration};

use super::destination::Destination;
use crate::{Policy, StringMatch};

/// An AuthorizationPolicy with action CUSTOM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalCheck {
    /// Selects the requests. Its action is DENY, so that requests in doubt are sent to the provider
    /// too.
    pub policy: Arc<Policy>,
    /// The provider that decides.
    pub provider: Arc<CheckProvider>,
}

/// An external authorization provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckProvider {
    /// Name in `Mesh.spec.extensionProviders`.
    pub name: Arc<str>,
    /// Service port of the provider.
    pub to: Destination,
    /// Longest time for one check, connecting included.
    pub timeout: Duration,
    /// When the provider fails, let the request pass.
    pub fail_open: bool,
    /// HTTP status for the client when the provider fails.
    pub status_on_error: u16,
    /// How much of the request body is sent to the provider. `None`: nothing.
    pub body: Option<CheckBody>,
    /// Protocol of the provider.
    pub protocol: CheckProtocol,
}

/// How much of a body is sent to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckBody {
    /// Most bytes sent.
    pub max_bytes: u32,
    /// Larger bodies are truncated for the provider; otherwise such a request gets 413.
    pub allow_partial: bool,
    /// Sent as bytes instead of text (gRPC only).
    pub pack_as_bytes: bool,
}

/// Protocol of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckProtocol {
    /// `envoy.service.auth.v3.Authorization/Check`
    Grpc,
    /// The request itself without its body; 200 lets it pass.
    Http(Box<HttpCheck>),
}

/// Header rules for an HTTP provider. Header names are compared in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpCheck {
    /// Prepended to the path of the request.
    pub path_prefix: Arc<str>,
    /// Request headers sent to the provider in addition to the host and `authorization`.
    pub request_headers: Vec<StringMatch>,
    /// Headers added for the provider; they replace those of the request.
    pub additional_headers: Vec<(Arc<str>, Arc<str>)>,
    /// Headers that only the provider may set on an admitted request; client-supplied values are
    /// removed.
    pub upstream_on_allow: Vec<StringMatch>,
    /// Headers of a denial that are passed to the client; empty passes all.
    pub downstream_on_deny: Vec<StringMatch>,
    /// Headers of the provider's response that are added to the response of an admitted request.
    pub downstream_on_allow: Vec<StringMatch>,
}
