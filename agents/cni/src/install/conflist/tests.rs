//! Goldens for both forms, the way back byte for byte, and what must be left alone.

use super::*;

const LIST: &str = include_str!("../../../testdata/10-bridge.conflist");
const SINGLE: &str = "{\n \"name\": \"net\", \"type\": \"ptp\", \"cniVersion\": \"0.4.0\"\n}\n";

fn entry() -> Entry {
    Entry {
        plugin: PLUGIN.into(),
        socket: "/run/ambit/cni.sock".into(),
        state_file: "/var/lib/ambit/enrolled.json".into(),
        system_namespace: "ambit-system".into(),
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

#[test]
fn a_list_gets_our_plugin_as_its_last_and_nothing_else_changes() {
    let added = with(Form::List, &list(LIST), &entry()).unwrap().unwrap();
    golden("10-bridge.conflist.added", &added.text);
    validate(Form::List, &added.text).unwrap();
    assert_eq!(with(Form::List, &added, &entry()).unwrap(), None, "twice is once");
    assert!(contains_ours(&added.text) && !contains_ours(LIST));
    assert_eq!(without(&added).unwrap().unwrap(), list(LIST));
    assert_eq!(without(&list(LIST)).unwrap(), None);
}

#[test]
fn a_single_configuration_becomes_a_list_and_comes_back_as_it_was() {
    let single = Named { name: "05-net.conf".into(), text: SINGLE.into() };
    let added = with(Form::Single, &single, &entry()).unwrap().unwrap();
    assert_eq!(added.name, "05-net.conflist");
    golden("05-net.conflist.added", &added.text);
    validate(Form::List, &added.text).unwrap();
    assert_eq!(with(Form::List, &added, &entry()).unwrap(), None);
    assert_eq!(without(&added).unwrap().unwrap(), single);
}

#[test]
fn an_older_entry_is_replaced_wherever_it_stands() {
    let old = r#"{"type":"ambit-cni","socket":"/old"}"#;
    for text in [
        format!(r#"{{"name":"n","plugins":[{{"type":"a"}}, {old}]}}"#),
        format!(r#"{{"name":"n","plugins":[{old}, {{"type":"a"}}]}}"#),
        format!(r#"{{"name":"n","plugins":[{old},{old}, {{"type":"a"}} , {old}]}}"#),
    ] {
        let added = with(Form::List, &list(&text), &entry()).unwrap().unwrap();
        validate(Form::List, &added.text).unwrap();
        assert_eq!(added.text.matches(PLUGIN).count(), 1, "{}", added.text);
        assert!(added.text.contains("/run/ambit/cni.sock") && !added.text.contains("/old"));
        let bare = without(&added).unwrap().unwrap().text;
        validate(Form::List, &bare).unwrap();
        assert!(!bare.contains(PLUGIN), "{bare}");
    }
}

#[test]
fn a_list_that_others_extended_keeps_their_part() {
    let added = with(Form::List, &list(LIST), &entry()).unwrap().unwrap();
    let extended = added.text.replacen("\n  ],", ",\n    {\"type\":\"other\"}\n  ],", 1);
    let bare = without(&list(&extended)).unwrap().unwrap().text;
    validate(Form::List, &bare).unwrap();
    assert!(bare.contains("\"other\"") && !bare.contains(PLUGIN), "{bare}");

    let single = Named { name: "05-net.conf".into(), text: SINGLE.into() };
    let made = with(Form::Single, &single, &entry()).unwrap().unwrap();
    let changed = made.text.replacen("[{", "[{\"type\":\"other\"},{", 1);
    let bare = without(&Named { text: changed, ..made }).unwrap().unwrap();
    assert_eq!(bare.name, "05-net.conflist");
    validate(Form::List, &bare.text).unwrap();
    assert!(bare.text.contains("\"other\"") && bare.text.contains("\"ptp\""), "{}", bare.text);
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
        let error = with(form, &list(text), &entry()).unwrap_err().to_string();
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
