//! The messages of `envoy.service.discovery.v3` that carry resources, in a form that shares bytes.
//!
//! Invariant: field numbers and wire types equal those of `ambit_proto::discovery`. An embedded
//! message and a `bytes` field have the same encoding, so a resource is encoded once and shared by
//! all responses.

use bytes::Bytes;
use prost::Message;

/// `DeltaDiscoveryResponse` with encoded resources.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Response {
    /// Empty, or [`PARTIAL`].
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// Encoded [`EncodedResource`]s.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub resources: Vec<Bytes>,
    /// Type URL of all of them.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// Referenced by the ACK or NACK.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names of removed resources.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
}

/// `Resource` with shared bytes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EncodedResource {
    /// Hash of the content.
    #[prost(string, tag = "1")]
    pub version: String,
    /// The content.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// Name, unique within its type.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Aliases by which clients can query it.
    #[prost(string, repeated, tag = "4")]
    pub aliases: Vec<String>,
}

/// `google.protobuf.Any` with shared bytes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Any {
    /// Type URL of the value.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// [`Response::system_version_info`] of a response that is followed by more of the initial state.
/// Servers that send the initial state in one response (istiod) never set it.
pub(crate) const PARTIAL: &str = "partial";

#[cfg(test)]
mod tests {
    use ambit_proto::discovery;

    use super::*;

    #[test]
    fn reads_as_the_generated_messages() {
        let resource = EncodedResource {
            version: "v".into(),
            resource: Some(Any { type_url: "t".into(), value: Bytes::from_static(b"body") }),
            name: "n".into(),
            aliases: vec!["also n".into()],
        };
        let response = Response {
            system_version_info: PARTIAL.into(),
            resources: vec![resource.encode_to_vec().into()],
            type_url: "t".into(),
            nonce: "7".into(),
            removed_resources: vec!["gone".into()],
        };
        let read = discovery::DeltaDiscoveryResponse::decode(response.encode_to_vec().as_slice()).unwrap();
        assert_eq!(read.encode_to_vec(), response.encode_to_vec());
        assert_eq!(
            (read.nonce.as_str(), read.removed_resources.as_slice()),
            ("7", ["gone".to_owned()].as_slice())
        );
        let first = &read.resources[0];
        assert_eq!((first.name.as_str(), first.version.as_str()), ("n", "v"));
        assert_eq!(first.aliases, ["also n"]);
        assert_eq!(first.resource.as_ref().unwrap().value, b"body");
    }
}
