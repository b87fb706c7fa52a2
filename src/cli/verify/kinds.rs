//! The kinds of cases, each read into what its verifier takes.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brevet_core::digest::{CertificateDigest, Thumbprint};
use brevet_core::name::AudienceName;
use brevet_core::spiffe_id::{SpiffeId, TrustDomain};
use brevet_core::time::Timestamp;
use brevet_identity::bearer::BearerError;
use brevet_identity::csr::{self, CsrError};
use brevet_identity::dpop::{self, DpopError};
use brevet_identity::jwk_set::{Ignored, InvalidJwkSet, JwkSet};
use brevet_identity::jws::{HeaderProfile, Jws, JwsError, KeyReference, TokenType};
use brevet_identity::jwt_svid::{self, JwtBundles};
use brevet_identity::key::{Algorithm, PublicKey, certificate_digest};
use brevet_identity::task_token::{self, TokenError};
use brevet_identity::trust::{Bundle, Bundles, InvalidBundle};
use brevet_identity::x509_svid::{self, X509SvidError};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{Kind, Profile, Verdict};

/// A line that is no case of its kind: it says nothing about what it was meant to try.
pub(super) const MALFORMED_CASE: &str = "case_malformed";

/// What was proven.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Proven {
    Jws {
        alg: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        kid: Option<String>,
    },
    Token {
        lease: String,
        agent: Option<SpiffeId>,
        subject: SpiffeId,
        audience: AudienceName,
        holder: Thumbprint,
        expires_at: String,
    },
    JwtSvid {
        spiffe_id: SpiffeId,
        expires_at: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        holder: Option<Thumbprint>,
    },
    X509Svid {
        spiffe_id: SpiffeId,
        expires_at: String,
        key: Thumbprint,
        certificate: CertificateDigest,
    },
    Csr {
        key: Thumbprint,
        ignored_attributes: bool,
    },
    Dpop {
        key: Thumbprint,
        jti: String,
        issued_at: String,
    },
    Jwks {
        keys: Vec<TakenKey>,
        ignored: Vec<IgnoredKey>,
    },
}

/// A key that would verify tokens.
#[derive(Serialize)]
pub(super) struct TakenKey {
    kid: String,
    alg: &'static str,
    key: Thumbprint,
}

/// An element that would not.
#[derive(Serialize)]
pub(super) struct IgnoredKey {
    index: usize,
    reason: &'static str,
}

/// Judges one case.
pub(super) fn judge(kind: Kind, profile: Profile, line: &str) -> Verdict {
    match kind {
        Kind::Jws => jws(read(line)?, profile),
        Kind::Token => token(&read(line)?),
        Kind::JwtSvid => jwt_svid(&read(line)?, profile),
        Kind::X509Svid => x509_svid(&read(line)?),
        Kind::Csr => csr(&read(line)?),
        Kind::Dpop => dpop(&read(line)?),
        Kind::Jwks => jwks(&read(line)?),
    }
}

fn read<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T, &'static str> {
    serde_json::from_str(line).map_err(|_| MALFORMED_CASE)
}

#[derive(Deserialize)]
struct JwsCase<'a> {
    token: String,
    #[serde(borrow)]
    jwks: &'a RawValue,
}

fn jws(case: JwsCase<'_>, profile: Profile) -> Verdict {
    let keys = keys(case.jwks)?;
    let key = match profile {
        Profile::Strict => KeyReference::Kid,
        Profile::Spec => KeyReference::KidOrNone,
    };
    let profile = HeaderProfile { token_type: TokenType::Any, key, unread: &[] };
    let jws = Jws::parse(&case.token, profile).map_err(JwsError::reason)?;
    let (alg, kid) = (Algorithm::as_str(jws.algorithm()), jws.kid().map(str::to_owned));
    jws.verify_with(&keys).map_err(JwsError::reason)?;
    Ok(Proven::Jws { alg, kid })
}

#[derive(Deserialize)]
struct TokenCase<'a> {
    token: String,
    #[serde(borrow)]
    jwks: &'a RawValue,
    issuer: String,
    audience: String,
    at: Moment,
    /// The certificate that the token comes with.
    #[serde(default)]
    holder_cert: Option<String>,
}

fn token(case: &TokenCase<'_>) -> Verdict {
    let keys = keys(case.jwks)?;
    // A token for what is no audience does not exist.
    let audience = AudienceName::parse(&case.audience).map_err(|_| TokenError::Audience.reason())?;
    let verified = task_token::verify(&case.token, &keys, &case.issuer, &audience, case.at.0)
        .map_err(TokenError::reason)?;
    if let Some(certificate) = &case.holder_cert {
        let der = STANDARD.decode(certificate).map_err(|_| MALFORMED_CASE)?;
        let key = PublicKey::from_certificate(&der).map_err(|_| TokenError::Holder.reason())?;
        verified
            .require_holder(key.thumbprint(), Some(certificate_digest(&der)))
            .map_err(TokenError::reason)?;
    }
    let claims = verified.claims();
    Ok(Proven::Token {
        lease: verified.lease_id().to_string(),
        agent: claims.agent().cloned(),
        subject: claims.subject.clone(),
        audience: claims.audience.clone(),
        holder: claims.holder,
        expires_at: claims.end.to_string(),
    })
}

#[derive(Deserialize)]
struct JwtSvidCase<'a> {
    token: String,
    #[serde(borrow)]
    bundles: Members<&'a RawValue>,
    audience: String,
    at: Moment,
}

fn jwt_svid(case: &JwtSvidCase<'_>, profile: Profile) -> Verdict {
    let bundles: JwtBundles = case.bundles.by_trust_domain(|keys| {
        JwkSet::parse_bundle(keys.get().as_bytes()).map_err(|refused| refused.reason())
    })?;
    let svid = jwt_svid::verify(&case.token, &bundles, None, &case.audience, case.at.0, profile.rules())
        .map_err(BearerError::reason)?;
    Ok(Proven::JwtSvid {
        spiffe_id: svid.spiffe_id,
        expires_at: svid.bearer.end.to_string(),
        holder: svid.bearer.confirmation.map(|confirmation| confirmation.jkt),
    })
}

#[derive(Deserialize)]
struct X509SvidCase {
    chain: Vec<String>,
    bundles: Members<Vec<String>>,
    at: Moment,
}

fn x509_svid(case: &X509SvidCase) -> Verdict {
    let der = |certificates: &[String]| {
        certificates.iter().map(|text| STANDARD.decode(text)).collect::<Result<Vec<_>, _>>()
    };
    let chain = der(&case.chain).map_err(|_| X509SvidError::Malformed.reason())?;
    let bundles = case.bundles.by_trust_domain(|authorities| {
        let authorities = der(authorities).map_err(|_| X509SvidError::Malformed.reason())?;
        Bundle::from_certificates(&authorities).map_err(|refused| match refused {
            InvalidBundle::Authority(_, error) => error.reason(),
            _ => "bundle_malformed",
        })
    })?;
    // Two of one name were told apart already.
    let bundles = Bundles::new(bundles).map_err(|_| MALFORMED_CASE)?;
    let svid = x509_svid::judge(&chain, &bundles, case.at.0).map_err(X509SvidError::reason)?;
    Ok(Proven::X509Svid {
        spiffe_id: svid.spiffe_id().clone(),
        expires_at: svid.end().to_string(),
        key: svid.key(),
        certificate: svid.certificate(),
    })
}

#[derive(Deserialize)]
struct CsrCase {
    csr: String,
}

fn csr(case: &CsrCase) -> Verdict {
    let der = STANDARD.decode(&case.csr).map_err(|_| CsrError::Malformed.reason())?;
    let proven = csr::verify(&der).map_err(CsrError::reason)?;
    Ok(Proven::Csr { key: proven.thumbprint(), ignored_attributes: proven.ignored_attributes() })
}

#[derive(Deserialize)]
struct DpopCase {
    proof: String,
    method: String,
    url: String,
    at: Moment,
    /// The access token that the proof comes with.
    #[serde(default)]
    token: Option<String>,
    /// The key that it must prove.
    #[serde(default)]
    jkt: Option<String>,
    /// The nonce that the server gave.
    #[serde(default)]
    nonce: Option<String>,
}

fn dpop(case: &DpopCase) -> Verdict {
    let target = dpop::Target {
        method: &case.method,
        url: &case.url,
        access_token: case.token.as_deref(),
        nonce: case.nonce.as_deref(),
    };
    let proof =
        dpop::verify(&case.proof, &target, case.at.0, dpop::Limits::default()).map_err(DpopError::reason)?;
    if case.jkt.as_ref().is_some_and(|expected| *expected != proof.thumbprint.to_string()) {
        return Err("dpop_jkt");
    }
    Ok(Proven::Dpop { key: proof.thumbprint, jti: proof.jti, issued_at: proof.issued_at.to_string() })
}

#[derive(Deserialize)]
struct JwksCase<'a> {
    #[serde(borrow)]
    jwks: &'a RawValue,
}

fn jwks(case: &JwksCase<'_>) -> Verdict {
    let set = keys(case.jwks)?;
    let taken = set.keys().map(|(kid, jwk)| TakenKey {
        kid: kid.to_owned(),
        alg: jwk.algorithm().as_str(),
        key: jwk.key().thumbprint(),
    });
    let ignored = set
        .ignored()
        .iter()
        .map(|(index, ignored)| IgnoredKey { index: *index, reason: Ignored::reason(*ignored) });
    Ok(Proven::Jwks { keys: taken.collect(), ignored: ignored.collect() })
}

fn keys(jwks: &RawValue) -> Result<JwkSet, &'static str> {
    JwkSet::parse(jwks.get().as_bytes()).map_err(|refused: InvalidJwkSet| refused.reason())
}

/// A time in RFC 3339.
struct Moment(Timestamp);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed: prost_types::Timestamp = text.parse().map_err(D::Error::custom)?;
        let millis = i128::from(parsed.seconds) * 1_000 + i128::from(parsed.nanos) / 1_000_000;
        u64::try_from(millis).map(Timestamp::from_millis).map(Self).map_err(D::Error::custom)
    }
}

/// The members of an object as they stand there, twice where one stands twice.
struct Members<T>(Vec<(String, T)>);

impl<T> Members<T> {
    /// The bundles, one for each trust domain; or why one of them is refused.
    fn by_trust_domain<B>(
        &self,
        read: impl Fn(&T) -> Result<B, &'static str>,
    ) -> Result<BTreeMap<TrustDomain, B>, &'static str> {
        let mut bundles = BTreeMap::new();
        for (name, bundle) in &self.0 {
            let name: TrustDomain = name.parse().map_err(|_| MALFORMED_CASE)?;
            // Which of the two would it be?
            if bundles.insert(name, read(bundle)?).is_some() {
                return Err("bundle_duplicate");
            }
        }
        Ok(bundles)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Collect<T> {
            type Value = Vec<(String, T)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = members.next_entry()? {
                    all.push(member);
                }
                Ok(all)
            }
        }
        deserializer.deserialize_map(Collect(PhantomData)).map(Self)
    }
}
