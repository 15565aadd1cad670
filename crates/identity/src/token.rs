//! The service account token that authenticates an agent to the operator.
//!
//! Read from its file at each use, because the kubelet replaces it there; never cached, never
//! printed.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use tonic::metadata::{Ascii, MetadataValue};

use crate::Error;

/// Path of the token file.
#[derive(Clone)]
pub struct Token {
    path: PathBuf,
}

impl Token {
    /// A token in a file that may be replaced at any time.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned() }
    }

    /// The value of an `authorization` header, marked as sensitive. Blocking: reads a few hundred
    /// bytes from a memory-backed file.
    ///
    /// # Errors
    /// If the file cannot be read, or its content cannot be a header value.
    pub fn bearer(&self) -> Result<MetadataValue<Ascii>, Error> {
        let text = fs::read_to_string(&self.path)
            .map_err(|source| Error::File { path: self.path.clone(), source })?;
        let token = text.trim();
        let mut value = MetadataValue::try_from(format!("Bearer {token}"))
            .ok()
            .filter(|_| !token.is_empty())
            .ok_or_else(|| Error::Token(self.path.clone()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("path", &self.path).finish()
    }
}
