//! Tokens that callers show instead of a certificate: whose they are, and by what they are remembered.

use std::time::Duration;

use brevet_core::digest::BearerDigest;
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::time::Timestamp;

use crate::bearer::{AGE_MAX, Bearer, BearerError, LEEWAY_MAX, Limits, Rules};
use crate::jwt_svid;
use crate::oidc;
use crate::trust::CallerTrust;

/// A workload's token that holds for this broker. It proves its caller once it is bound to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerToken {
    /// The workload.
    pub spiffe_id: SpiffeId,
    /// What else it says.
    pub bearer: Bearer,
    /// By what it is known again.
    pub digest: BearerDigest,
    /// From when on it proves nothing any more: its end, or the end of its youth.
    pub until: Timestamp,
    /// From when on it would prove nothing under any limits that there may be, so that what is known of it can be
    /// forgotten.
    pub remembered_until: Timestamp,
}

/// Verifies a token by what callers are trusted by. One that names a configured issuer is that issuer's; every other one
/// has to be a JWT-SVID.
///
/// # Errors
/// [`BearerError`] names the first check that failed.
pub fn verify(
    token: &str,
    trust: &CallerTrust,
    audience: &str,
    now: Timestamp,
    limits: Limits,
) -> Result<CallerToken, BearerError> {
    let rules = Rules::Strict(limits);
    let issuer = oidc::claimed_issuer(token).ok().and_then(|url| trust.issuer(&url));
    let (spiffe_id, bearer) = match issuer {
        Some(issuer) => issuer.verify(token, audience, now, rules)?,
        None => {
            let own = Some(trust.own());
            let svid = jwt_svid::verify(token, trust.jwt_bundles(), own, audience, now, rules)?;
            (svid.spiffe_id, svid.bearer)
        }
    };
    let until = end_of(&bearer, limits.age_max, limits.leeway);
    let remembered_until = end_of(&bearer, AGE_MAX, LEEWAY_MAX);
    Ok(CallerToken { spiffe_id, digest: digest(token), until, remembered_until, bearer })
}

/// When a token is over under these limits. The last moment of its age still counts, its end does not.
fn end_of(bearer: &Bearer, age_max: Duration, leeway: Duration) -> Timestamp {
    let moment = Duration::from_millis(1);
    let youth = bearer.issued_at.map(|at| at.after(age_max).after(leeway).after(moment));
    let end = bearer.end.after(leeway);
    youth.map_or(end, |youth| youth.min(end))
}

/// INVARIANT: the signature is no part of it. With ECDSA whoever has one signature of a text makes another that verifies
/// as well, and would bind the same token a second time.
fn digest(token: &str) -> BearerDigest {
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    BearerDigest::of(&[signed.as_bytes()])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::jwk_set::JwkSet;
    use crate::oidc::Issuer;
    use crate::test_keys::{TestKey, jwk_set};
    use crate::trust::{Bundle, InvalidTrust};

    const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);
    const AUDIENCE: &str = "https://broker.example";
    const ISSUER: &str = "https://issuer.example";

    fn issuer(trust_domain: &str, keys: JwkSet) -> Issuer {
        let subjects = [("robot".to_owned(), "/robot".to_owned())].into();
        Issuer::new(ISSUER.to_owned(), trust_domain.parse().unwrap(), keys, &subjects).unwrap()
    }

    fn trust(svids: &TestKey, tokens: &TestKey) -> CallerTrust {
        let mut jwk = svids.jwk("s");
        jwk.insert("use".into(), "jwt-svid".into());
        let bundle = Bundle::from_spiffe_json(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
        let trust =
            CallerTrust::new("own.example".parse().unwrap(), [("td.example".parse().unwrap(), bundle)]);
        trust.unwrap().with_issuers([issuer("people.example", jwk_set(&[("t", tokens)]))]).unwrap()
    }

    #[test]
    fn a_token_is_its_issuer_s_or_a_jwt_svid() {
        let (svids, tokens) = (TestKey::p256(), TestKey::p256());
        let trust = trust(&svids, &tokens);
        let now = NOW.seconds();
        let judge = |key: &TestKey, kid: &str, sub: &str, iss: Option<&str>| {
            let mut claims = json!({"sub": sub, "aud": AUDIENCE, "iat": now, "exp": now + 300});
            if let Some(iss) = iss {
                claims["iss"] = json!(iss);
            }
            let token = key.jws(&json!({"alg": "ES256", "kid": kid}).to_string(), &claims.to_string());
            verify(&token, &trust, AUDIENCE, NOW, Limits::default())
                .map(|token| (token.spiffe_id.to_string(), token.until.since(NOW).as_millis()))
                .map_err(BearerError::reason)
        };
        let svid = "spiffe://td.example/agent";
        assert_eq!(judge(&svids, "s", svid, None), Ok((svid.to_owned(), 60_001)));
        assert_eq!(
            judge(&svids, "s", svid, Some("https://spire.example")).map(|it| it.0).as_deref(),
            Ok(svid)
        );
        let robot = judge(&tokens, "t", "robot", Some(ISSUER));
        assert_eq!(robot, Ok(("spiffe://people.example/robot".to_owned(), 60_001)));
        // Each may speak for its own alone.
        assert_eq!(judge(&tokens, "t", "another", Some(ISSUER)), Err("sub_mismatch"));
        assert_eq!(judge(&tokens, "t", svid, Some(ISSUER)), Err("sub_mismatch"));
        assert_eq!(judge(&tokens, "t", svid, None), Err("kid_unknown"));
        assert_eq!(judge(&svids, "s", "robot", Some(ISSUER)), Err("kid_unknown"));
        assert_eq!(judge(&svids, "s", "spiffe://people.example/robot", None), Err("sub_mismatch"));
        assert_eq!(judge(&tokens, "t", "robot", Some("https://other.example")), Err("sub_mismatch"));
        assert_eq!(judge(&svids, "s", "spiffe://own.example/brevet", None), Err("own_credential"));
    }

    #[test]
    fn another_signature_of_the_same_token_is_the_same_token() {
        let key = TestKey::p256();
        let claims = json!({"sub": "spiffe://td.example/a"}).to_string();
        let (one, other) = (key.jws("{}", &claims), key.jws("{}", &claims));
        assert_ne!(one, other);
        assert_eq!(digest(&one), digest(&other));
        assert_ne!(digest(&one), digest(&key.jws("{}", "{}")));
    }

    #[test]
    fn an_issuer_has_a_trust_domain_of_its_own() {
        let key = TestKey::p256();
        let (trust, keys) = (trust(&key, &key), jwk_set(&[("t", &key)]));
        let refused = |trust_domain: &str| {
            trust.clone().with_issuers([issuer(trust_domain, keys.clone())]).map(|_| ()).unwrap_err()
        };
        assert_eq!(refused("own.example"), InvalidTrust::OwnTrustDomain);
        assert_eq!(refused("td.example"), InvalidTrust::Duplicate("td.example".parse().unwrap()));
        assert_eq!(refused("people.example"), InvalidTrust::Duplicate("people.example".parse().unwrap()));
        assert_eq!(refused("more.example"), InvalidTrust::DuplicateIssuer(ISSUER.to_owned()));
        // Whose word is taken is what the journal names.
        let other = CallerTrust::new("own.example".parse().unwrap(), []).unwrap();
        assert_ne!(other.digest(), other.clone().with_issuers([issuer("a.example", keys)]).unwrap().digest());
    }

    #[test]
    fn a_workload_is_one_subject_of_its_issuer() {
        let new = |subjects: &[(&str, &str)]| {
            let subjects = subjects.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            let keys = JwkSet::default();
            Issuer::new(ISSUER.to_owned(), "td.example".parse().unwrap(), keys, &subjects).map(|_| ())
        };
        assert_eq!(new(&[("a", "/a"), ("b", "/b")]), Ok(()));
        assert!(new(&[("a", "/a"), ("b", "/a")]).is_err(), "two subjects are one workload");
        for (subject, path) in
            [("", "/a"), ("a b", "/a"), ("a", ""), ("a", "a"), ("a", "/a/"), ("a", "/a/../b")]
        {
            assert!(new(&[(subject, path)]).is_err(), "{subject:?} {path:?}");
        }
    }
}
