//! Compiled filters: changes of a request before it is forwarded, and of a response before it is
//! returned.
//!
//! Invariant: filters run in the order of the route; the first one that answers ends the processing
//! of the request.

mod arrival;
mod cors;
mod header;
mod host;
mod path;
mod redirect;
mod rewrite;
#[cfg(test)]
mod tests;

use ambit_model::bound::{Filter, Mirror};
use http::{HeaderMap, Response, request::Parts};

pub use self::{
    arrival::Arrival,
    cors::{CrossOrigin, CrossOriginRequest},
    header::is_free,
};
use self::{header::HeaderEdits, redirect::Redirection, rewrite::Rewriting};
use crate::{Invalid, RequestHead, takes};

/// A list of compiled filters.
#[derive(Debug, Default)]
pub struct Filters(Vec<Compiled>);

#[derive(Debug)]
enum Compiled {
    RequestHeaders(HeaderEdits),
    ResponseHeaders(HeaderEdits),
    Redirect(Redirection),
    Rewrite(Rewriting),
    Mirror(Mirror),
    Cors(CrossOrigin),
}

impl Filters {
    /// Compiles a list; if one filter is invalid, the whole list is.
    ///
    /// # Errors
    /// The first filter that cannot be executed.
    pub fn compile(filters: &[Filter]) -> Result<Self, Invalid> {
        let compile = |filter: &Filter| {
            Ok(match filter {
                Filter::RequestHeaders(change) => Compiled::RequestHeaders(HeaderEdits::compile(change)?),
                Filter::ResponseHeaders(change) => Compiled::ResponseHeaders(HeaderEdits::compile(change)?),
                Filter::Redirect(redirect) => Compiled::Redirect(Redirection::compile(redirect)?),
                Filter::Rewrite(rewrite) => Compiled::Rewrite(Rewriting::compile(rewrite)?),
                Filter::Mirror(mirror) => Compiled::Mirror(mirror.clone()),
                Filter::Cors(cors) => Compiled::Cors(CrossOrigin::compile(cors)?),
            })
        };
        filters.iter().map(compile).collect::<Result<_, _>>().map(Self)
    }

    /// Changes a request. `Some` is the response of a filter that answers; the request is then not
    /// forwarded.
    pub fn on_request(&self, request: &mut Parts, arrival: Arrival<'_>) -> Option<Response<()>> {
        self.0.iter().find_map(|filter| match filter {
            Compiled::RequestHeaders(edits) => {
                edits.apply_to_request(request);
                None
            }
            Compiled::Redirect(redirect) => Some(redirect.answer(&RequestHead::from(&*request), arrival)),
            Compiled::Rewrite(rewrite) => rewrite.apply(request, arrival.matched),
            Compiled::Cors(cors) => {
                CrossOriginRequest::of(&RequestHead::from(&*request)).and_then(|asked| cors.answer(&asked))
            }
            Compiled::ResponseHeaders(_) | Compiled::Mirror(_) => None,
        })
    }

    /// Changes a response, including responses of a filter or of the waypoint itself.
    pub fn on_response(&self, headers: &mut HeaderMap, asked: Option<&CrossOriginRequest>) {
        for filter in &self.0 {
            match filter {
                Compiled::ResponseHeaders(edits) => edits.apply(headers),
                Compiled::Cors(cors) => cors.mark(headers, asked),
                Compiled::RequestHeaders(_)
                | Compiled::Redirect(_)
                | Compiled::Rewrite(_)
                | Compiled::Mirror(_) => {}
            }
        }
    }

    /// The mirrors that get a copy of a request. Each one draws its own random number, which must
    /// be uniform over `u64`.
    pub fn mirrors(&self, mut random: impl FnMut() -> u64) -> impl Iterator<Item = &Mirror> {
        self.0.iter().filter_map(move |filter| match filter {
            Compiled::Mirror(mirror) => takes(mirror.fraction, random()).then_some(mirror),
            Compiled::RequestHeaders(_)
            | Compiled::ResponseHeaders(_)
            | Compiled::Redirect(_)
            | Compiled::Rewrite(_)
            | Compiled::Cors(_) => None,
        })
    }

    /// The CORS filter in the list.
    pub fn cross_origin(&self) -> Option<&CrossOrigin> {
        self.0.iter().find_map(|filter| match filter {
            Compiled::Cors(cors) => Some(cors),
            Compiled::RequestHeaders(_)
            | Compiled::ResponseHeaders(_)
            | Compiled::Redirect(_)
            | Compiled::Rewrite(_)
            | Compiled::Mirror(_) => None,
        })
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
