//! Encoding of messages between plugin and agent: the length as four bytes, most significant first,
//! then JSON with the protocol version. One message is sent each way.
//!
//! Invariant: a length above [`FRAME_BYTES_MAX`] allocates nothing, and a message of another
//! version is rejected as a whole, because during an upgrade either end may be older than the
//! other.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Protocol version; changes that the other side could misinterpret increase it.
pub const VERSION: u32 = 1;
/// Largest message in bytes, without its length prefix.
pub const FRAME_BYTES_MAX: usize = 64 << 10;
/// Size of the length prefix.
pub const PREFIX_BYTES: usize = 4;

/// Why a message cannot be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length exceeds the limit; HTTP from an older version looks like this.
    #[error(
        "a frame of {0} bytes is larger than {FRAME_BYTES_MAX}; the other side may be of another version"
    )]
    TooLarge(u64),
    /// Not valid JSON, or not the expected message.
    #[error("the message is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Another version of the protocol.
    #[error(
        "the other side speaks version {0} and this one version {VERSION}; try again once the upgrade is over"
    )]
    Version(u32),
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    body: T,
}

/// Encodes a message with its length prefix.
///
/// # Errors
/// [`FrameError::TooLarge`]
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let json = serde_json::to_vec(&Envelope { version: VERSION, body: message })?;
    let too_large = || FrameError::TooLarge(json.len() as u64);
    let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= FRAME_BYTES_MAX);
    Ok([&length.ok_or_else(too_large)?.to_be_bytes()[..], &json].concat())
}

/// Decodes the length prefix.
///
/// # Errors
/// [`FrameError::TooLarge`]
pub fn length(prefix: [u8; PREFIX_BYTES]) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(prefix);
    let usable = usize::try_from(length).ok().filter(|length| *length <= FRAME_BYTES_MAX);
    usable.ok_or(FrameError::TooLarge(length.into()))
}

/// Decodes a message without its length prefix.
///
/// # Errors
/// [`FrameError::Version`], [`FrameError::Malformed`]
pub fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, FrameError> {
    /// The part common to all versions.
    #[derive(Deserialize)]
    struct Any {
        version: u32,
    }
    match serde_json::from_slice(json)? {
        Any { version: VERSION } => Ok(serde_json::from_slice::<Envelope<T>>(json)?.body),
        Any { version } => Err(FrameError::Version(version)),
    }
}
