//! What tampered tokens are made of: a good one of each kind that the daemon takes for a caller's.

use std::ops::Deref;

use brevet_testkit::x509::Key;
use serde_json::{Value, json};

use crate::tokens::{AGENT, ISSUER, Tokens};

/// Whose tokens are tampered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Those of a trust domain.
    JwtSvid,
    /// Those of an issuer.
    Oidc,
}

/// What the cases are made with, for a daemon.
pub(crate) struct Forge<'a> {
    tokens: &'a Tokens,
    pub(crate) kind: Kind,
}

impl Deref for Forge<'_> {
    type Target = Tokens;

    fn deref(&self) -> &Tokens {
        self.tokens
    }
}

impl<'a> Forge<'a> {
    pub(crate) const fn of(kind: Kind, tokens: &'a Tokens) -> Self {
        Self { tokens, kind }
    }

    /// The key that the daemon believes, whose name is `k`.
    pub(crate) fn key(&self) -> &Key {
        match self.kind {
            Kind::JwtSvid => &self.svids,
            Kind::Oidc => &self.issued,
        }
    }

    /// What it signs with, and what other keys of its kind do.
    pub(crate) const fn algorithms(&self) -> [&'static str; 2] {
        match self.kind {
            Kind::JwtSvid => ["ES256", "ES384"],
            Kind::Oidc => ["ES384", "ES256"],
        }
    }

    /// The claims of a good token.
    pub(crate) fn claims(&self) -> Value {
        match self.kind {
            Kind::JwtSvid => Tokens::claims(AGENT),
            Kind::Oidc => {
                let mut claims = Tokens::claims("robot");
                claims["iss"] = json!(ISSUER);
                claims
            }
        }
    }

    /// A token with these claims that is good in everything else.
    pub(crate) fn signed(&self, claims: &Value) -> String {
        match self.kind {
            Kind::JwtSvid => self.svid(claims),
            Kind::Oidc => self.token(claims),
        }
    }

    /// The header of a good token with another member, or with one of another value.
    pub(crate) fn with(&self, name: &str, value: Value) -> Value {
        let mut header = json!({"alg": self.algorithms()[0], "kid": "k", "typ": "JWT"});
        header[name] = value;
        header
    }
}
