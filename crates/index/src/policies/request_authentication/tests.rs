use super::*;
use crate::policies::roots;

const KEYS: &str = r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}"#;

fn attached(rules: serde_json::Value) -> Attachment<Providers> {
    let spec: RequestAuthenticationSpec = serde_json::from_value(
        serde_json::json!({"targetRefs": [{"kind": "Service", "name": "a"}], "jwtRules": rules}),
    )
    .unwrap();
    attachment(&NamespacedName::new("shop", "p"), &spec, &roots()).unwrap()
}

fn bound(_: &Target) -> Reach {
    Reach::Bound(NamespacedName::new("shop", "waypoint"))
}

#[test]
fn every_field_of_a_rule_reaches_the_waypoint() {
    let found = attached(serde_json::json!([{
        "issuer": "https://issuer.example", "audiences": ["a", "b"], "jwks": KEYS,
        "fromHeaders": [{"name": "X-Token", "prefix": "Token "}], "fromParams": ["t"], "fromCookies": ["c"],
        "spaceDelimitedClaims": ["roles"], "timeout": "5s", "forwardOriginalToken": true, "outputPayloadToHeader": "X-Payload",
        "outputClaimToHeaders": [{"header": "X-Group", "claim": "nested.group"}]
    }]));
    let providers = found.content.as_ref().unwrap().compile(&KeySets::new());
    let expected = JwtProvider {
        issuer: "https://issuer.example".into(),
        audiences: vec!["a".into(), "b".into()],
        jwks: Some(KEYS.into()),
        locations: vec![
            TokenLocation::Header { name: "x-token".into(), prefix: "Token ".into() },
            TokenLocation::Query("t".into()),
            TokenLocation::Cookie("c".into()),
        ],
        forward: true,
        payload_header: Some("x-payload".into()),
        claim_headers: vec![ClaimHeader { header: "x-group".into(), claim: "nested.group".into() }],
        space_delimited: vec!["roles".into()],
    };
    assert_eq!(providers, [expected]);
    assert_eq!(found.judge_with_keys(&KeySets::new(), bound).reason, reason::ACCEPTED);
}

#[test]
fn keys_that_are_fetched_are_asked_for_and_put_in() {
    let uri: Arc<str> = "http://issuer.example/keys".into();
    let found =
        attached(serde_json::json!([{"issuer": "i", "jwksUri": &*uri}, {"issuer": "j", "jwks": KEYS}]));
    let providers = found.content.as_ref().unwrap();
    assert_eq!(providers.uris().collect::<Vec<_>>(), [(&uri, TIMEOUT)]);
    let table = [
        (None, None, "has not been fetched yet"),
        (Some(Err("connection refused".to_owned())), None, "http://issuer.example/keys: connection refused"),
        (Some(key_set(KEYS)), Some(KEYS), "enforced"),
    ];
    for (fetched, keys, says) in table {
        let fetched: KeySets = fetched.into_iter().map(|result| (uri.clone(), result)).collect();
        let compiled = providers.compile(&fetched);
        assert_eq!(compiled[0].jwks.as_deref(), keys, "{says}");
        assert_eq!(compiled[1].jwks.as_deref(), Some(KEYS), "one issuer does not wait for another");
        let judgement = found.judge_with_keys(&fetched, bound);
        assert_eq!(judgement.holds == Holds::True, keys.is_some(), "{judgement:?}");
        assert!(judgement.message.contains(says), "{judgement:?}");
    }
}

#[test]
fn keys_that_cannot_be_read_vouch_for_nobody_and_the_status_says_so() {
    let uri = "https://issuer.example/keys";
    let table = [
        (serde_json::json!({"issuer": "i"}), "neither jwks nor jwksUri"),
        (serde_json::json!({"issuer": "i", "jwks": KEYS, "jwksUri": uri}), "both jwks and jwksUri"),
        (serde_json::json!({"issuer": "i", "jwks": "{"}), "not a JWK set"),
        (serde_json::json!({"issuer": "i", "jwks": "[]"}), "not a JWK set"),
        (serde_json::json!({"issuer": "i", "jwks": "{\"keys\": {}}"}), "not a JWK set"),
        (serde_json::json!({"issuer": "i", "jwks": "{\"keys\": []}"}), "none of its keys"),
        (serde_json::json!({"issuer": "i", "jwks": "{\"keys\": [{}, 1]}"}), "none of its keys"),
        (serde_json::json!({"issuer": "i", "jwks": "{\"keys\": [{\"kty\": \"RSA\"}]}"}), "none of its keys"),
        (
            serde_json::json!({"issuer": "i", "jwks": "{\"keys\": [{\"kty\": \"oct\", \"k\": \"AQAB\"}]}"}),
            "none of its keys",
        ),
        (serde_json::json!({"issuer": "i", "jwksUri": "file:///etc/keys"}), "not an http or https URL"),
        (serde_json::json!({"issuer": "i", "jwksUri": "https:///keys"}), "not an http or https URL"),
        (serde_json::json!({"issuer": "i", "jwksUri": "http://a b"}), "not an http or https URL"),
    ];
    for (rule, says) in table {
        let found = attached(serde_json::json!([rule]));
        let compiled = found.content.as_ref().unwrap().compile(&KeySets::new());
        assert_eq!((&*compiled[0].issuer, &compiled[0].jwks), ("i", &None), "{says}");
        let judgement = found.judge_with_keys(&KeySets::new(), bound);
        assert_eq!((judgement.holds, judgement.reason), (Holds::False, reason::INVALID));
        assert!(judgement.message.contains(says), "{judgement:?}");
    }
}

#[test]
fn a_rule_that_leaves_open_whom_it_trusts_closes_its_targets() {
    let table = [
        (serde_json::json!({"jwks": KEYS}), "spec.jwtRules[1].issuer"),
        (
            serde_json::json!({"issuer": "", "issuers": ["unknown field"], "jwks": KEYS}),
            "spec.jwtRules[1].issuer",
        ),
        (serde_json::json!({"issuer": "i", "timeout": "soon"}), "spec.jwtRules[1].timeout \"soon\""),
        (serde_json::json!({"issuer": "i", "spaceDelimitedClaims": [""]}), "spec.jwtRules[1].spaceDelimited"),
        (serde_json::json!({"issuer": "i", "jwksFile": "x"}), "spec.jwtRules[1].jwksFile is not known"),
        (
            serde_json::json!({"issuer": "i", "fromHeaders": [{"name": "x", "suffix": "y"}]}),
            "spec.jwtRules[1].fromHeaders[0].suffix is not known",
        ),
        (
            serde_json::json!({"issuer": "i", "fromHeaders": [{"name": "a b"}]}),
            "spec.jwtRules[1].fromHeaders",
        ),
        (serde_json::json!({"issuer": "i", "fromHeaders": [{"name": ""}]}), "spec.jwtRules[1].fromHeaders"),
        (serde_json::json!({"issuer": "i", "fromParams": [""]}), "spec.jwtRules[1].fromParams"),
        (serde_json::json!({"issuer": "i", "fromCookies": [""]}), "spec.jwtRules[1].fromCookies"),
        (
            serde_json::json!({"issuer": "i", "outputPayloadToHeader": "a:b"}),
            "spec.jwtRules[1].outputPayloadToHeader",
        ),
        (
            serde_json::json!({"issuer": "i", "outputClaimToHeaders": [{"header": "a", "claim": ""}]}),
            "spec.jwtRules[1].outputClaimToHeaders",
        ),
    ];
    for (rule, says) in table {
        let found = attached(serde_json::json!([{"issuer": "good", "jwks": KEYS}, rule]));
        assert!(found.content.as_ref().is_err_and(|why| why.contains(says)), "{says}");
        let judgement = found.judge_with_keys(&KeySets::new(), bound);
        assert_eq!((judgement.holds, judgement.reason), (Holds::False, reason::INVALID));
        assert!(judgement.message.contains("refuse everything"), "{judgement:?}");
    }
}

#[test]
fn without_a_target_it_is_not_enforced_and_says_so() {
    for spec in [serde_json::json!({}), serde_json::json!({"selector": {"matchLabels": {"app": "a"}}})] {
        let object = serde_json::from_value(serde_json::json!({
            "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
            "metadata": {"name": "p", "namespace": "shop"}, "spec": spec
        }))
        .unwrap();
        let facts = read(&object, &roots());
        assert!(facts.content.is_none());
        let patch = facts.status_patch(crate::Kind::RequestAuthentication, None).unwrap();
        let judgement = &patch.judgements[0];
        assert_eq!((judgement.holds, judgement.reason), (Holds::False, reason::UNSUPPORTED_VALUE));
    }
    let both: RequestAuthenticationSpec = serde_json::from_value(serde_json::json!({
        "selector": {"matchLabels": {"app": "a"}}, "targetRefs": [{"kind": "Service", "name": "a"}]
    }))
    .unwrap();
    let found = attachment(&NamespacedName::new("shop", "p"), &both, &roots()).unwrap();
    assert!(found.content.is_err());
}

/// As Istio validates: one of issuer and jwksUri is required.
#[test]
fn without_an_issuer_whoever_the_keys_of_an_address_vouch_for_is_believed() {
    let uri = "https://issuer.example/keys";
    let found = attached(serde_json::json!([{"jwksUri": uri}]));
    let providers = found.content.as_ref().unwrap();
    assert_eq!(&*providers.compile(&KeySets::new())[0].issuer, "");
}

#[test]
fn a_rule_says_how_long_fetching_its_keys_may_take_within_a_limit() {
    let seconds = Duration::from_secs_f64;
    let table = [
        ("", Some(TIMEOUT)),
        ("5s", Some(seconds(5.0))),
        ("0.5s", Some(seconds(0.5))),
        ("250ms", Some(seconds(0.25))),
        ("1m30s", Some(TIMEOUT_MAX)),
        ("1e300s", None),
        ("infs", None),
        ("NaNs", None),
        ("-1s", None),
        ("0s", None),
        ("0.0s", None),
        ("s", None),
        ("5", None),
    ];
    for (text, expected) in table {
        let rule = serde_json::json!({"issuer": "i", "jwksUri": "https://i/keys", "timeout": text});
        let found = attached(serde_json::json!([rule]));
        let said = found.content.as_ref().ok().map(|providers| providers.uris().next().unwrap().1);
        assert_eq!(said, expected, "{text:?}");
    }
}
