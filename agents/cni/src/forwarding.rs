//! Forwarded packets of pods: covers new devices, and reports dropped packets.
//!
//! Invariant: correctness does not depend on timing. Packets from a device that is not covered yet
//! are dropped where they leave the pod.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ambit_redirect::{DeviceWatch, Direction};
use tokio::{io::unix::AsyncFd, task::JoinHandle};

use crate::{Error, kernel::KernelThread, metrics::ForwardedLabels, roster::Opened, tools::Tools};

/// How often the counters are read.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// Shortest interval between two reports of dropped packets for one pod.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(600);
/// Pause before covering devices is retried, and between two changes.
const PAUSE: Duration = Duration::from_millis(100);

/// A pod whose devices are covered.
#[derive(Clone, Debug)]
pub(crate) struct Covered {
    /// Kubernetes `metadata.uid`.
    pub uid: String,
    /// Its network namespace and listeners.
    pub opened: Arc<Opened>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Devices that its annotation names.
    pub rerouted: Vec<String>,
}

/// The task that covers new devices of a pod; aborted when dropped.
#[derive(Debug)]
pub(crate) struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Covered {
    /// Covers the current devices.
    ///
    /// # Errors
    /// Of redirection.
    pub(crate) async fn cover(&self, kernel: &KernelThread) -> Result<(), Error> {
        let pod = self.clone();
        kernel.call(move |kernel| kernel.cover(&pod.uid, &pod.opened.netns, &pod.ips, &pod.rerouted)).await
    }

    /// Covers devices as they appear.
    pub(crate) fn follow(self, watch: DeviceWatch, kernel: KernelThread) -> Following {
        Following(tokio::spawn(async move {
            let Err(error) = self.changes(watch, &kernel).await;
            tracing::warn!(pod.uid = self.uid, %error, "New devices of a pod are not covered");
        }))
    }

    async fn changes(&self, watch: DeviceWatch, kernel: &KernelThread) -> Result<Infallible, Error> {
        let watch = register(watch)?;
        loop {
            let mut ready = watch.readable().await.map_err(Error::io("watch the devices of a pod"))?;
            let is_changed = watch.get_ref().drain();
            ready.clear_ready();
            // Notifications that arrived meanwhile are drained too; later ones make the watch ready
            // again.
            if !(watch.get_ref().drain() || is_changed) {
                continue;
            }
            while let Err(error) = self.cover(kernel).await {
                if matches!(error, Error::Stopping) {
                    return Err(error);
                }
                // A device may disappear while it is being covered.
                tracing::debug!(pod.uid = self.uid, %error, "The devices of a pod cannot be covered");
                tokio::time::sleep(PAUSE).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[expect(deprecated, reason = "sound for a socket, whose descriptor never changes; the successor is unsafe")]
fn register(watch: DeviceWatch) -> Result<AsyncFd<DeviceWatch>, Error> {
    AsyncFd::new(watch).map_err(Error::io("watch the devices of a pod"))
}

/// Reads the counters as long as the agent runs.
pub(crate) async fn count(tools: Tools) -> Infallible {
    let mut counts = Counts::default();
    loop {
        match tools.kernel.call(|kernel| kernel.forwarded()).await {
            Ok(counted) => tell(&tools, counts.take(&counted, Instant::now())),
            Err(error) => tracing::debug!(%error, "Counters of forwarded packets cannot be read"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn tell(tools: &Tools, news: News) {
    let [out, into] = news.packets;
    for (direction, packets) in [("out", out), ("in", into)] {
        tools.metrics.forwarded_dropped.get_or_create(&ForwardedLabels { direction }).inc_by(packets);
    }
    for (cookie, dropped) in news.pods {
        let held = tools.roster.held();
        let Some(held) = held.iter().find(|held| held.opened.netns.cookie() == cookie) else { continue };
        let (pod, [out, into]) = (&held.pod, dropped);
        tracing::warn!(
            pod.uid,
            pod.namespace,
            pod.name,
            out,
            into,
            "Packets that a pod forwards are dropped"
        );
        tools.reporter.forwarded(&pod.uid, dropped);
    }
}

/// The last read and the last reported values, by the cookie of the namespace.
#[derive(Debug, Default)]
struct Counts(HashMap<u64, Count>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    read: [u64; 2],
    reported: [u64; 2],
    reported_at: Option<Instant>,
}

/// Dropped packets to report, out and in.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    /// Number of packets since the last report.
    packets: [u64; 2],
    /// Pods by the cookie of their namespace, with the total of their packets.
    pods: Vec<(u64, [u64; 2])>,
}

impl Counts {
    fn take(&mut self, counted: &[(u64, Direction, u64)], now: Instant) -> News {
        let mut news = News::default();
        self.0.retain(|cookie, _| counted.iter().any(|(other, _, _)| other == cookie));
        for (cookie, direction, packets) in counted {
            let count = self.0.entry(*cookie).or_default();
            let [out, into] = &mut count.read;
            let [new_out, new_into] = &mut news.packets;
            let (read, new) = match direction {
                Direction::Out => (out, new_out),
                Direction::In => (into, new_into),
            };
            *new += packets.saturating_sub(*read);
            *read = *packets;
        }
        for (cookie, count) in &mut self.0 {
            let is_time = count.reported_at.is_none_or(|last| now.duration_since(last) >= REPORT_INTERVAL);
            if count.read != count.reported && is_time {
                (count.reported, count.reported_at) = (count.read, Some(now));
                news.pods.push((*cookie, count.read));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_drop_of_a_pod_is_told_at_once_and_more_every_ten_minutes() {
        let mut counts = Counts::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let read = |out, into| [(7, Direction::Out, out), (7, Direction::In, into)];
        assert_eq!(counts.take(&read(0, 0), at(0)), News::default());
        let first = News { packets: [2, 0], pods: vec![(7, [2, 0])] };
        assert_eq!(counts.take(&read(2, 0), at(5)), first);
        assert_eq!(counts.take(&read(5, 1), at(10)), News { packets: [3, 1], pods: vec![] });
        assert_eq!(counts.take(&read(5, 1), at(604)), News::default());
        assert_eq!(counts.take(&read(5, 1), at(605)), News { packets: [0, 0], pods: vec![(7, [5, 1])] });
        assert_eq!(counts.take(&read(5, 1), at(500)), News::default(), "nothing new");
        assert_eq!(counts.take(&[], at(5005)), News::default());
        assert!(counts.0.is_empty(), "a pod that is gone is forgotten");
    }
}
