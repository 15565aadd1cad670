//! External authorization: which requests are put to whom, and what of the answer counts.
//!
//! Invariant: a provider that does not answer in time, or not in a way that is understood, refuses, unless its owner
//! asked for the opposite ([`CheckProvider::fail_open`]).

use std::{sync::Arc, time::Duration};

use super::Destination;
use crate::{Policy, StringMatch};

/// An AuthorizationPolicy of action CUSTOM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalCheck {
    /// Which requests. Its action is that of DENY, so that what is in doubt is put to the provider too.
    pub policy: Arc<Policy>,
    /// Who decides about them.
    pub provider: Arc<CheckProvider>,
}

/// Who decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckProvider {
    /// As `Mesh.spec.extensionProviders` names it.
    pub name: Arc<str>,
    /// Where it is.
    pub to: Destination,
    /// How long one check may take, connecting included.
    pub timeout: Duration,
    /// Requests go on without an answer when there is none.
    pub fail_open: bool,
    /// What a client gets when there is no answer.
    pub status_on_error: u16,
    /// The part of the request's body that the provider sees. None: nothing.
    pub body: Option<CheckBody>,
    /// How it is asked.
    pub protocol: CheckProtocol,
}

/// How much of a body a provider sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckBody {
    /// Most of it.
    pub max_bytes: u32,
    /// What is larger is cut for the provider; else such a request is answered 413.
    pub allow_partial: bool,
    /// As bytes, not as text (gRPC only).
    pub pack_as_bytes: bool,
}

/// How a provider is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckProtocol {
    /// `envoy.service.auth.v3.Authorization/Check`
    Grpc,
    /// The request itself without its body: 200 lets it pass.
    Http(Box<HttpCheck>),
}

/// What an HTTP provider gets and gives beside yes or no. Header names are compared in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpCheck {
    /// Stands before the path of the request.
    pub path_prefix: Arc<str>,
    /// Headers of the request that the provider sees beside the host and `authorization`.
    pub request_headers: Vec<StringMatch>,
    /// Headers that the provider sees beside; they take the place of the request's.
    pub additional_headers: Vec<(Arc<str>, Arc<str>)>,
    /// Headers that the provider alone sets on an admitted request; what the client sent under such a name goes.
    pub upstream_on_allow: Vec<StringMatch>,
    /// Headers of a refusal that the client sees; empty is all.
    pub downstream_on_deny: Vec<StringMatch>,
    /// Headers of the provider's answer that the client of an admitted request sees.
    pub downstream_on_allow: Vec<StringMatch>,
}
