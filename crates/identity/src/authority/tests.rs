//! Signing, and CAs that are rejected.

use rcgen::{CertificateParams, Issuer};

use super::*;
use crate::{Svid, request};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn cart() -> Spiffe {
    "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
}

/// Rounded to whole seconds, the resolution of certificates.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn ca_params(name: &str, from: SystemTime, to: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = from.into();
    params.not_after = to.into();
    params
}

/// A root and an intermediate below it; `change` modifies the intermediate.
fn plugged_in(change: impl Fn(&mut CertificateParams)) -> Parts {
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root = ca_params("root", now() - YEAR, now() + 10 * YEAR);
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let issuer = Issuer::new(root, root_key);
    let mut params = ca_params("intermediate", now() - DAY, now() + YEAR);
    change(&mut params);
    let cert = params.signed_by(&key, &issuer).unwrap().pem();
    Parts { chain: format!("{cert}{root_pem}"), cert, key: key.serialize_pem(), root: root_pem }
}

fn signed(authority: &Authority, ttl: Duration) -> (PrivateKey, Vec<String>) {
    let key = PrivateKey::generate().unwrap();
    let chain = authority.sign(&request::csr(&key, &cart()).unwrap(), &cart(), ttl, now()).unwrap();
    (key, chain)
}

fn facts(pem: &str) -> Facts {
    Facts::of("test", &parse_pem("test", pem).unwrap()[0]).unwrap()
}

#[test]
fn signs_a_leaf_that_names_the_workload_and_nothing_else() {
    let authority = Authority::self_signed("cluster.local", 10 * YEAR, now()).unwrap();
    let (_, chain) = signed(&authority, DAY);
    assert_eq!(chain.len(), 2, "a root that signs itself has no intermediates");
    assert_eq!(chain[1], authority.root_bundle());
    let leaf = facts(&chain[0]);
    assert_eq!(leaf.uris, [cart().to_string()]);
    assert_eq!((leaf.not_before, leaf.not_after), (now() - NOT_BEFORE_SKEW, now() + DAY));
    assert!(!leaf.signs);
    let der = &parse_pem("test", &chain[0]).unwrap()[0];
    let (_, parsed) = x509_parser::parse_x509_certificate(der).unwrap();
    assert_eq!(parsed.subject().iter().count(), 0);
    assert!(parsed.subject_alternative_name().unwrap().unwrap().critical);
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth && !usage.any);
    assert!(parsed.raw_serial()[0] < 0x80);
}

#[test]
fn what_an_intermediate_signs_leads_to_the_root() {
    let authority = Authority::from_pem(plugged_in(|_| {}), now()).unwrap();
    let (key, chain) = signed(&authority, DAY);
    assert_eq!(chain.len(), 3, "leaf, intermediate, root");
    assert_eq!(facts(&chain[1]).not_after, now() + YEAR);
    Svid::new(&key, &chain, &cart(), now()).unwrap();
}

#[test]
fn a_leaf_never_outlives_the_chain() {
    let authority = Authority::from_pem(plugged_in(|_| {}), now()).unwrap();
    let (_, chain) = signed(&authority, 5 * YEAR);
    assert_eq!(facts(&chain[0]).not_after, now() + YEAR);
    let (_, chain) = signed(&authority, Duration::MAX);
    assert_eq!(facts(&chain[0]).not_after, now() + YEAR);
    let csr = request::csr(&PrivateKey::generate().unwrap(), &cart()).unwrap();
    let late = authority.sign(&csr, &cart(), DAY, now() + 2 * YEAR);
    assert!(matches!(late, Err(Error::CaNotValidNow)));
    assert!(matches!(authority.sign(&csr, &cart(), Duration::ZERO, now()), Err(Error::ZeroTtl)));
}

#[test]
fn names_in_the_request_decide_nothing() {
    let authority = Authority::self_signed("cluster.local", YEAR, now()).unwrap();
    let key = PrivateKey::generate().unwrap();
    let csr = request::csr(&key, &"spiffe://cluster.local/ns/kube-system/sa/admin".parse().unwrap()).unwrap();
    let chain = authority.sign(&csr, &cart(), DAY, now()).unwrap();
    assert_eq!(facts(&chain[0]).uris, [cart().to_string()]);
}

#[test]
fn survives_a_round_trip_through_a_secret() {
    let authority = Authority::self_signed("cluster.local", YEAR, now()).unwrap();
    let parts = authority.to_pem().clone();
    let again = Authority::from_pem(parts.clone(), now()).unwrap();
    assert_eq!(again.root_bundle(), authority.root_bundle());
    let cacerts = BTreeMap::from([
        ("ca-cert.pem".to_owned(), parts.cert.clone()),
        ("ca-key.pem".to_owned(), parts.key.clone()),
        ("root-cert.pem".to_owned(), parts.root.clone()),
    ]);
    assert_eq!(Parts::from_secret(&cacerts).unwrap(), parts);
    let tls = BTreeMap::from([
        ("tls.crt".to_owned(), parts.cert.clone()),
        ("tls.key".to_owned(), parts.key.clone()),
        ("ca.crt".to_owned(), parts.root.clone()),
    ]);
    Authority::from_pem(Parts::from_secret(&tls).unwrap(), now()).unwrap();
}

#[test]
fn a_secret_without_a_part_is_refused_by_the_name_of_the_part() {
    let only = |key: &str| BTreeMap::from([(key.to_owned(), Vec::from(b"x"))]);
    assert!(matches!(Parts::from_secret(&only("ca-cert.pem")), Err(Error::MissingPart("ca-key.pem"))));
    assert!(matches!(Parts::from_secret(&only("tls.crt")), Err(Error::MissingPart("tls.key"))));
    assert!(matches!(Parts::from_secret(&only("x")), Err(Error::MissingPart("ca-cert.pem"))));
    let binary = BTreeMap::from([("ca-cert.pem".to_owned(), vec![0xff])]);
    assert!(matches!(Parts::from_secret(&binary), Err(Error::Pem { what: "ca-cert.pem" })));
}

#[test]
fn refuses_a_ca_whose_certificates_peers_would_refuse() {
    let good = plugged_in(|_| {});
    let other = plugged_in(|_| {});
    let refused = |parts: Parts| Authority::from_pem(parts, now()).unwrap_err();
    assert!(matches!(refused(Parts { key: other.key, ..good.clone() }), Error::KeyMismatch));
    assert!(matches!(refused(Parts { root: other.root, ..good.clone() }), Error::ChainWithoutRoot(_)));
    assert!(matches!(refused(plugged_in(|p| p.is_ca = IsCa::ExplicitNoCa)), Error::NotCa));
    assert!(matches!(refused(plugged_in(|p| p.is_ca = IsCa::NoCa)), Error::NotCa));
    let no_signing = plugged_in(|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    assert!(matches!(refused(no_signing), Error::NotCa));
    assert!(matches!(refused(plugged_in(|p| p.not_after = (now() - DAY / 2).into())), Error::CaNotValidNow));
    assert!(matches!(refused(plugged_in(|p| p.not_before = (now() + DAY).into())), Error::CaNotValidNow));
    assert!(matches!(refused(Parts { cert: String::new(), ..good.clone() }), Error::Pem { .. }));
    assert!(matches!(refused(Parts { key: "x".to_owned(), ..good.clone() }), Error::Pem { .. }));
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
    assert!(matches!(refused(Parts { cert: broken.clone(), ..good.clone() }), Error::Certificate { .. }));
    assert!(Authority::from_pem(Parts { root: String::new(), ..good }, now()).is_err());
}

#[test]
fn two_roots_are_both_given_to_workloads() {
    let (old, new) = (plugged_in(|_| {}), plugged_in(|_| {}));
    let both = Parts { root: format!("{}{}", old.root, new.root), ..new };
    let authority = Authority::from_pem(both, now()).unwrap();
    let (key, chain) = signed(&authority, DAY);
    assert_eq!(parse_pem("test", chain.last().unwrap()).unwrap().len(), 2);
    Svid::new(&key, &chain, &cart(), now()).unwrap();
}

#[test]
fn no_key_is_printed() {
    let authority = Authority::self_signed("cluster.local", YEAR, now()).unwrap();
    let server = authority.server_certificate("ambit-operator.ambit-system.svc", DAY, now()).unwrap();
    let printed = format!("{authority:?}{:?}{server:?}", authority.to_pem());
    assert!(!printed.contains("PRIVATE"), "{printed}");
}
