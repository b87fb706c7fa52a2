//! What is published: keys, and what an off-the-shelf client needs to find them.

use std::time::Duration;

use axum::body::Bytes;
use serde_json::json;

/// The published documents, ready to be sent. They are replaced together, so that none contradicts another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicDocuments {
    pub(super) jwks: Bytes,
    pub(super) bookmark_jwks: Bytes,
    pub(super) bundle: Bytes,
    pub(super) authorization_server: Bytes,
    pub(super) openid_configuration: Bytes,
    pub(super) max_age: Duration,
}

impl PublicDocuments {
    /// The documents of an issuer: the keys of its tokens as a JWK set (RFC 7517) and its SPIFFE bundle, both as
    /// JSON, and metadata that tells where they are.
    ///
    /// `issuer` is the `iss` of the tokens, a URL below which this listener is reached. `max_age` is how long a
    /// client may keep a document: a key is to be published that long before it signs (K1).
    #[must_use]
    pub fn new(issuer: &str, jwks: impl Into<Bytes>, bundle: impl Into<Bytes>, max_age: Duration) -> Self {
        let jwks_uri = format!("{}/oauth/jwks", issuer.trim_end_matches('/'));
        // There is no authorization and no token endpoint. The empty lists say so: RFC 8414 section 2 gives a
        // missing `grant_types_supported` the meaning of code and implicit, which would be untrue.
        let authorization_server = json!({
            "issuer": issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": [],
            "grant_types_supported": [],
        });
        // The members that OpenID Connect Discovery section 3 requires, in the form in which other issuers of
        // workload tokens without an authorization endpoint serve them and cloud federation reads them.
        let openid_configuration = json!({
            "issuer": issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        Self {
            jwks: jwks.into(),
            bookmark_jwks: Bytes::from_static(br#"{"keys":[]}"#),
            bundle: bundle.into(),
            authorization_server: authorization_server.to_string().into(),
            openid_configuration: openid_configuration.to_string().into(),
            max_age,
        }
    }

    /// The same with the keys of bookmarks, a JWK set as well.
    #[must_use]
    pub fn with_bookmark_keys(self, jwks: impl Into<Bytes>) -> Self {
        Self { bookmark_jwks: jwks.into(), ..self }
    }
}
