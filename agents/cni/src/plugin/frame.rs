//! The form of a message between plugin and agent: its length in four bytes, most significant first, then JSON that
//! names the version of the protocol. One message goes each way.
//!
//! Invariant: nothing is allocated for a length above [`FRAME_BYTES_MAX`], and a message of another version is an error,
//! never read in part: during an upgrade either end may be older than the other.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Version of the protocol; a change that the other side could misread gets another.
pub const VERSION: u32 = 1;
/// Largest message, in bytes, without its length.
pub const FRAME_BYTES_MAX: usize = 64 << 10;
/// Bytes of the length.
pub const PREFIX_BYTES: usize = 4;

/// A frame that cannot be sent or used.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Its length is above the limit; one that speaks HTTP looks like this.
    #[error(
        "a frame of {0} bytes is larger than {FRAME_BYTES_MAX}; the other side may be of another version"
    )]
    TooLarge(u64),
    /// Not JSON, or not the message that is expected.
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

/// Writes a message, its length first.
///
/// # Errors
/// [`FrameError::TooLarge`]
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let json = serde_json::to_vec(&Envelope { version: VERSION, body: message })?;
    let too_large = || FrameError::TooLarge(json.len() as u64);
    let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= FRAME_BYTES_MAX);
    Ok([&length.ok_or_else(too_large)?.to_be_bytes()[..], &json].concat())
}

/// Reads the length of the message that follows.
///
/// # Errors
/// [`FrameError::TooLarge`]
pub fn length(prefix: [u8; PREFIX_BYTES]) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(prefix);
    let usable = usize::try_from(length).ok().filter(|length| *length <= FRAME_BYTES_MAX);
    usable.ok_or(FrameError::TooLarge(length.into()))
}

/// Reads a message without its length.
///
/// # Errors
/// [`FrameError::Version`], [`FrameError::Malformed`]
pub fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, FrameError> {
    /// What all versions have.
    #[derive(Deserialize)]
    struct Any {
        version: u32,
    }
    match serde_json::from_slice(json)? {
        Any { version: VERSION } => Ok(serde_json::from_slice::<Envelope<T>>(json)?.body),
        Any { version } => Err(FrameError::Version(version)),
    }
}
