//! The certificate of the agents' port: issued by the mesh's CA, renewed halfway through its
//! lifetime or when the CA changes.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ambit_identity::{Clock, Error, OPERATOR_NAME, server::Acceptor};
use tokio::time::sleep;

use crate::ca::{Issuer, IssuerWatch};

/// Lifetime of the port's certificate.
pub(crate) const SERVER_CERTIFICATE_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Pause after a failed renewal.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

pub(super) fn first(issuer: &Issuer, clock: &Clock) -> Result<(Acceptor, SystemTime), Error> {
    let now = clock();
    let certificate = issuer.authority.server_certificate(OPERATOR_NAME, SERVER_CERTIFICATE_TTL, now)?;
    Ok((Acceptor::new(&certificate)?, halfway(now, certificate.not_after())))
}

/// Runs until the task that establishes trust has ended.
pub(super) async fn keep_fresh(
    acceptor: Acceptor,
    mut issuer: IssuerWatch,
    clock: Clock,
    mut renew_at: SystemTime,
) {
    loop {
        let pause = renew_at.duration_since(clock()).unwrap_or_default();
        tokio::select! {
            () = sleep(pause) => {}
            changed = issuer.changed() => if changed.is_err() {
                // No renewal is possible any more; serve with this certificate as long as it lasts.
                return std::future::pending().await;
            },
        }
        let Some(current) = issuer.borrow_and_update().clone() else {
            continue_after(&mut renew_at, &clock);
            continue;
        };
        match renew(&acceptor, &current, clock()) {
            Ok(at) => renew_at = at,
            Err(error) => {
                tracing::error!(%error, retry_in = ?RETRY_PAUSE, "Certificate of the agents' port not renewed");
                continue_after(&mut renew_at, &clock);
            }
        }
    }
}

fn continue_after(renew_at: &mut SystemTime, clock: &Clock) {
    *renew_at = clock() + RETRY_PAUSE;
}

fn renew(acceptor: &Acceptor, issuer: &Arc<Issuer>, now: SystemTime) -> Result<SystemTime, Error> {
    let certificate = issuer.authority.server_certificate(OPERATOR_NAME, SERVER_CERTIFICATE_TTL, now)?;
    acceptor.swap(&certificate)?;
    tracing::info!("Certificate of the agents' port renewed");
    Ok(halfway(now, certificate.not_after()))
}

/// At least a pause from now, so that a CA about to expire does not cause a busy loop.
fn halfway(now: SystemTime, not_after: SystemTime) -> SystemTime {
    now + (not_after.duration_since(now).unwrap_or_default() / 2).max(RETRY_PAUSE)
}
