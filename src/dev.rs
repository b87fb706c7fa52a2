//! Throw-away trust domains for trying things out: a certificate authority, X.509-SVIDs and keys of two agents, an
//! orchestrator, an operator and a resource server; an authority of JWT-SVIDs, with the key of an agent that has no
//! certificate; a sample configuration with the starter policies, and `endpoints.json` that says where everything is.
//! Nothing of it is meant to outlive the folder it is in.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use brevet_core::spiffe_id::{InvalidSpiffeId, SpiffeId, TrustDomain};
use brevet_core::time::Timestamp;
use brevet_identity::key::{InvalidKey, PublicKey};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, date_time_ymd, string::Ia5String,
};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// The trust domain of the throw-away workloads.
pub const WORKLOADS: &str = "workloads.dev.example";
/// The trust domain of throw-away workloads that have JWT-SVIDs and no certificates.
pub const FUNCTIONS: &str = "functions.dev.example";
/// The trust domain of the throw-away broker.
pub const BROKER: &str = "broker.dev.example";

/// The identities that are made: name and path.
pub const IDENTITIES: [(&str, &str); 5] = [
    ("agent-a", "/agent/a"),
    ("agent-b", "/agent/b"),
    ("orchestrator", "/orchestrator"),
    ("operator", "/operator/olivia"),
    ("resource-server", "/resource-server"),
];

/// The identities without a certificate: name and path.
pub const BEARERS: [(&str, &str); 1] = [("agent-c", "/agent/c")];

/// The file with the bundle of the authority of JWT-SVIDs.
pub const FUNCTIONS_BUNDLE: &str = "functions.json";
/// The name of the authority's key in it.
pub const FUNCTIONS_KID: &str = "functions";
/// The file with that private key, which `brevet dev-token` signs with.
const FUNCTIONS_KEY: &str = "functions.key";
/// How long a JWT-SVID lives: as long as the daemon takes one by default.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60);

/// How long the throw-away identities live.
const LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// How far back they begin, so that another machine's clock may be a little behind.
const BACKDATED: Duration = Duration::from_secs(60);

/// The configuration, with the addresses left open.
const CONFIGURATION: &str = include_str!("../deploy/dev.toml");

/// The starter policies, as they are in `deploy/policies`.
const POLICIES: &[(&str, &str)] = &[
    ("create-task.cedar", include_str!("../deploy/policies/create-task.cedar")),
    ("delegate-task.cedar", include_str!("../deploy/policies/delegate-task.cedar")),
    ("guards.cedar", include_str!("../deploy/policies/guards.cedar")),
    ("issue-credential.cedar", include_str!("../deploy/policies/issue-credential.cedar")),
    ("operate.cedar", include_str!("../deploy/policies/operate.cedar")),
];

/// Why the folder could not be made.
#[derive(Debug, Error)]
pub enum DevError {
    /// A file or folder could not be written.
    #[error("cannot write {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file does not hold a P-256 key in PKCS#8.
    #[error("no P-256 key in PKCS#8 PEM in {0}")]
    NoKey(PathBuf),
    /// A key that was made is none that tokens are verified with.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// A certificate could not be made.
    #[error("a certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// A name is not a SPIFFE ID.
    #[error(transparent)]
    Name(#[from] InvalidSpiffeId),
    /// The operating system gives no randomness.
    #[error("no randomness")]
    Randomness,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct DevDirectory {
    /// The folder.
    pub path: PathBuf,
    /// The configuration file in it.
    pub config: PathBuf,
}

/// Makes the folder's content. What is there already stays as it is, so that a second start goes on with the first
/// one's identities.
///
/// # Errors
/// [`DevError`].
pub fn make(
    path: &Path,
    grpc: SocketAddr,
    http: SocketAddr,
    now: Timestamp,
    rng: &SystemRandom,
) -> Result<DevDirectory, DevError> {
    let made = DevDirectory { path: path.to_owned(), config: path.join("brevet.toml") };
    if made.config.exists() {
        return Ok(made);
    }
    directory(path)?;
    directory(&path.join("policies"))?;
    for (name, text) in POLICIES {
        write(&path.join("policies").join(name), text.as_bytes(), 0o644)?;
    }
    make_identities(path, now, rng)?;
    make_bearers(path)?;
    let configuration = CONFIGURATION
        .replace("127.0.0.1:7443", &grpc.to_string())
        .replace("127.0.0.1:7080", &http.to_string());
    // Last, because its presence says that all the rest is there.
    write(&made.config, configuration.as_bytes(), 0o644)?;
    Ok(made)
}

fn make_identities(path: &Path, now: Timestamp, rng: &SystemRandom) -> Result<(), DevError> {
    let trust_domain: TrustDomain = WORKLOADS.parse()?;
    let root = SpiffeId::new(&trust_domain, "")?;
    let mut params = certificate(&root, "throw-away authority", now, rng)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    write(&path.join("workloads.pem"), authority.pem().as_bytes(), 0o644)?;
    for (name, id_path) in IDENTITIES {
        let spiffe_id = SpiffeId::new(&trust_domain, id_path)?;
        let mut params = certificate(&spiffe_id, name, now, rng)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = key(&path.join(format!("{name}.key")))?;
        let leaf = params.signed_by(&key, &authority)?;
        write(&path.join(format!("{name}.pem")), leaf.pem().as_bytes(), 0o644)?;
    }
    Ok(())
}

fn make_bearers(path: &Path) -> Result<(), DevError> {
    let authority = key(&path.join(FUNCTIONS_KEY))?;
    let mut jwk = PublicKey::from_spki(&authority.subject_public_key_info())?.to_jwk();
    jwk.insert("kid".to_owned(), FUNCTIONS_KID.into());
    jwk.insert("use".to_owned(), "jwt-svid".into());
    let bundle = json!({ "keys": [jwk] }).to_string();
    write(&path.join(FUNCTIONS_BUNDLE), bundle.as_bytes(), 0o644)?;
    for (name, _) in BEARERS {
        key(&path.join(format!("{name}.key")))?;
    }
    Ok(())
}

/// Makes a key and keeps it.
fn key(path: &Path) -> Result<KeyPair, DevError> {
    let key = KeyPair::generate()?;
    let pem = Zeroizing::new(key.serialize_pem());
    write(path, pem.as_bytes(), 0o600)?;
    Ok(key)
}

/// Signs a JWT-SVID of a workload without a certificate, for a broker whose tokens' issuer is `audience`.
///
/// # Errors
/// [`DevError`].
pub fn jwt_svid(
    path: &Path,
    spiffe_id: &SpiffeId,
    audience: &str,
    now: Timestamp,
    rng: &SystemRandom,
) -> Result<Zeroizing<String>, DevError> {
    let path = path.join(FUNCTIONS_KEY);
    let unreadable = |source| DevError::Unreadable { path: path.clone(), source };
    let pem = Zeroizing::new(fs::read(&path).map_err(unreadable)?);
    let mut der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| DevError::NoKey(path.clone()))?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), rng);
    der.zeroize();
    let key = key.map_err(|_| DevError::NoKey(path.clone()))?;
    let mut id = [0; 16];
    rng.fill(&mut id).map_err(|_| DevError::Randomness)?;
    let header = json!({"alg": "ES256", "kid": FUNCTIONS_KID, "typ": "JWT"});
    let claims = json!({
        "sub": spiffe_id, "aud": audience,
        "iat": now.seconds(), "exp": now.after(TOKEN_LIFETIME).seconds(),
        "jti": format!("{:032x}", u128::from_be_bytes(id)),
    });
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = key.sign(rng, signed.as_bytes()).map_err(|_| DevError::Randomness)?;
    Ok(Zeroizing::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
}

fn certificate(
    id: &SpiffeId,
    name: &str,
    now: Timestamp,
    rng: &SystemRandom,
) -> Result<CertificateParams, DevError> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    let uri = Ia5String::try_from(id.as_str())?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    let (epoch, now) = (date_time_ymd(1970, 1, 1), Duration::from_secs(now.seconds()));
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + now + LIFETIME;
    let mut serial = [0; 16];
    rng.fill(&mut serial).map_err(|_| DevError::Randomness)?;
    if let Some(first) = serial.first_mut() {
        // A serial number is positive (RFC 5280 §4.1.2.2).
        *first = *first & 0x7f | 0x01;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn directory(path: &Path) -> Result<(), DevError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(DevError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), DevError> {
    let error = |source| DevError::Io { path: path.to_owned(), source };
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .map_err(error)?;
    io::Write::write_all(&mut file, content).map_err(error)
}
