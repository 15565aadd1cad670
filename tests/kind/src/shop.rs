//! The sample application of demo and tests: client → front → cart → redis, on two nodes.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{
    ask::{Ask, Reply},
    kubectl,
    load::Load,
    mesh, wait, waypoint,
};

/// Requests per second of the client.
const RATE: &str = "20";

/// One shop in a namespace of its own.
#[derive(Clone, Debug)]
pub struct Shop {
    /// Namespace of the shop.
    pub namespace: &'static str,
    /// Node of `front` and `redis`.
    pub node_a: String,
    /// Node of `cart` and the client.
    pub node_b: String,
}

impl Shop {
    /// Starts it and waits until requests succeed.
    ///
    /// # Errors
    /// When its pods do not become ready, or requests fail.
    pub fn start(namespace: &'static str) -> Result<Self> {
        let nodes = mesh::nodes()?;
        let [node_a, node_b, ..] = nodes.as_slice() else { bail!("two nodes are needed") };
        let shop = Self { namespace, node_a: node_a.clone(), node_b: node_b.clone() };
        kubectl::apply(&shop.manifest())?;
        for name in ["redis", "cart", "front", "client"] {
            let target = format!("deploy/{name}");
            kubectl::run(&["rollout", "status", "-n", namespace, &target, "--timeout=120s"])?;
        }
        wait::until("the shop to answer", Duration::from_secs(60), || shop.get())?;
        shop.load().settled(Duration::from_secs(60))?;
        Ok(shop)
    }

    /// A word that is in every request of this shop and of no other, to be searched for in packets.
    pub fn marker(&self) -> String {
        format!("MARKER-{}-c0ffee", self.namespace)
    }

    /// The load of its client.
    pub fn load(&self) -> Load {
        Load { namespace: self.namespace, deployment: "client" }
    }

    /// Starts it, enrolls it and opts it in to a waypoint.
    ///
    /// # Errors
    /// When one of these steps takes too long.
    pub fn start_with_waypoint(namespace: &'static str) -> Result<Self> {
        mesh::require_ready()?;
        let shop = Self::start(namespace)?;
        mesh::label(namespace, "istio.io/dataplane-mode", "ambient")?;
        mesh::until_enrolled(namespace, mesh::Enrolled::All)?;
        waypoint::opt_in(namespace)?;
        Ok(shop)
    }

    /// Starts a second version of cart, `cart-v2`, which only a route leads to.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_v2(&self) -> Result<()> {
        kubectl::apply(&self.filled(include_str!("../manifests/cart-v2.yaml")))?;
        let status = ["rollout", "status", "-n", self.namespace, "deploy/cart-v2", "--timeout=120s"];
        kubectl::run(&status).map(|_| ())
    }

    /// Sends requests from the client's pod, and returns their results.
    ///
    /// # Errors
    /// When the pod cannot be reached.
    pub fn ask(&self, question: &Ask<'_>) -> Result<Vec<Reply>> {
        question.from(self.namespace, "deploy/client")
    }

    /// Sends one request from the client's pod on a new connection; returns the body of a
    /// successful response.
    ///
    /// # Errors
    /// What the request printed.
    pub fn get(&self) -> Result<Option<String>> {
        let url = format!("http://front:8080/?marker={}", self.marker());
        let (ok, text) =
            kubectl::exec(self.namespace, "deploy/client", &["/bin/shop", "get", "-t", "2", &url])?;
        if ok { Ok(Some(text)) } else { bail!("{}", text.trim()) }
    }

    /// Removes it.
    ///
    /// # Errors
    /// When the namespace cannot be deleted.
    pub fn stop(&self) -> Result<()> {
        kubectl::run(&["delete", "namespace", self.namespace, "--ignore-not-found", "--timeout=120s"])
            .map(|_| ())
    }

    /// Uid and restart count of every pod, for checking later that none was restarted or replaced.
    ///
    /// # Errors
    /// When pods cannot be listed.
    pub fn lives(&self) -> Result<Vec<String>> {
        let pods = mesh::pods(self.namespace)?;
        let life = |pod: &serde_json::Value| {
            let restarts =
                pod.pointer("/status/containerStatuses/0/restartCount").cloned().unwrap_or_default();
            format!(
                "{} {} {restarts}",
                kubectl::text(pod, "/metadata/name"),
                kubectl::text(pod, "/metadata/uid")
            )
        };
        let mut lives: Vec<String> = pods.iter().map(life).collect();
        lives.sort();
        Ok(lives)
    }

    fn manifest(&self) -> String {
        self.filled(include_str!("../manifests/shop.yaml"))
    }

    fn filled(&self, manifest: &str) -> String {
        manifest
            .replace("@NS@", self.namespace)
            .replace("@A@", &self.node_a)
            .replace("@B@", &self.node_b)
            .replace("@MARKER@", &self.marker())
            .replace("@RATE@", RATE)
    }
}
