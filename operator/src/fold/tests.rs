use ambit_api::mesh::FailurePolicy;
use ambit_index::{Index, Object, Settings};
use ambit_model::NamespacedName;
use ambit_runtime::Readiness;
use serde_json::{Value, from_value, json};
use tokio::{task::JoinHandle, time::timeout};

use super::*;
use crate::testing;

/// Longer than any operation; time is paused here.
const TEST_TIME_MAX: Duration = Duration::from_secs(60);

struct World {
    index: SharedIndex,
    feeds: Arc<Feeds>,
    seen: mpsc::Sender<Seen>,
    wake: watch::Receiver<()>,
    jwks: watch::Receiver<Wanted>,
    readiness: Readiness,
    _mesh: watch::Receiver<MeshState>,
    task: JoinHandle<()>,
}

impl World {
    fn start() -> Self {
        let (index, feeds, wake) =
            (SharedIndex::new(Index::new(Settings::default())), Arc::<Feeds>::default(), Wake::default());
        let (seen, received) = mpsc::channel(64);
        let (mesh, meshes) = watch::channel(MeshState::Unknown);
        let (jwks, wanted) = watch::channel(Wanted::new());
        let (readiness, woken) = (Readiness::default(), wake.subscribe());
        let fold =
            Fold { index: index.clone(), feeds: feeds.clone(), mesh, wake, status: Arc::default(), jwks };
        let task = tokio::spawn(fold.run(received, readiness.block("watches")));
        Self { index, feeds, seen, wake: woken, jwks: wanted, readiness, _mesh: meshes, task }
    }

    async fn send(&self, seen: impl IntoIterator<Item = Seen>) {
        for seen in seen {
            self.seen.send(seen).await.unwrap();
        }
    }

    /// The initial lists of all watches, and of Gateways without settings.
    async fn list(&self, objects: impl IntoIterator<Item = Object>) {
        self.list_only(objects).await;
        self.send([Seen::FailurePoliciesSaid]).await;
    }

    async fn list_only(&self, objects: impl IntoIterator<Item = Object>) {
        let objects: Vec<Object> = objects.into_iter().collect();
        let names =
            |kind| objects.iter().map(Object::key).filter(move |key| key.kind == kind).map(|key| key.name);
        let lists: Vec<Seen> =
            KINDS.into_iter().map(|kind| Seen::Listed(kind, names(kind).collect())).collect();
        self.send(objects.into_iter().map(Seen::Apply).collect::<Vec<_>>()).await;
        self.send(lists).await;
        self.send([Seen::Mesh(Some(Arc::new(from_value(testing::mesh()).unwrap())))]).await;
    }

    /// Waits until a condition holds; returns how long it took.
    async fn until(&mut self, holds: impl Fn(&Index) -> bool) -> Duration {
        let start = Instant::now();
        while !holds(&self.index.read()) {
            timeout(TEST_TIME_MAX, self.wake.changed()).await.expect("it never holds").unwrap();
        }
        start.elapsed()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn pod(name: &str, labels: Value, annotations: Value) -> Object {
    let ip = if name == "cart" { "10.0.0.1" } else { "10.0.0.2" };
    Object::Pod(Box::new(
        from_value(json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": labels, "annotations": annotations,
                         "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
                                              "name": format!("{name}-5d4"), "uid": "rs"}]},
            "spec": {"nodeName": "n1", "serviceAccountName": name, "containers": []},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                       "conditions": [{"type": "Ready", "status": "True"}]}
        }))
        .unwrap(),
    ))
}

fn service(name: &str, ip: &str, selector: Value, port: u16) -> Object {
    Object::Service(Box::new(
        from_value(json!({
            "metadata": {"name": name, "namespace": "shop", "labels": selector},
            "spec": {"clusterIP": ip, "clusterIPs": [ip], "selector": selector,
                     "ports": [{"port": port, "targetPort": 8080, "protocol": "TCP"}]}
        }))
        .unwrap(),
    ))
}

fn namespace(labels: Value) -> Object {
    Object::Namespace(Box::new(from_value(json!({"name": "shop", "labels": labels})).unwrap()))
}

/// An enrolled shop with a ready waypoint.
fn shop() -> Vec<Object> {
    let managed = json!({
        "gateway.networking.k8s.io/gateway-name": "waypoint",
        "gateway.istio.io/managed": "ambit.dev-mesh-controller", "istio.io/dataplane-mode": "none",
        "pod-template-hash": "5d4"
    });
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "waypoint", "namespace": "shop"},
        "spec": {"gatewayClassName": "ambit-waypoint",
                 "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
        "status": {"addresses": [{"type": "IPAddress", "value": "10.96.0.2"}]}
    });
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": {"name": "ambit-waypoint"}, "spec": {"controllerName": "ambit.dev/mesh-controller"}
    });
    let own = json!({
        "gateway.networking.k8s.io/gateway-name": "waypoint", "gateway.istio.io/managed": "ambit.dev-mesh-controller"
    });
    vec![
        Object::Node(Box::new(from_value(json!({"name": "n1"})).unwrap())),
        namespace(json!({"istio.io/dataplane-mode": "ambient"})),
        pod("cart", json!({"app": "cart"}), json!({"ambient.istio.io/redirection": "enabled"})),
        pod("waypoint", managed, json!({})),
        service("cart", "10.96.0.1", json!({"app": "cart"}), 80),
        service("waypoint", "10.96.0.2", own, 15008),
        Object::GatewayClass(Box::new(from_value(class).unwrap())),
        Object::Gateway(Box::new(from_value(gateway).unwrap())),
    ]
}

fn waypoint() -> NamespacedName {
    NamespacedName::new("shop", "waypoint")
}

fn is_announced(index: &Index) -> bool {
    let key = NamespacedName::new("shop", "cart.shop.svc.cluster.local");
    index.service(&key).is_some_and(|service| service.waypoint.is_some())
}

fn is_closed(index: &Index) -> bool {
    index.policy(&NamespacedName::new("shop", "ambit-waypoint-cart")).is_some()
}

fn is_known(index: &Index) -> bool {
    index.bound_services_of(&waypoint()).count() == 1
}

#[tokio::test(start_paused = true)]
async fn opting_in_and_out_takes_a_pause_between_each_step() {
    let mut world = World::start();
    world.list(shop()).await;
    world.until(|index| index.waypoint(&waypoint()).is_some()).await;
    assert!(world.readiness.pending().is_empty());
    let (feed, closed) = (world.feeds.bound(&waypoint()), world.feeds.authorization.len());
    assert!(feed.is_synced() && feed.is_empty());

    let wish = json!({"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint"});
    world.send([Seen::Apply(namespace(wish))]).await;
    world.until(is_known).await;
    assert!(!is_announced(&world.index.read()), "the waypoint hears of the service first");
    assert_eq!(world.until(is_announced).await, SETTLE);
    assert!(!is_closed(&world.index.read()));
    assert_eq!((world.until(is_closed).await, feed.len()), (SETTLE, 1));
    assert_eq!(world.feeds.authorization.len(), closed + 1);

    world.send([Seen::Apply(namespace(json!({"istio.io/dataplane-mode": "ambient"})))]).await;
    world.until(|index| !is_closed(index)).await;
    assert!(is_announced(&world.index.read()), "others are let through first");
    assert_eq!(world.until(|index| !is_announced(index)).await, SETTLE);
    assert_eq!((world.until(|index| !is_known(index)).await, feed.len()), (SETTLE, 0));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_starts_publishes_what_held_before_at_once() {
    let mut world = World::start();
    let wish = json!({"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint"});
    world.list(shop().into_iter().chain([namespace(wish)])).await;
    assert_eq!(world.until(is_closed).await, Duration::ZERO);
    assert!(is_announced(&world.index.read()));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_starts_waits_for_what_gateways_say_of_failures_themselves() {
    let wish =
        || namespace(json!({"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint"}));
    let mut world = World::start();
    world.list_only(shop().into_iter().chain([wish()])).await;
    world.send([Seen::FailurePolicy(waypoint(), Some(FailurePolicy::Open))]).await;
    sleep_until(Instant::now() + ANSWERS_TIME_MAX / 2).await;
    assert!(!world.feeds.address.is_synced());
    world.send([Seen::FailurePoliciesSaid]).await;
    world.wake.changed().await.unwrap();
    assert!(world.feeds.address.is_synced() && !is_closed(&world.index.read()), "it was never closed");

    let mut silent = World::start();
    silent.list_only(shop().into_iter().chain([wish()])).await;
    let start = Instant::now();
    silent.wake.changed().await.unwrap();
    assert_eq!((start.elapsed(), is_closed(&silent.index.read())), (ANSWERS_TIME_MAX, true));

    let mut nobody = World::start();
    nobody.list_only([]).await;
    let start = Instant::now();
    nobody.wake.changed().await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO, "without a waypoint there is nothing to wait for");
}

#[tokio::test(start_paused = true)]
async fn a_waypoint_that_goes_takes_its_feed_with_it() {
    let mut world = World::start();
    world.list(shop()).await;
    world.until(|index| index.waypoint(&waypoint()).is_some()).await;
    let feed = world.feeds.bound(&waypoint());
    let key = ambit_index::Key { kind: Kind::Gateway, name: waypoint() };
    world.send([Seen::Delete(key)]).await;
    world.until(|index| index.waypoint(&waypoint()).is_none()).await;
    assert!(feed.is_synced() && !world.feeds.bound(&waypoint()).is_synced());
}

fn policy() -> Object {
    Object::RequestAuthentication(Box::new(
        from_value(json!({
            "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
            "metadata": {"name": "jwt", "namespace": "shop"},
            "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "cart"}],
                     "jwtRules": [{"issuer": "i", "jwksUri": "http://keys.shop/jwks"}]}
        }))
        .unwrap(),
    ))
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_before_key_sets_answered_or_had_their_time() {
    let mut world = World::start();
    world.list(shop().into_iter().chain([policy()])).await;
    let address: Arc<str> = "http://keys.shop/jwks".into();
    world.jwks.wait_for(|wanted| wanted.contains_key(&address)).await.unwrap();
    assert!(!world.feeds.address.is_synced());
    world.send([Seen::KeySet(address, Some(Err("no answer".into())))]).await;
    world.wake.changed().await.unwrap();
    assert!(world.feeds.address.is_synced());

    let mut silent = World::start();
    silent.list(shop().into_iter().chain([policy()])).await;
    let start = Instant::now();
    silent.wake.changed().await.unwrap();
    assert!(silent.feeds.address.is_synced());
    assert_eq!(start.elapsed(), ANSWERS_TIME_MAX);
}

#[tokio::test(start_paused = true)]
async fn steps_that_come_together_settle_together_and_a_stream_of_them_holds_nobody_up() {
    let (mut steps, start) = (Steps::default(), Instant::now());
    let at = |millis| start + Duration::from_millis(millis);
    steps.add(1, start);
    steps.add(2, at(50));
    steps.add(3, at(120));
    steps.add(3, at(900));
    assert_eq!(steps.due(), Some(at(50) + SETTLE));
    assert_eq!(steps.take(at(50)), None);
    assert_eq!(steps.take(at(50) + SETTLE), Some(2));
    assert_eq!((steps.take(at(120) + SETTLE), steps.due()), (Some(3), None));
}
