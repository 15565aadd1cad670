//! Filters, compiled: what is done to a request before it goes on, and to a response before it goes back.
//!
//! Invariant: filters run in the order in which they are given; the first that answers ends the request's way.

mod cors;
mod header;
mod path;
mod redirect;
mod rewrite;
#[cfg(test)]
mod tests;

use ambit_model::bound::{Filter, Mirror, PathMatch};
use http::{HeaderMap, Response, request::Parts};

pub use self::{
    cors::{CrossOrigin, CrossOriginRequest},
    header::is_free,
};
use self::{header::HeaderEdits, redirect::Redirection, rewrite::Rewriting};
use crate::{Invalid, RequestHead, takes};

/// How a request came to its filters.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The path of the match that held.
    pub matched: &'a PathMatch,
    /// The port the client connected to.
    pub port: u16,
}

/// A list of filters.
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
    /// Compiles a list; one that cannot be executed makes all of it invalid.
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

    /// Changes a request. Some: a filter answers it, and it goes nowhere.
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

    /// Changes a response, one that a filter or the waypoint itself gave too.
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

    /// Where copies of a request go. Each mirror draws a number of its own, uniform over all of `u64`.
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

    /// The cross-origin rules among them.
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

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
