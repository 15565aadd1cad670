//! Request conditions of a policy, and the request they are evaluated against.
//!
//! Invariant: a [`Token`] has always been verified; unverified claims never become one.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{PathPattern, StringMatch};

/// Conditions on a request: every kind that is not empty must hold. Values of one kind are
/// alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestMatch {
    /// Host, compared case-insensitively, with its port and without.
    pub hosts: Vec<StringMatch>,
    /// Hosts that must not match.
    pub not_hosts: Vec<StringMatch>,
    /// Method, compared case-insensitively.
    pub methods: Vec<StringMatch>,
    /// Methods that must not match.
    pub not_methods: Vec<StringMatch>,
    /// Path without query, in every reading.
    pub paths: Vec<PathPattern>,
    /// Paths that must not match.
    pub not_paths: Vec<PathPattern>,
    /// `<issuer>/<subject>` of the token, separated by the last `/`, so that a pattern for one part
    /// does not match the other.
    pub principals: Vec<StringMatch>,
    /// Request principals that must not match.
    pub not_principals: Vec<StringMatch>,
    /// Client address, behind any proxies.
    pub remote_ips: Vec<IpNet>,
    /// Client addresses that must not match.
    pub not_remote_ips: Vec<IpNet>,
    /// Number of trusted proxies in front of the peer, if configured. Each of them appends to
    /// `X-Forwarded-For`.
    pub trusted_proxies: Option<u32>,
    /// Named conditions, all of which must hold.
    pub attributes: Vec<AttributeMatch>,
}

/// The accepted values of one attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeMatch {
    /// What the condition looks at.
    pub attribute: Attribute,
    /// Alternatives. When empty, the attribute may have any value or be absent.
    pub values: Vec<StringMatch>,
    /// Values that must not match.
    pub not_values: Vec<StringMatch>,
}

/// What a `when` condition looks at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// A header, in lower case. If it has several values, each of them and all of them joined must
    /// give the same result.
    Header(Arc<str>),
    /// The members of a comma-separated header, in lower case, treated as a set.
    HeaderMembers(Arc<str>),
    /// `:authority` or `Host`, unmodified.
    Authority,
    /// The authorized party of the token (`azp`), a set.
    Presenter,
    /// The audiences of the token (`aud`), a set.
    Audiences,
    /// A token claim by its path, a set.
    Claim(Vec<Arc<str>>),
    /// Server name (SNI) of the TLS handshake.
    Sni,
}

/// Access to the header fields of a request, independent of the HTTP library.
pub trait Headers {
    /// Calls `visit` with every value of a header; `name` is in lower case.
    fn each(&self, name: &str, visit: &mut dyn FnMut(&[u8]));
}

/// The request to evaluate.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// `:authority` or `Host`, unmodified.
    pub host: &'a str,
    /// HTTP method.
    pub method: &'a str,
    /// Path without query, unmodified; evaluation considers every reading of it.
    pub path: &'a str,
    /// Header fields.
    pub headers: &'a dyn Headers,
    /// The verified token, if there is one.
    pub token: Option<&'a Token>,
    /// Address of the direct peer; forwarded addresses are in the headers.
    pub remote_ip: IpAddr,
    /// Server name of the TLS handshake, if there was one.
    pub sni: Option<&'a str>,
}

/// The content of a verified token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// Claim `iss`.
    pub issuer: Arc<str>,
    /// Claim `sub`, empty when absent; such a token has no principal.
    pub subject: Arc<str>,
    /// Claim `azp`.
    pub presenters: Vec<Arc<str>>,
    /// Claim `aud`.
    pub audiences: Vec<Arc<str>>,
    /// Claims by path, so that nested claims are found without joining names; a single value is a
    /// list of one.
    pub claims: BTreeMap<Vec<Arc<str>>, Vec<Arc<str>>>,
}

impl RequestMatch {
    /// Whether it has no condition at all.
    pub fn is_empty(&self) -> bool {
        let Self {
            hosts,
            not_hosts,
            methods,
            not_methods,
            paths,
            not_paths,
            principals,
            not_principals,
            remote_ips,
            not_remote_ips,
            trusted_proxies: _,
            attributes,
        } = self;
        hosts.is_empty()
            && not_hosts.is_empty()
            && methods.is_empty()
            && not_methods.is_empty()
            && paths.is_empty()
            && not_paths.is_empty()
            && principals.is_empty()
            && not_principals.is_empty()
            && remote_ips.is_empty()
            && not_remote_ips.is_empty()
            && attributes.is_empty()
    }
}
