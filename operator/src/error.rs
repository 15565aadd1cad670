//! Errors of the operator, and whether to retry.

/// An error of the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server rejected a request or could not be reached.
    #[error("{doing}: {source}")]
    Api {
        /// The operation, with the object's name.
        doing: String,
        /// The API server's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object cannot be serialized as JSON.
    #[error("{doing}: {source}")]
    Json {
        /// The operation.
        doing: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// Another owner's object has the name that one of ours needs.
    #[error("{object} exists and is not the mesh's: delete or rename it, or rename the Gateway")]
    NotOurs {
        /// Kind, namespace and name.
        object: String,
    },
    /// A key or certificate cannot be created.
    #[error("making the self-signed authority: {0}")]
    Identity(#[from] ambit_identity::Error),
}

impl Error {
    /// An error of the API server during an operation.
    pub(crate) fn api(doing: impl Into<String>, source: kube::Error) -> Self {
        Self::Api { doing: doing.into(), source: Box::new(source) }
    }
}

/// Whether the object, or its kind, does not exist. A kind that is not served gets a plain text
/// response with a code and no reason.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether another writer was faster, or the object already exists.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::Api;

    use super::*;
    use crate::testing::Script;

    #[tokio::test]
    async fn a_kind_that_is_not_served_is_not_found() {
        let script = Script::new([(404, serde_json::json!("404 page not found"))]);
        let error =
            Api::<Pod>::all(script.client()).list(&kube::api::ListParams::default()).await.unwrap_err();
        assert!(is_not_found(&error), "{error}");
    }
}
