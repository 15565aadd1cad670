use ambit_model::{
    Destination, NamespacedName,
    bound::{Cors, Fraction, HeaderChange, PathChange, PathMatch, Redirect, Rewrite},
};
use http::{HeaderValue, StatusCode};

use super::*;

fn set(name: &str, value: &str) -> HeaderChange {
    HeaderChange { set: vec![(name.into(), value.into())], ..HeaderChange::default() }
}

fn mirror(name: &str, fraction: Option<Fraction>) -> Filter {
    let to = Destination { service: NamespacedName::new("ns", name), port: 80 };
    Filter::Mirror(Mirror { to, fraction })
}

fn redirect() -> Filter {
    Filter::Redirect(Redirect {
        scheme: None,
        hostname: Some("example.org".into()),
        path: None,
        port: None,
        status: 301,
        trusts_forwarded_proto: false,
    })
}

fn run(filters: &[Filter], request: &mut Parts) -> Option<Response<()>> {
    let arrival = Arrival { matched: &PathMatch::Prefix("/a".into()), port: 80 };
    Filters::compile(filters).unwrap().on_request(request, arrival)
}

fn request() -> Parts {
    http::Request::builder().uri("/a/b").header("host", "echo").body(()).unwrap().into_parts().0
}

#[test]
fn filters_run_in_order_and_the_first_that_answers_ends_it() {
    let mut request = request();
    let filters = [
        Filter::RequestHeaders(set("x", "1")),
        Filter::Rewrite(Rewrite {
            hostname: Some("new".into()),
            path: Some(PathChange::Prefix("/c".into())),
        }),
        Filter::RequestHeaders(set("x", "2")),
        redirect(),
        Filter::RequestHeaders(set("x", "3")),
    ];
    let answer = run(&filters, &mut request).unwrap();
    assert_eq!(answer.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(request.headers["x"], "2");
    assert_eq!(request.headers["host"], "new");
    assert_eq!(request.uri, "/c/b");
}

#[test]
fn what_changes_nothing_lets_the_request_pass_as_it_is() {
    let mut request = request();
    let filters =
        [Filter::ResponseHeaders(set("x", "1")), mirror("copy", None), Filter::Cors(Cors::default())];
    assert!(run(&filters, &mut request).is_none());
    assert_eq!(request.headers.len(), 1);
    assert!(!Filters::compile(&filters).unwrap().is_empty());
    assert!(Filters::compile(&[]).unwrap().is_empty());
}

#[test]
fn a_preflight_is_answered_and_its_answer_marked() {
    let filters = Filters::compile(&[
        Filter::Cors(Cors { allow_origins: vec!["*".into()], ..Cors::default() }),
        Filter::ResponseHeaders(set("x", "1")),
    ])
    .unwrap();
    let mut request = request();
    request.method = http::Method::OPTIONS;
    request.headers.insert("origin", HeaderValue::from_static("https://a.com"));
    request.headers.insert("access-control-request-method", HeaderValue::from_static("GET"));
    let asked = CrossOriginRequest::of(&RequestHead::from(&request));
    let arrival = Arrival { matched: &PathMatch::default(), port: 80 };
    let mut answer = filters.on_request(&mut request, arrival).unwrap();
    filters.on_response(answer.headers_mut(), asked.as_ref());
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    assert_eq!(answer.headers()["x"], "1");
}

#[test]
fn every_mirror_draws_a_number_of_its_own() {
    let half = Some(Fraction { numerator: 1, denominator: 2 });
    let filters =
        Filters::compile(&[mirror("a", half), mirror("b", half), redirect(), mirror("c", None)]).unwrap();
    let names = |numbers: [u64; 3]| {
        let mut numbers = numbers.into_iter();
        let mirrors = filters.mirrors(|| numbers.next().unwrap());
        mirrors.map(|mirror| mirror.to.service.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names([0, 1, 1]), ["a", "c"]);
    assert_eq!(names([1, 0, 1]), ["b", "c"]);
    assert_eq!(names([1, 1, 1]), ["c"]);
}

#[test]
fn one_filter_that_cannot_be_executed_makes_the_list_invalid() {
    let filters = [Filter::RequestHeaders(set("x", "1")), Filter::ResponseHeaders(set("x y", "1"))];
    assert_eq!(Filters::compile(&filters).unwrap_err(), Invalid::HeaderName("x y".into()));
}
