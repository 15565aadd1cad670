//! CORS (Fetch standard, "CORS protocol"; HTTPCORSFilter of the Gateway API).
//!
//! Invariant: no response combines `*` with credentials. An origin that is not allowed gets no
//! permission: the service's own CORS headers are replaced by those of the route.

mod origin;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ambit_model::bound::Cors;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use self::origin::Origin;
use crate::{Invalid, RequestHead};

/// CORS response headers; only the route sets them.
const PERMISSIONS: [HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

/// The CORS headers of a request, read before filters change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossOriginRequest {
    origin: HeaderValue,
    preflight: Option<Preflight>,
}

/// What a preflight requests.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Preflight {
    method: HeaderValue,
    headers: Option<HeaderValue>,
}

/// A compiled CORS filter.
#[derive(Debug)]
pub struct CrossOrigin {
    origins: Vec<Origin>,
    credentials: bool,
    methods: List,
    headers: List,
    expose: List,
    max_age: HeaderValue,
}

/// Header names or methods in a response.
#[derive(Debug)]
enum List {
    Nothing,
    Anything,
    These(HeaderValue),
}

impl CrossOriginRequest {
    /// `None`: the request has no `Origin` header.
    pub fn of(head: &RequestHead<'_>) -> Option<Self> {
        let given = |name| head.headers.get(name).cloned();
        let origin = given(header::ORIGIN)?;
        let method = given(header::ACCESS_CONTROL_REQUEST_METHOD).filter(|_| *head.method == Method::OPTIONS);
        let preflight =
            method.map(|method| Preflight { method, headers: given(header::ACCESS_CONTROL_REQUEST_HEADERS) });
        Some(Self { origin, preflight })
    }

    /// The method of the request that a preflight announces.
    pub(crate) fn announced(&self) -> Option<Method> {
        Method::from_bytes(self.preflight.as_ref()?.method.as_bytes()).ok()
    }
}

impl CrossOrigin {
    pub(super) fn compile(cors: &Cors) -> Result<Self, Invalid> {
        Ok(Self {
            origins: cors.allow_origins.iter().map(Origin::parse).collect::<Result<_, _>>()?,
            credentials: cors.allow_credentials,
            methods: List::compile(&cors.allow_methods, &header::ACCESS_CONTROL_ALLOW_METHODS)?,
            headers: List::compile(&cors.allow_headers, &header::ACCESS_CONTROL_ALLOW_HEADERS)?,
            expose: List::compile(&cors.expose_headers, &header::ACCESS_CONTROL_EXPOSE_HEADERS)?,
            max_age: HeaderValue::from(cors.max_age.as_secs()),
        })
    }

    /// The response to a preflight, also for an origin that is not allowed; [`Self::mark`] adds the
    /// permissions.
    pub fn answer(&self, asked: &CrossOriginRequest) -> Option<Response<()>> {
        asked.preflight.as_ref()?;
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        Some(answer)
    }

    /// Replaces the CORS headers of a response.
    pub fn mark(&self, headers: &mut HeaderMap, asked: Option<&CrossOriginRequest>) {
        // A cache must not return a response made for another origin.
        let origin_counts = self.credentials || !self.takes_any();
        if origin_counts && !varies_by_origin(headers) {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        let Some(CrossOriginRequest { origin, preflight }) = asked else { return };
        for name in PERMISSIONS {
            headers.remove(name);
        }
        if !origin.to_str().is_ok_and(|text| self.origins.iter().any(|allowed| allowed.takes(text))) {
            return;
        }
        let named = if origin_counts { origin.clone() } else { HeaderValue::from_static("*") };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, named);
        if self.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        let mut say = |name, value: Option<HeaderValue>| _ = value.map(|value| headers.insert(name, value));
        match preflight {
            Some(Preflight { method, headers: asked }) => {
                say(header::ACCESS_CONTROL_ALLOW_METHODS, self.told(&self.methods, Some(method)));
                say(header::ACCESS_CONTROL_ALLOW_HEADERS, self.told(&self.headers, asked.as_ref()));
                say(header::ACCESS_CONTROL_MAX_AGE, Some(self.max_age.clone()));
            }
            None => say(header::ACCESS_CONTROL_EXPOSE_HEADERS, self.told(&self.expose, None)),
        }
    }

    fn takes_any(&self) -> bool {
        self.origins.contains(&Origin::Any)
    }

    /// The value of a list header. With credentials `*` is not a wildcard (Fetch standard), so the
    /// requested names are returned instead.
    fn told(&self, list: &List, asked: Option<&HeaderValue>) -> Option<HeaderValue> {
        match list {
            List::Nothing => None,
            List::Anything if self.credentials => asked.cloned(),
            List::Anything => Some(HeaderValue::from_static("*")),
            List::These(names) => Some(names.clone()),
        }
    }
}

fn varies_by_origin(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::VARY).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|name| matches!(name.trim(), "*" | "origin" | "Origin"))
}

impl List {
    fn compile(names: &[Arc<str>], header: &HeaderName) -> Result<Self, Invalid> {
        if names.is_empty() {
            return Ok(Self::Nothing);
        }
        if names.iter().any(|name| &**name == "*") {
            return Ok(Self::Anything);
        }
        HeaderValue::try_from(names.join(", "))
            .map(Self::These)
            .map_err(|_| Invalid::HeaderValue(header.as_str().into()))
    }
}
