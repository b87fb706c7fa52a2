//! Proofs of possession (DPoP, RFC 9449) for an agent whose holder key is not the key of its connection.
//!
//! The key stays in the agent's process; what leaves it is its thumbprint, by which a task is bound, and proofs.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_core::digest::Thumbprint;
use brevet_core::time::Timestamp;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use thiserror::Error;
use zeroize::Zeroize;

/// Why there is no holder key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HolderKeyError {
    /// The text holds no private key in PKCS#8.
    #[error("no private key in PKCS#8 PEM")]
    Pem,
    /// The key is not a valid P-256 key with its public half.
    #[error("not a P-256 key with its public half")]
    Key,
    /// The system gave no random bytes.
    #[error("no randomness from the system")]
    Randomness,
}

/// A proof could not be signed, because the system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("cannot sign the proof: no randomness from the system")]
pub struct SigningFailed;

/// The P-256 key of one agent instance.
pub struct HolderKey {
    pair: EcdsaKeyPair,
    jwk: Jwk,
}

impl HolderKey {
    /// A new key, in memory only.
    ///
    /// # Errors
    /// [`HolderKeyError::Randomness`] if the system gives no random bytes.
    pub fn generate() -> Result<Self, HolderKeyError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| HolderKeyError::Randomness)?;
        Self::from_pkcs8(document.as_ref())
    }

    /// The first private key in a PEM text: PKCS#8, P-256.
    ///
    /// # Errors
    /// [`HolderKeyError`] if there is none, or it is of another kind.
    pub fn from_pem(pem: &[u8]) -> Result<Self, HolderKeyError> {
        let mut der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| HolderKeyError::Pem)?;
        let key = Self::from_pkcs8(der.secret_pkcs8_der());
        der.zeroize();
        key
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, HolderKeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new())
            .map_err(|_| HolderKeyError::Key)?;
        let jwk = Jwk::of(pair.public_key().as_ref()).ok_or(HolderKeyError::Key)?;
        Ok(Self { pair, jwk })
    }

    /// The RFC 7638 thumbprint: what a task is bound to, and `cnf.jkt` of its credentials.
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        self.jwk.thumbprint()
    }
}

impl fmt::Debug for HolderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HolderKey").field(&self.thumbprint()).finish()
    }
}

/// A public P-256 key as a JWK, with its required members only and in the order of RFC 7638 §3.3.
#[derive(Serialize)]
struct Jwk {
    crv: &'static str,
    kty: &'static str,
    x: String,
    y: String,
}

impl Jwk {
    /// From an uncompressed point (SEC 1 §2.3.3).
    fn of(point: &[u8]) -> Option<Self> {
        let (x, y) = point.strip_prefix(&[4])?.split_at_checked(32)?;
        Some(Self { crv: "P-256", kty: "EC", x: encode(x), y: encode(y) })
    }

    fn thumbprint(&self) -> Thumbprint {
        // Coordinates in base64url hold nothing that JSON escapes.
        let Self { crv, kty, x, y } = self;
        let canonical = format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}","y":"{y}"}}"#);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, canonical.as_bytes()).as_ref());
        Thumbprint::from_bytes(bytes)
    }
}

/// What a proof says (RFC 9449 §4.2).
#[derive(Debug, Clone, Copy)]
pub struct Proof<'a> {
    /// `htm`: the method of the request; `POST` for gRPC.
    pub method: &'a str,
    /// `htu`: the URL of the request; its query and fragment are left out.
    pub url: &'a str,
    /// `iat`, cut to a whole second.
    pub issued_at: Timestamp,
    /// `jti`: unlike that of any other proof of this key.
    pub id: &'a str,
    /// The access token that is presented with the proof, where there is one; its digest enters as `ath`.
    pub access_token: Option<&'a str>,
}

#[derive(Serialize)]
struct Header<'a> {
    typ: &'static str,
    alg: &'static str,
    jwk: &'a Jwk,
}

#[derive(Serialize)]
struct Claims<'a> {
    jti: &'a str,
    htm: &'a str,
    htu: &'a str,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
}

/// Signs a proof with ES256 and gives it in compact form.
///
/// # Errors
/// [`SigningFailed`] if the system gives no random bytes.
pub fn prove(key: &HolderKey, proof: &Proof<'_>) -> Result<String, SigningFailed> {
    let header = Header { typ: "dpop+jwt", alg: "ES256", jwk: &key.jwk };
    let claims = Claims {
        jti: proof.id,
        htm: proof.method,
        htu: proof.url.split(['?', '#']).next().unwrap_or_default(),
        iat: proof.issued_at.seconds(),
        ath: proof.access_token.map(|token| encode(digest(&SHA256, token.as_bytes()).as_ref())),
    };
    let part = |json: serde_json::Result<Vec<u8>>| json.map(|json| encode(&json)).map_err(|_| SigningFailed);
    let signed = format!("{}.{}", part(serde_json::to_vec(&header))?, part(serde_json::to_vec(&claims))?);
    let signature = key.pair.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| SigningFailed)?;
    Ok(format!("{signed}.{}", encode(signature.as_ref())))
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use serde_json::{Value, json};

    use super::*;

    fn decode(part: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(part).unwrap()
    }

    fn proof(url: &str) -> Proof<'_> {
        Proof {
            method: "POST",
            url,
            issued_at: Timestamp::from_millis(1_700_000_000_999),
            id: "p-1",
            access_token: None,
        }
    }

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638() {
        // Key and thumbprint are those of RFC 9449 §4.1 and §6.1.
        let jwk = Jwk {
            crv: "P-256",
            kty: "EC",
            x: "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs".into(),
            y: "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA".into(),
        };
        assert_eq!(jwk.thumbprint().to_string(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    }

    #[test]
    fn a_proof_says_what_it_was_asked_to_and_verifies_by_the_key_in_it() {
        let key = HolderKey::generate().unwrap();
        let text = prove(&key, &proof("https://broker.example/x?q=1#f")).unwrap();
        let [header, claims, signature] = text.split('.').collect::<Vec<_>>().try_into().unwrap();

        let header_json: Value = serde_json::from_slice(&decode(header)).unwrap();
        assert_eq!((&header_json["typ"], &header_json["alg"]), (&json!("dpop+jwt"), &json!("ES256")));
        let claims_json: Value = serde_json::from_slice(&decode(claims)).unwrap();
        let expected = json!({
            "jti": "p-1", "htm": "POST", "htu": "https://broker.example/x", "iat": 1_700_000_000
        });
        assert_eq!(claims_json, expected);

        let coordinate = |name: &str| decode(header_json["jwk"][name].as_str().unwrap());
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        let signed = |text: &str| public.verify(text.as_bytes(), &decode(signature)).is_ok();
        assert!(signed(&format!("{header}.{claims}")));
        assert!(!signed(&format!("{header}.{claims}A")));
    }

    #[test]
    fn the_brokers_verifier_accepts_a_proof_for_its_target_alone() {
        use brevet_identity::dpop::{DpopError, Limits, Target, verify};

        let key = HolderKey::generate().unwrap();
        let url = "https://broker.example/x";
        for access_token in [None, Some("a.b.c")] {
            let proof = Proof { access_token, ..proof(url) };
            let text = prove(&key, &proof).unwrap();
            let target = Target { method: "POST", url, access_token, nonce: None };
            let proven = verify(&text, &target, proof.issued_at, Limits::default()).unwrap();
            assert_eq!((proven.thumbprint, proven.jti.as_str()), (key.thumbprint(), "p-1"));
            let other = Target { url: "https://broker.example/y", ..target };
            assert_eq!(verify(&text, &other, proof.issued_at, Limits::default()), Err(DpopError::Url));
        }
    }

    #[test]
    fn a_presented_token_enters_as_its_digest() {
        let key = HolderKey::generate().unwrap();
        let text =
            prove(&key, &Proof { access_token: Some("a.b.c"), ..proof("https://crm.example/") }).unwrap();
        let claims: Value = serde_json::from_slice(&decode(text.split('.').nth(1).unwrap())).unwrap();
        assert_eq!(claims["ath"], json!(encode(digest(&SHA256, b"a.b.c").as_ref())));
    }

    #[test]
    fn only_a_p256_key_is_a_holder_key() {
        let pem = |kind| rcgen::KeyPair::generate_for(kind).unwrap().serialize_pem();
        assert!(HolderKey::from_pem(pem(&PKCS_ECDSA_P256_SHA256).as_bytes()).is_ok());
        for other in [pem(&PKCS_ECDSA_P384_SHA384), pem(&PKCS_ED25519)] {
            assert_eq!(HolderKey::from_pem(other.as_bytes()).unwrap_err(), HolderKeyError::Key);
        }
        assert_eq!(HolderKey::from_pem(b"no key").unwrap_err(), HolderKeyError::Pem);
    }

    #[test]
    fn debug_output_shows_the_public_half_only() {
        let key = HolderKey::generate().unwrap();
        assert_eq!(format!("{key:?}"), format!("HolderKey({})", key.thumbprint()));
    }
}
