//! Does a node that registers accept no pods before its agent serves, and is its taint removed
//! then: after a reboot, and when the agent kept running?

use std::{
    io::{BufRead as _, BufReader},
    time::Duration,
};

use ambit_kind_tests::{Result, kubectl, mesh, mesh::Enrolled, node, wait};
use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

const TAINT: &str = "ambit.dev/agent-not-ready";
const OBJECTS: &str = include_str!("../../../config/startup-taint.yaml");
const NAMESPACE: &str = "startup-taint-test";
const LIMIT: Duration = Duration::from_secs(120);

/// A Node for a dry run: the API server returns it as it would be created.
const NOBODY: &str = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "startup-taint-test"}}"#;

/// The process first prints the rules of its own network namespace.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: first, namespace: startup-taint-test}
spec:
  nodeSelector: {kubernetes.io/hostname: @NODE@}
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: 'localhost/ambit-box:dev', imagePullPolicy: IfNotPresent, command: [/bin/sh, -c, 'ip rule; sleep 1000000']}]
";

fn is_tainted(node: &Value) -> bool {
    let taints = node.pointer("/spec/taints").and_then(Value::as_array);
    taints.into_iter().flatten().any(|taint| kubectl::text(taint, "/key") == TAINT)
}

/// Makes a node register again with `restart`, and waits until its new object has lost its initial
/// taint.
fn register(name: &str, restart: impl FnOnce() -> Result<()>) -> Result<()> {
    let get = || kubectl::json(&["get", "node", name]);
    let before = kubectl::text(&get()?, "/metadata/uid").to_owned();
    // Polling could miss the taint, so every state of the object is recorded, from before it is deleted.
    let states = r#"jsonpath={.metadata.uid} {.spec.taints[*].key}{"\n"}"#;
    let limit = format!("--request-timeout={}s", LIMIT.as_secs());
    let mut watch = kubectl::start(&["get", "node", name, "--watch", "-o", states, &limit])?;
    let lines = BufReader::new(watch.stdout.take().context("no output")?).lines();
    let seen = register_again(name, &before, lines.map_while(Result::ok), restart);
    watch.kill()?;
    watch.wait()?;
    let seen = seen?;
    ensure!(seen.contains(TAINT), "it was not tainted: {seen}");
    wait::until("the taint to be lifted", LIMIT, || Ok((!is_tainted(&get()?)).then_some(())))?;
    Ok(())
}

/// Deletes the node and restarts it; returns the first state of its new object.
fn register_again(
    name: &str,
    before: &str,
    mut states: impl Iterator<Item = String>,
    restart: impl FnOnce() -> Result<()>,
) -> Result<String> {
    states.next().context("the node cannot be watched")?;
    kubectl::run(&["delete", "node", name, "--timeout=60s"])?;
    restart()?;
    states.find(|state| !state.starts_with(before)).context("it has not registered")
}

/// Kills only the kubelet; its supervisor restarts it.
fn restart_kubelet(name: &str) -> Result<()> {
    node::shell(name, "kill $(pidof kubelet)").map(drop)
}

fn pod() -> Result<Value> {
    kubectl::json(&["get", "pod", "-n", NAMESPACE, "first"])
}

/// A pod that waits for the node starts once the agent serves, enrolled before its first process
/// runs.
fn after_a_reboot(name: &str) -> Result<()> {
    register(name, || {
        kubectl::apply(&POD.replace("@NODE@", name))?;
        node::restart(name)
    })?;
    wait::until("the pod to run", LIMIT, || {
        let pod = pod()?;
        let phase = kubectl::text(&pod, "/status/phase");
        if phase == "Running" { Ok(Some(())) } else { bail!("it is {phase}") }
    })?;
    mesh::until_enrolled(NAMESPACE, Enrolled::All)?;
    let rules = kubectl::run(&["logs", "-n", NAMESPACE, "first"])?;
    ensure!(rules.contains("0x111"), "its first process ran outside the mesh: {rules}");
    Ok(())
}

/// The agent has nothing new to report, but the taint is removed all the same.
fn while_the_agent_runs_on(name: &str) -> Result<()> {
    let agent = mesh::part_on("ambit-node-agent", name)?;
    register(name, || restart_kubelet(name))?;
    let now = mesh::part_on("ambit-node-agent", name)?;
    ensure!(agent == now, "the agent is another pod: {agent}, {now}");
    Ok(())
}

#[test]
#[ignore = "needs the test cluster with the mesh: make test"]
fn a_node_that_registers_takes_no_pods_before_its_agent_serves() {
    mesh::require_ready().unwrap();
    mesh::namespace(NAMESPACE, "ambient").unwrap();
    let name = mesh::nodes().unwrap().remove(0);
    kubectl::apply(OBJECTS).unwrap();
    let done = wait::until("the policy to taint who registers", LIMIT, || {
        let made = kubectl::feed(&["create", "--dry-run=server", "-o", "json", "-f", "-"], NOBODY)?;
        Ok(is_tainted(&serde_json::from_str(&made).context("no JSON")?).then_some(()))
    })
    .and_then(|_| after_a_reboot(&name))
    .and_then(|()| while_the_agent_runs_on(&name));
    kubectl::delete(OBJECTS).unwrap();
    done.unwrap();
    mesh::until_condition("Ready", "True").unwrap();
    kubectl::run(&["rollout", "status", "-n", "kube-system", "deploy/coredns", "--timeout=120s"]).unwrap();
    kubectl::run(&["delete", "namespace", NAMESPACE, "--timeout=120s"]).unwrap();
}
