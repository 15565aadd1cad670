//! The benchmark cases: in every round, each proxy runs once.

use std::{sync::Arc, time::Duration};

use ambit_identity::Svid;
use anyhow::{Context as _, Result, ensure};
use hyper::StatusCode;

use crate::{
    backend,
    control::Control,
    load::{self, Http, Shape, Target},
    plan,
    proxies::{Programs, Proxy},
    service::{self, DENIED_PREFIX, route_path},
    table::{self, Sample},
};

/// Rounds per case.
const ROUNDS: usize = 5;
/// Duration of one run.
const TURN: Duration = Duration::from_secs(2);
/// Requests per second for latency cases.
const RATE: u32 = 2000;
/// Tunnels that each carried one request and then stay open, on ten connections.
const IDLE_TUNNELS: usize = 1000;
/// How long a proxy may take to release the memory of idle connections.
const GIVE_BACK: Duration = Duration::from_secs(5);
/// Number of routes in the case with many routes.
const MANY_ROUTES: usize = 1000;

/// Whether requests arrive in a tunnel and leave in one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Tunnel,
}

struct Case {
    name: &'static str,
    way: Way,
    http: Http,
    path: String,
    rate: Option<u32>,
}

/// Runs all cases and prints the results.
pub(crate) async fn run(programs: &Programs) -> Result<()> {
    let control = Control::start(programs.places.control(), programs.folder.clone()).await?;
    backend::start(&programs.places, control.svid(&plan::backend())?).await?;
    let client = control.svid(&plan::client())?;
    control.publish(service::addresses(&programs.places), vec![service::bound(0)?])?;

    let proxies = [
        programs.envoy(&control, 0).await?,
        programs.bare(&control).await?,
        programs.waypoint(&control).await?,
    ];
    judged(&proxies, &client).await?;
    println!("memory, KiB resident            {}", names(&proxies));
    println!("idle                            {}", memory(&proxies)?);
    table::print_head();
    for case in cases() {
        table::print(case.name, &rounds(&case, &proxies, &client).await?);
    }
    println!("memory after the load           {}", memory(&proxies)?);
    println!("with {IDLE_TUNNELS} idle tunnels         {}", idle_tunnels(&proxies, &client).await?);
    drop(proxies);

    control.update(service::bound(MANY_ROUTES)?)?;
    let proxies = [programs.envoy(&control, MANY_ROUTES).await?, programs.waypoint(&control).await?];
    println!("memory, KiB resident            {}", names(&proxies));
    println!("idle with {MANY_ROUTES} routes           {}", memory(&proxies)?);
    table::print_head();
    let many = |name, number| Case { name, path: route_path(number), ..many_routes() };
    for case in [many("1,000 routes, the first", 0), many("1,000 routes, the last", MANY_ROUTES - 1)] {
        table::print(case.name, &rounds(&case, &proxies, &client).await?);
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let case = |name, way, http| Case { name, way, http, path: "/".into(), rate: None };
    let fixed = |name, way, http| Case { rate: Some(RATE), ..case(name, way, http) };
    vec![
        case("plain HTTP/1.1", Way::Plain, Http::One),
        case("plain HTTP/2", Way::Plain, Http::Two),
        case("HBONE, HTTP/1.1 inside", Way::Tunnel, Http::One),
        case("HBONE, HTTP/2 inside", Way::Tunnel, Http::Two),
        fixed("HBONE, HTTP/1.1, 2,000/s", Way::Tunnel, Http::One),
    ]
}

fn many_routes() -> Case {
    Case { name: "", way: Way::Tunnel, http: Http::One, path: String::new(), rate: None }
}

/// 64 concurrent requests, or 32 without multiplexing.
fn shape(case: &Case) -> Shape {
    match (case.way, case.http) {
        (Way::Plain, Http::One) => Shape { connections: 32, tunnels: 1, streams: 1 },
        (Way::Plain, Http::Two) => Shape { connections: 4, tunnels: 1, streams: 16 },
        (Way::Tunnel, Http::One) => Shape { connections: 4, tunnels: 16, streams: 1 },
        (Way::Tunnel, Http::Two) => Shape { connections: 4, tunnels: 4, streams: 4 },
    }
}

async fn rounds(case: &Case, proxies: &[Proxy], client: &Arc<Svid>) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for _ in 0..ROUNDS {
        for proxy in proxies {
            if let Some(target) = target(proxy, case.way, case.http, client) {
                let turn = turn(case, proxy, &target).await;
                samples.push(turn.with_context(|| format!("{} of {}", case.name, proxy.name))?);
            }
        }
    }
    Ok(samples)
}

async fn turn(case: &Case, proxy: &Proxy, target: &Target) -> Result<Sample> {
    let senders = load::connect(target, shape(case)).await?;
    let before = proxy.cpu()?;
    let measured = match case.rate {
        None => load::closed_loop(senders, &case.path, TURN).await?,
        Some(rate) => load::fixed_rate(senders, &case.path, rate, TURN).await?,
    };
    let used = proxy.cpu()?.saturating_sub(before);
    #[expect(clippy::cast_precision_loss, reason = "some hundred thousand requests")]
    let cpu_us = used.as_secs_f64() * 1e6 / measured.requests as f64;
    Ok(Sample { proxy: proxy.name, cpu_us, measured })
}

fn target(proxy: &Proxy, way: Way, http: Http, client: &Arc<Svid>) -> Option<Target> {
    match way {
        Way::Plain => proxy.plain.map(|address| Target { address, tunnel: None, http }),
        Way::Tunnel => {
            Some(Target { address: proxy.hbone, tunnel: Some((client.clone(), plan::waypoint())), http })
        }
    }
}

/// Checks that every proxy serves, and that those with policies deny what they must; otherwise a
/// comparison is pointless.
async fn judged(proxies: &[Proxy], client: &Arc<Svid>) -> Result<()> {
    for proxy in proxies {
        let target = target(proxy, Way::Tunnel, Http::One, client).context("no tunnel")?;
        let shape = Shape { connections: 1, tunnels: 1, streams: 1 };
        let mut senders = load::connect(&target, shape).await.with_context(|| proxy.name)?;
        let sender = senders.first_mut().context("no connection")?;
        let served = sender.ask("/").await?;
        ensure!(served == StatusCode::OK, "{} answers {served}", proxy.name);
        let denied = sender.ask(&format!("{DENIED_PREFIX}keys")).await?;
        let wanted = if proxy.name == "bare" { StatusCode::OK } else { StatusCode::FORBIDDEN };
        ensure!(denied == wanted, "{} answers {denied} to a path that is denied", proxy.name);
    }
    Ok(())
}

/// Memory of each proxy with many open idle tunnels.
async fn idle_tunnels(proxies: &[Proxy], client: &Arc<Svid>) -> Result<String> {
    let shape = Shape { connections: 10, tunnels: IDLE_TUNNELS / 10, streams: 1 };
    let mut row = String::new();
    for proxy in proxies {
        let target = target(proxy, Way::Tunnel, Http::One, client).context("no tunnel")?;
        let mut senders = load::connect(&target, shape).await.with_context(|| proxy.name)?;
        for sender in &mut senders {
            ensure!(sender.ask("/").await? == StatusCode::OK, "{} does not serve", proxy.name);
        }
        tokio::time::sleep(GIVE_BACK).await;
        row += &format!("{:>12}", proxy.resident()?);
    }
    Ok(row)
}

fn names(proxies: &[Proxy]) -> String {
    proxies.iter().map(|proxy| format!("{:>12}", proxy.name)).collect()
}

fn memory(proxies: &[Proxy]) -> Result<String> {
    proxies.iter().map(|proxy| Ok(format!("{:>12}", proxy.resident()?))).collect()
}
