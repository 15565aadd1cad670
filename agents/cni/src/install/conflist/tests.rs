//! Golden files for both forms, restoring what earlier agents wrote, and the roles of
//! configurations.

use super::*;

const LIST: &str = include_str!("../../../testdata/10-bridge.conflist");
const SINGLE: &str = "{\n \"name\": \"net\", \"type\": \"ptp\", \"cniVersion\": \"0.4.0\"\n}\n";

fn entry() -> Entry {
    Entry {
        plugin: PLUGIN.into(),
        socket: "/run/ambit/cni.sock".into(),
        state_file: "/var/lib/ambit/enrolled.json".into(),
        system_namespace: "ambit-system".into(),
        embeds: None,
        replaces: None,
    }
}

fn list(text: &str) -> Named {
    Named { name: "10-bridge.conflist".into(), text: text.into() }
}

fn golden(name: &str, text: &str) {
    let path = format!("{}/testdata/{name}", env!("CARGO_MANIFEST_DIR"));
    #[expect(clippy::disallowed_methods, reason = "goldens are rewritten on request")]
    if std::env::var("UPDATE").is_ok() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{path}; UPDATE=1 rewrites it");
}

/// The result of an earlier agent for [`LIST`] and [`SINGLE`].
const EARLIER_LIST: &str = include_str!("../../../testdata/earlier/10-bridge.conflist");
const EARLIER_SINGLE: &str = include_str!("../../../testdata/earlier/05-net.conflist");

#[test]
fn our_list_is_the_text_of_another_with_our_plugin_as_its_last() {
    let text = embed(Form::List, &list(LIST), &entry()).unwrap();
    golden("own/of-list.conflist", &text);
    validate(Form::List, &text).unwrap();
    assert!(contains_ours(&text) && !contains_ours(LIST));
    assert_eq!(embedded(&text).as_deref(), Some("10-bridge.conflist"));
    assert_eq!(embedded(LIST), None);

    let single = Named { name: "05-net.conf".into(), text: SINGLE.into() };
    let text = embed(Form::Single, &single, &entry()).unwrap();
    golden("own/of-single.conflist", &text);
    validate(Form::List, &text).unwrap();
    assert_eq!(embedded(&text).as_deref(), Some("05-net.conf"));
}

#[test]
fn what_an_earlier_agent_wrote_comes_out_byte_for_byte() {
    assert_eq!(without(&list(EARLIER_LIST)).unwrap().unwrap(), list(LIST));
    assert_eq!(without(&list(LIST)).unwrap(), None);
    let made = Named { name: "05-net.conflist".into(), text: EARLIER_SINGLE.into() };
    let single = Named { name: "05-net.conf".into(), text: SINGLE.into() };
    assert_eq!(without(&made).unwrap().unwrap(), single);
}

#[test]
fn an_earlier_entry_comes_out_wherever_it_stands() {
    let old = r#"{"type":"ambit-cni","socket":"/old"}"#;
    for text in [
        format!(r#"{{"name":"n","plugins":[{{"type":"a"}}, {old}]}}"#),
        format!(r#"{{"name":"n","plugins":[{old}, {{"type":"a"}}]}}"#),
        format!(r#"{{"name":"n","plugins":[{old},{old}, {{"type":"a"}} , {old}]}}"#),
    ] {
        let bare = without(&list(&text)).unwrap().unwrap().text;
        validate(Form::List, &bare).unwrap();
        assert!(!bare.contains(PLUGIN), "{bare}");
    }
}

#[test]
fn a_list_that_others_extended_keeps_their_part() {
    let extended = EARLIER_LIST.replacen("\n  ],", ",\n    {\"type\":\"other\"}\n  ],", 1);
    let bare = without(&list(&extended)).unwrap().unwrap().text;
    validate(Form::List, &bare).unwrap();
    assert!(bare.contains("\"other\"") && !bare.contains(PLUGIN), "{bare}");

    let changed = EARLIER_SINGLE.replacen("[{", "[{\"type\":\"other\"},{", 1);
    let bare = without(&Named { name: "05-net.conflist".into(), text: changed }).unwrap().unwrap();
    assert_eq!(bare.name, "05-net.conflist");
    validate(Form::List, &bare.text).unwrap();
    assert!(bare.text.contains("\"other\"") && bare.text.contains("\"ptp\""), "{}", bare.text);
}

#[test]
fn a_configuration_that_calls_others_is_told_from_one_that_makes_a_network() {
    let own = ["01-ambit.conflist"];
    let cases = [
        (Form::Single, r#"{"name":"n","type":"ptp"}"#, Role::Network),
        (Form::List, LIST, Role::Network),
        // flannel and others delegate to a plugin, not to another configuration.
        (
            Form::List,
            r#"{"name":"n","plugins":[{"type":"flannel","delegate":{"hairpinMode":true}}]}"#,
            Role::Network,
        ),
        (Form::Single, r#"{"name":"m","type":"multus"}"#, Role::CallsOthers),
        (
            Form::Single,
            r#"{"name":"m","type":"x","delegates":[{"name":"n","type":"ptp"}]}"#,
            Role::CallsOthers,
        ),
        (
            Form::Single,
            r#"{"name":"m","type":"multus","delegates":[{"name":"n","plugins":[{"type":"ptp"},{"type":"ambit-cni"}]}]}"#,
            Role::CallsOurs,
        ),
        (
            Form::List,
            r#"{"name":"m","plugins":[{"type":"multus","clusterNetwork":"/host/etc/cni/net.d/01-ambit.conflist"}]}"#,
            Role::CallsOurs,
        ),
        (
            Form::List,
            r#"{"name":"m","plugins":[{"type":"multus","clusterNetwork":"/etc/cni/net.d/10-calico.conflist"}]}"#,
            Role::CallsOthers,
        ),
    ];
    for (form, text, want) in cases {
        assert_eq!(role(form, text, &own), want, "{text}");
    }
}

#[test]
fn garbage_is_refused_with_its_reason() {
    let cases = [
        (Form::List, "", "not JSON"),
        (Form::List, "   \n", "not JSON"),
        (Form::List, "{\"name\": \"n\", \"plugins\": [", "not JSON"),
        (Form::List, "[]", "no name"),
        (Form::List, "{\"name\":\"n\"}", "no list of plugins"),
        (Form::List, "{\"name\":\"n\",\"plugins\":{}}", "no list of plugins"),
        (Form::List, "{\"name\":\"n\",\"plugins\":[]}", "is empty"),
        (Form::List, "{\"name\":\"n\",\"plugins\":[{}]}", "no type"),
        (Form::List, "{\"plugins\":[{\"type\":\"a\"}]}", "no name"),
        (Form::Single, "{\"name\":\"n\"}", "no type"),
        (Form::Single, "null", "no name"),
    ];
    for (form, text, reason) in cases {
        let error = embed(form, &list(text), &entry()).unwrap_err().to_string();
        assert!(error.contains(reason), "{text:?}: {error}");
    }
}

#[test]
fn only_files_that_a_runtime_reads_count() {
    assert_eq!(Form::of("10-a.conflist"), Some(Form::List));
    assert_eq!(Form::of("10-a.conf"), Some(Form::Single));
    assert_eq!(Form::of("10-a.json"), Some(Form::Single));
    for name in ["README", "10-a.conflist.bak", ".10-a.conflist", "x.tmp"] {
        assert_eq!(Form::of(name), None, "{name}");
    }
}
