//! Who vouches for a request.
