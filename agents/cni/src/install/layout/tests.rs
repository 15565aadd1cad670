//! A table of directories: what is embedded, under which name, and the error when nothing can be.

use super::*;
use crate::install::conflist::{PLUGIN, embed};

const NET: &str = r#"{"name":"n","plugins":[{"type":"ptp"}]}"#;
const OTHER: &str = r#"{"name":"o","plugins":[{"type":"bridge"}]}"#;
const MULTUS: &str = r#"{"name":"m","type":"multus","delegates":[{"name":"n","plugins":[{"type":"ptp"}]}]}"#;
const MULTUS_OURS: &str =
    r#"{"name":"m","type":"multus","clusterNetwork":"/etc/cni/net.d/01-ambit.conflist"}"#;

/// The result of an earlier agent.
const MULTUS_EARLIER: &str = r#"{"name":"m","plugins":[
    {"name":"m","type":"multus","delegates":[{"name":"n","plugins":[{"type":"ptp"}]}]},
    {"type":"ambit-cni","socket":"/s","stateFile":"/f","systemNamespace":"ambit-system"}]}"#;

fn entry() -> Entry {
    Entry {
        plugin: PLUGIN.into(),
        socket: "/s".into(),
        state_file: "/f".into(),
        system_namespace: "ambit-system".into(),
        embeds: None,
        replaces: None,
    }
}

fn found(files: &[(&str, &str)]) -> Vec<Found> {
    let mut found: Vec<_> =
        files.iter().map(|(name, text)| Found { name: (*name).into(), text: Ok((*text).into()) }).collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

fn own(of: &str, text: &str) -> String {
    embed(Form::of(of).unwrap(), &Named { name: of.into(), text: text.into() }, &entry()).unwrap()
}

/// `own name of embedded name`, then a configuration that bypasses us; or the refusal.
fn shown(files: &[(&str, &str)]) -> String {
    match layout(&found(files), &entry()) {
        Ok(layout) => {
            let embedded = conflist::embedded(&layout.own.text).unwrap();
            let passed = layout.passed_by.map(|name| format!(", passed by {name}")).unwrap_or_default();
            format!("{} of {embedded}{passed}", layout.own.name)
        }
        Err(Refusal::Missing) => "missing".into(),
        Err(Refusal::Invalid(name, _)) => format!("invalid {name}"),
        Err(Refusal::Crowded(name)) => format!("crowded {name}"),
    }
}

#[test]
fn the_table_of_directories() {
    let of_net = own("10-net.conflist", NET);
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[], "missing"),
        (&[("README", "x")], "missing"),
        (&[("10-net.conflist", NET)], "01-ambit.conflist of 10-net.conflist"),
        (&[("10-net.conflist", NET), ("05-o.conflist", OTHER)], "01-ambit.conflist of 05-o.conflist"),
        // A name that sorts before our usual one.
        (&[("00-net.conflist", NET)], "00-ambit.conflist of 00-net.conflist"),
        (&[("00-a.conf", r#"{"name":"n","type":"ptp"}"#)], "00-00-ambit.conflist of 00-a.conf"),
        (&[("00-00-a.conflist", NET)], "crowded 00-00-a.conflist"),
        // One that delegates stays first; a warning when it does not delegate to ours.
        (
            &[("00-multus.conf", MULTUS), ("10-net.conflist", NET)],
            "01-ambit.conflist of 10-net.conflist, passed by 00-multus.conf",
        ),
        (
            &[("00-multus.conf", MULTUS_OURS), ("10-net.conflist", NET)],
            "01-ambit.conflist of 10-net.conflist",
        ),
        (&[("00-multus.conf", MULTUS)], "missing"),
        (
            &[("00-multus.conflist", MULTUS_EARLIER), ("10-net.conflist", NET)],
            "01-ambit.conflist of 10-net.conflist",
        ),
        (&[("70-multus.conf", MULTUS), ("10-net.conflist", NET)], "01-ambit.conflist of 10-net.conflist"),
        (&[("05-multus.conf", MULTUS), ("10-net.conflist", NET)], "crowded 10-net.conflist"),
        // A file that is not a configuration.
        (&[("10-net.conflist", "")], "invalid 10-net.conflist"),
        (&[("05-broken.conflist", "{"), ("10-net.conflist", NET)], "01-ambit.conflist of 10-net.conflist"),
        // The embedded one is being written: no other replaces it meanwhile.
        (
            &[("01-ambit.conflist", &of_net), ("10-net.conflist", ""), ("20-o.conflist", OTHER)],
            "invalid 10-net.conflist",
        ),
        // It was removed, or replaced under another name.
        (&[("01-ambit.conflist", &of_net)], "missing"),
        (&[("01-ambit.conflist", &of_net), ("20-o.conflist", OTHER)], "01-ambit.conflist of 20-o.conflist"),
        (
            &[("01-ambit.conflist", &of_net), ("10-net.conflist", NET), ("05-o.conflist", "{")],
            "01-ambit.conflist of 10-net.conflist",
        ),
        // Ours is broken and written again.
        (&[("01-ambit.conflist", ""), ("10-net.conflist", NET)], "01-ambit.conflist of 10-net.conflist"),
    ];
    for (files, want) in cases {
        assert_eq!(shown(files), *want, "{files:?}");
    }
}

#[test]
fn what_an_earlier_agent_wrote_into_another_list_is_not_embedded() {
    let earlier = include_str!("../../../testdata/earlier/10-bridge.conflist");
    let layout = layout(&found(&[("10-bridge.conflist", earlier)]), &entry()).unwrap();
    assert_eq!(layout.own.text.matches(PLUGIN).count(), 1, "{}", layout.own.text);
    let single = include_str!("../../../testdata/earlier/05-net.conflist");
    assert_eq!(shown(&[("05-net.conflist", single)]), "01-ambit.conflist of 05-net.conf");
}

#[test]
fn following_a_layout_changes_nothing_more() {
    for files in [vec![("10-net.conflist", NET)], vec![("00-net.conflist", NET)]] {
        let first = layout(&found(&files), &entry()).unwrap();
        let with_own = [files.clone(), vec![(first.own.name.as_str(), first.own.text.as_str())]].concat();
        assert_eq!(layout(&found(&with_own), &entry()).unwrap(), first);
    }
}
