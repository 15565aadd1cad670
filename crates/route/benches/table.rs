//! Lookup cost of the 1,000th route, compared with the first one and with trying every match in
//! order.
//!
//! Invariant: variants run interleaved in one process, and only ratios are printed, because
//! absolute times depend mostly on the machine.

use std::{hint::black_box, sync::Arc, time::Instant};

use ambit_model::bound::{HeaderMatch, HttpMatch, HttpRule, HttpTable, PathMatch, ValueMatch};
use ambit_route::{RequestHead, Table};

const ROUTES: usize = 1_000;
const LOOKUPS_PER_ROUND: usize = 2_000;
const ROUNDS: usize = 60;

/// Builds the path of the n-th match.
type MakePath = fn(usize) -> PathMatch;

fn main() {
    let kinds: [(&str, MakePath); 3] = [
        ("exact", |n| PathMatch::Exact(path(n).into())),
        ("prefix", |n| PathMatch::Prefix(path(n).into())),
        ("regex", |n| PathMatch::Regex(format!("/service/{n}/[a-z]+").into())),
    ];
    for (kind, make) in kinds {
        let one = Table::compile(Arc::new(table(1, make)));
        let many = Table::compile(Arc::new(table(ROUTES, make)));
        let naive: Vec<Table> = (0..ROUTES).map(|n| Table::compile(Arc::new(single(make(n))))).collect();
        let (first, last) = (request(0), request(ROUTES - 1));
        let [base, first_of_many, last_of_many, scan] = interleaved([
            &|| found(&one, &first),
            &|| found(&many, &first),
            &|| found(&many, &last),
            &|| naive.iter().position(|table| found(table, &last).is_some()),
        ]);
        println!(
            "{kind:<6} first of {ROUTES} / only one: {:.2}   last of {ROUTES} / only one: {:.2}   \
             one by one / table, last of {ROUTES}: {:.0}",
            first_of_many / base,
            last_of_many / base,
            scan / last_of_many,
        );
    }
}

/// Shortest time of each variant over all rounds, in nanoseconds per lookup.
fn interleaved<const N: usize>(variants: [&dyn Fn() -> Option<usize>; N]) -> [f64; N] {
    let mut least = [f64::MAX; N];
    for _ in 0..ROUNDS {
        for (variant, least) in variants.iter().zip(&mut least) {
            let begin = Instant::now();
            // A slow variant needs fewer runs for its share of a round.
            let mut lookups = 0;
            while lookups < LOOKUPS_PER_ROUND && begin.elapsed().as_millis() < 20 {
                assert!(black_box(variant()).is_some(), "a request of the benchmark found no route");
                lookups += 1;
            }
            *least = least.min(begin.elapsed().as_nanos() as f64 / lookups as f64);
        }
    }
    least
}

fn found(table: &Table, request: &http::request::Parts) -> Option<usize> {
    table.find(&RequestHead::from(black_box(request))).map(|found| found.index)
}

fn path(n: usize) -> String {
    format!("/service/{n}/list")
}

fn single(path: PathMatch) -> HttpTable {
    let value = ValueMatch::Exact("v1".into());
    let matched = HttpMatch {
        path,
        headers: vec![HeaderMatch { name: "version".into(), value }],
        ..HttpMatch::default()
    };
    HttpTable { matches: vec![(matched, 0)], rules: vec![HttpRule::default()] }
}

fn table(routes: usize, make: MakePath) -> HttpTable {
    let matches =
        (0..routes).flat_map(|n| single(make(n)).matches.into_iter().map(move |(matched, _)| (matched, n)));
    HttpTable { matches: matches.collect(), rules: vec![HttpRule::default(); routes] }
}

fn request(n: usize) -> http::request::Parts {
    let request = http::Request::builder().uri(path(n)).header("host", "echo").header("version", "v1");
    match request.body(()) {
        Ok(request) => request.into_parts().0,
        Err(_) => http::Request::new(()).into_parts().0,
    }
}
