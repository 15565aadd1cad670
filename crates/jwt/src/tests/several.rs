//! Several tokens, several values, and equivalent header names.

use super::*;

fn elsewhere(signer: &Signer) -> JwtProvider {
    JwtProvider {
        issuer: "https://other.example".into(),
        locations: vec![TokenLocation::Header { name: "x-token".into(), prefix: "".into() }],
        claim_headers: vec![ClaimHeader { header: "x-sub".into(), claim: "sub".into() }],
        ..provider(&[signer])
    }
}

#[test]
fn tokens_in_two_headers_pass_if_each_holds_and_the_first_provider_speaks() {
    let (signer, other) = (Signer::ed25519("a"), Signer::ed25519("b"));
    let named = JwtProvider {
        claim_headers: vec![ClaimHeader { header: "x-sub".into(), claim: "sub".into() }],
        ..provider(&[&signer])
    };
    let validator = Validator::new(&[named, elsewhere(&other)]);
    let mut theirs = but("iss", json!("https://other.example"));
    theirs["sub"] = json!("bob");
    let mut expired = theirs.clone();
    expired["exp"] = json!(NOW - 100);
    let ours = format!("Bearer {}", signer.token(&claims()));
    let check = |theirs: &str| {
        let mut request = request(&[("authorization", &ours), ("x-token", theirs)]);
        let accepted = validator.check(&RequestHead::from(&request), now())?;
        accepted.edits.iter().for_each(|edit| edit.apply(&mut request));
        let subject = accepted.token.unwrap().subject;
        Ok((subject.to_string(), request.headers["x-sub"].to_str().unwrap().to_owned()))
    };
    assert_eq!(check(&other.token(&theirs)), Ok(("alice".to_owned(), "alice".to_owned())));
    assert_eq!(check(&other.token(&expired)), Err(Refusal::Expired));
    assert_eq!(check(&signer.token(&theirs)), Err(Refusal::UnknownKey));
    assert_eq!(check("a.b.c"), Err(Refusal::Malformed));
}

/// Like Envoy's jwt_verify_lib.
#[test]
fn an_audience_is_compared_without_scheme_and_slash() {
    let signer = Signer::ed25519("a");
    let table = [
        ("https://shop.example/", "shop.example", true),
        ("shop.example", "http://shop.example", true),
        ("https://shop.example", "http://shop.example/", true),
        ("shop.example//", "shop.example", false),
        ("shop.example", "shop.example/a", false),
        ("Shop.example", "shop.example", false),
        ("ftp://shop.example", "shop.example", false),
    ];
    for (wanted, own, expected) in table {
        let provider = JwtProvider { audiences: vec![wanted.into()], ..provider(&[&signer]) };
        let found = refused(provider, &signer.token(&but("aud", json!([own, "x"]))));
        assert_eq!(found.is_none(), expected, "{wanted} {own}");
    }
}

#[test]
fn members_that_are_no_text_are_passed_over_and_named_claims_are_split() {
    let signer = Signer::ed25519("a");
    let mut claims = claims();
    claims["azp"] = json!(["app", 7, "web"]);
    claims["groups"] = json!([1, "dev", null, ["x"], "ops"]);
    claims["roles"] = json!("viewer guest");
    claims["permission"] = json!("read");
    claims["other"] = json!("a b");
    let provider = JwtProvider { space_delimited: vec!["roles".into()], ..provider(&[&signer]) };
    let token = check(provider, &bearing(&signer.token(&claims))).unwrap().token.unwrap();
    let of = |name: &str| -> Vec<String> {
        token.claims[&vec![Arc::from(name)]].iter().map(|value| value.to_string()).collect()
    };
    assert_eq!(token.presenters.iter().map(|value| &**value).collect::<Vec<_>>(), ["app", "web"]);
    assert_eq!(of("groups"), ["dev", "ops"]);
    assert_eq!(of("roles"), ["viewer", "guest"]);
    assert_eq!((of("permission"), of("other")), (vec!["read".to_owned()], vec!["a b".to_owned()]));
}

#[test]
fn without_an_issuer_the_keys_alone_decide() {
    let (signer, other) = (Signer::ed25519("a"), Signer::ed25519("b"));
    let anybody = || JwtProvider { issuer: "".into(), ..provider(&[&signer]) };
    let elsewhere = but("iss", json!("https://elsewhere.example"));
    assert_eq!(refused(anybody(), &signer.token(&elsewhere)), None);
    assert_eq!(refused(anybody(), &other.token(&elsewhere)), Some(Refusal::UnknownKey));
}
