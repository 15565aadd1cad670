//! Accepted and rejected requests.

use proptest::prelude::*;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};

use super::*;
use crate::{PrivateKey, request};

fn with_names(names: Vec<SanType>) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn uri_name(text: &str) -> SanType {
    SanType::URI(text.to_owned().try_into().unwrap())
}

fn refusal(text: &str) -> RequestRefused {
    let error = inspect(text).unwrap_err();
    let Error::Request(refused) = error else { panic!("{error}") };
    refused
}

#[test]
fn reads_the_names_that_a_workload_asks_for() {
    let identity = "spiffe://cluster.local/ns/shop/sa/cart";
    let key = PrivateKey::generate().unwrap();
    let facts = inspect(&request::csr(&key, &identity.parse().unwrap()).unwrap()).unwrap();
    assert_eq!(facts.uris, [identity]);
    assert_eq!(inspect(&with_names(vec![])).unwrap().uris, [""; 0]);
    let two = with_names(vec![uri_name("spiffe://a/ns/b/sa/c"), uri_name("https://x")]);
    assert_eq!(inspect(&two).unwrap().uris.len(), 2);
}

#[test]
fn refuses_names_that_are_no_plain_uris() {
    for name in [
        uri_name("spiffe://cluster.local/ns/shop/sa/cart\0.evil"),
        uri_name("spiffe://cluster.local/ns/shop/sa/ca rt"),
        uri_name("spiffe://cluster.local/ns/shop/sa/cart\n"),
        SanType::DnsName("cart.shop".try_into().unwrap()),
        SanType::Rfc822Name("a@b".try_into().unwrap()),
        SanType::IpAddress([10, 0, 0, 1].into()),
    ] {
        let both = vec![uri_name("spiffe://cluster.local/ns/shop/sa/cart"), name.clone()];
        assert_eq!(refusal(&with_names(both)), RequestRefused::Name, "{name:?}");
    }
}

#[test]
fn refuses_a_request_whose_signature_is_not_by_its_key() {
    let good = with_names(vec![uri_name("spiffe://a/ns/b/sa/c")]);
    let mut block = pem::parse(&good).unwrap().into_contents();
    // The signature is at the end.
    let last = block.len() - 1;
    block[last] ^= 1;
    let forged = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", block));
    assert_eq!(refusal(&forged), RequestRefused::Signature);
}

#[test]
fn refuses_other_keys_extensions_sizes_and_what_is_no_request() {
    let sign = |key: &KeyPair| CertificateParams::default().serialize_request(key).unwrap().pem().unwrap();
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    // Which of the two depends on the libraries: the key cannot be verified, or is not accepted for
    // signing.
    assert!(matches!(refusal(&sign(&p521)), RequestRefused::Key | RequestRefused::Signature));
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    inspect(&sign(&rsa)).unwrap();
    for accepted in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        inspect(&sign(&KeyPair::generate_for(accepted).unwrap())).unwrap();
    }
    let mut odd = CertificateParams::default();
    odd.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0])];
    let odd = odd.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    assert_eq!(refusal(&odd), RequestRefused::Extension);
    assert_eq!(refusal(&"x".repeat(CSR_MAX_BYTES + 1)), RequestRefused::TooLarge);
    let good = with_names(vec![]);
    for bad in ["", "x", &good.replace("CERTIFICATE REQUEST", "CERTIFICATE"), &good[..good.len() / 2]] {
        assert_eq!(refusal(bad), RequestRefused::Unreadable, "{bad}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let text = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", bytes));
        prop_assert!(inspect(&text).is_err());
    }

    #[test]
    fn no_flipped_byte_yields_a_request_of_another_key(at in 0usize..1000, bit in 0u8..8) {
        let good = with_names(vec![uri_name("spiffe://a/ns/b/sa/c")]);
        let expected = inspect(&good).unwrap();
        let mut bytes = pem::parse(&good).unwrap().into_contents();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(read) = inspect(&pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", bytes))) {
            prop_assert_eq!(read, expected);
        }
    }
}
