//! What a policy can ask of a request, and what a request answers.
//!
//! Invariant: a [`Token`] is one that was verified; what a client merely claims never becomes one.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{PathPattern, StringMatch};

/// Conditions on a request: every kind that is not empty must hold; values of a kind are alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestMatch {
    /// Host, compared without regard to case, with its port and without.
    pub hosts: Vec<StringMatch>,
    /// Not this host.
    pub not_hosts: Vec<StringMatch>,
    /// Method, compared without regard to case.
    pub methods: Vec<StringMatch>,
    /// Not this method.
    pub not_methods: Vec<StringMatch>,
    /// Path, in every reading, without query.
    pub paths: Vec<PathPattern>,
    /// Not this path.
    pub not_paths: Vec<PathPattern>,
    /// `<issuer>/<subject>` of the token; the last `/` parts the two, so that a pattern for one says nothing of the other.
    pub principals: Vec<StringMatch>,
    /// Not this `<issuer>/<subject>`.
    pub not_principals: Vec<StringMatch>,
    /// Address of the client before proxies.
    pub remote_ips: Vec<IpNet>,
    /// Not this address of the client.
    pub not_remote_ips: Vec<IpNet>,
    /// How many proxies stand before the one that calls, where somebody said so; each adds to `X-Forwarded-For`.
    pub trusted_proxies: Option<u32>,
    /// Attributes by name, all of which must hold.
    pub attributes: Vec<AttributeMatch>,
}

/// What an attribute must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeMatch {
    /// Which attribute.
    pub attribute: Attribute,
    /// Alternatives; none takes any value, and none at all.
    pub values: Vec<StringMatch>,
    /// Not this value.
    pub not_values: Vec<StringMatch>,
}

/// An attribute with a name of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// A header, lower case. A request with several values is judged as if there were one request for each, and one
    /// with all of them joined.
    Header(Arc<str>),
    /// A header that holds a list with commas between, lower case; a set.
    HeaderMembers(Arc<str>),
    /// `:authority` or `Host`, as it came.
    Authority,
    /// Whom the token was issued to (`azp`); a set.
    Presenter,
    /// Whom the token is for (`aud`); a set.
    Audiences,
    /// A claim of the token, by its path; a set.
    Claim(Vec<Arc<str>>),
    /// Server name of the TLS handshake.
    Sni,
}

/// The header fields of a request, whatever holds them.
pub trait Headers {
    /// Shows every value of a header to `visit`; the name is in lower case.
    fn each(&self, name: &str, visit: &mut dyn FnMut(&[u8]));
}

/// The request to judge.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// `:authority` or `Host`, as it came.
    pub host: &'a str,
    /// Method.
    pub method: &'a str,
    /// Path as it came, without query; judging reads it in every way.
    pub path: &'a str,
    /// Header fields.
    pub headers: &'a dyn Headers,
    /// Token that was verified, if there is one.
    pub token: Option<&'a Token>,
    /// Address of the peer; what proxies forwarded is among the headers.
    pub remote_ip: IpAddr,
    /// Server name of the TLS handshake, if there was one.
    pub sni: Option<&'a str>,
}

/// What a verified token says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// `iss`.
    pub issuer: Arc<str>,
    /// `sub`, empty if there is none; such a token proves no principal.
    pub subject: Arc<str>,
    /// `azp`.
    pub presenters: Vec<Arc<str>>,
    /// `aud`.
    pub audiences: Vec<Arc<str>>,
    /// Claims by path, so that nested ones are found without being joined; a single value is a list of one.
    pub claims: BTreeMap<Vec<Arc<str>>, Vec<Arc<str>>>,
}

impl RequestMatch {
    /// Whether it says nothing at all.
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
