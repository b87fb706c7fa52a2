//! The floor: the least that does the unavoidable work. A call over mutual TLS that carries as many bytes and means
//! nothing, one signature, one verification, one digest, one record forced to the disk.

use std::convert::Infallible;
use std::fs::{self, File};
use std::future::{Ready, ready};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use brevet::clock::since_boot;
use brevet::dev::{BROKER, WORKLOADS};
use brevet::net::{Admitted, Counters, Endpoint, NetLimits, TlsPeer};
use brevet_identity::tls::{self, Certificates};
use brevet_identity::trust::{Bundle, CallerTrust};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair as RcgenKeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::time_provider::DefaultTimeProvider;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::cpu::{float, own_nanos};
use crate::process::tell;
use crate::{Failure, world};

/// The one method.
pub(crate) const ECHO: &str = "/floor.Floor/Echo";

/// A SPIFFE ID as long as a task's.
const LEAF_ID: &str =
    "spiffe://broker.dev.example/agent/workloads.dev.example/agent/a/task/00000000000000000000000000";

/// The file that records are forced to, already as long as it will be, so that the file system has nothing to note.
const LOG_BYTES: usize = 4 << 20;

/// Serves the echo until the process is ended. It listens, speaks TLS and checks peers as the daemon does, by the
/// same code, under another identity.
pub(crate) fn serve(dir: &Path) -> Result<(), Failure> {
    let chain = CertificateDer::pem_file_iter(dir.join(format!("{}.pem", world::FLOOR)))?;
    let chain = chain.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(dir.join(format!("{}.key", world::FLOOR)))?;
    let workloads = Bundle::from_pem(&fs::read(dir.join("workloads.pem"))?)?;
    let trust = Arc::new(CallerTrust::new(BROKER.parse()?, [(WORKLOADS.parse()?, workloads)])?);
    let callers: tls::TrustSource<_> = Arc::new(move || Arc::clone(&trust));
    let (required, time) = (Certificates::Required, Arc::new(DefaultTimeProvider));
    let config = tls::server_config(chain, key, required, callers, Arc::new(|_| ()), time)?;
    let endpoint = Endpoint {
        routes: Routes::new(Echo).prepare().into_axum_router(),
        limits: NetLimits { connection_age_max: world::CONNECTION_AGE, ..NetLimits::default() },
        counters: Arc::new(Counters::new("floor")),
    };
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        tell(Ok(format!("https://{}", listener.local_addr()?)))?;
        // Its certificate was checked by the handshake: the caller is known.
        let admit = |peer: TlsPeer| {
            peer.probation.pass(Duration::MAX);
            Admitted { extension: (), age_max: world::CONNECTION_AGE, lane: None }
        };
        endpoint
            .serve_tls(listener, Arc::new(ArcSwap::from_pointee(config)), admit, std::future::pending())
            .await;
        Ok(())
    })
}

/// A request whose message has this many bytes on the wire, and asks for an answer of so many.
pub(crate) fn payload(request_bytes: usize, answer_bytes: usize) -> Vec<u8> {
    let answer = u32::try_from(content(answer_bytes)).unwrap_or(u32::MAX);
    let mut payload = answer.to_be_bytes().to_vec();
    payload.resize(content(request_bytes).max(payload.len()), 0);
    payload
}

/// The content of a message of one field of bytes: a tag goes off, and a length of one byte or two.
const fn content(message_bytes: usize) -> usize {
    message_bytes.saturating_sub(if message_bytes < 130 { 2 } else { 3 })
}

/// Answers with as many bytes as it is asked for.
#[derive(Debug, Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "floor.Floor";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async { Ok(Grpc::new(ProstCodec::default()).unary(Answer, request).await) })
    }
}

struct Answer;

impl UnaryService<Vec<u8>> for Answer {
    type Response = Vec<u8>;
    type Future = Ready<Result<Response<Vec<u8>>, Status>>;

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        let length = request.into_inner().first_chunk().map_or(0, |length| u32::from_be_bytes(*length));
        // A request's window bounds what anyone may ask for here.
        ready(Ok(Response::new(vec![0; usize::try_from(length.min(65_536)).unwrap_or(0)])))
    }
}

/// What the loops work on.
#[derive(Debug)]
pub(crate) struct Loops {
    key: EcdsaKeyPair,
    rng: SystemRandom,
    log: File,
    path: PathBuf,
    at: u64,
}

/// What a record forced to the disk costs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forced {
    /// Nanoseconds of CPU time, the mean.
    pub(crate) cpu: f64,
    /// Nanoseconds on the wall, the median.
    pub(crate) wall_p50: f64,
}

impl Loops {
    /// Makes the key, and the file in a folder.
    pub(crate) fn new(dir: &Path) -> Result<Self, Failure> {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng)
            .map_err(|_| "no key could be made")?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &rng)
            .map_err(|_| "the key could not be read")?;
        let path = dir.join("floor.log");
        fs::write(&path, vec![0; LOG_BYTES])?;
        let log = File::options().write(true).open(&path)?;
        log.sync_all()?;
        Ok(Self { key, rng, log, path, at: 0 })
    }

    /// Nanoseconds of CPU time for one ES256 signature over so many bytes.
    pub(crate) fn sign(&self, bytes: usize, times: u64) -> Result<f64, Failure> {
        let message = vec![0x5a; bytes];
        repeat(times, || {
            let signed = self.key.sign(&self.rng, std::hint::black_box(&message));
            signed.map(drop).map_err(|_| "the key does not sign".into())
        })
    }

    /// Nanoseconds of CPU time for the verification of one ES256 signature over so many bytes.
    pub(crate) fn verify(&self, bytes: usize, times: u64) -> Result<f64, Failure> {
        let message = vec![0x5a; bytes];
        let signature = self.key.sign(&self.rng, &message).map_err(|_| "the key does not sign")?;
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key());
        repeat(times, || {
            let verified = public.verify(std::hint::black_box(&message), signature.as_ref());
            verified.map_err(|_| "the signature does not verify".into())
        })
    }

    /// Nanoseconds of CPU time for a leaf certificate like a task's, made and signed by rcgen.
    pub(crate) fn leaf(&self, times: u64) -> Result<f64, Failure> {
        let (mut authority, mut leaf) = (CertificateParams::default(), CertificateParams::default());
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = Issuer::new(authority, RcgenKeyPair::generate()?);
        let holder = RcgenKeyPair::generate()?;
        leaf.subject_alt_names = vec![SanType::URI(LEAF_ID.try_into()?)];
        leaf.serial_number = Some(SerialNumber::from_slice(&[0x5a; 16]));
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        leaf.use_authority_key_identifier_extension = true;
        repeat(times, || {
            std::hint::black_box(std::hint::black_box(&leaf).signed_by(&holder, &authority)?);
            Ok(())
        })
    }

    /// Nanoseconds of CPU time for the SHA-256 of a record.
    pub(crate) fn digest(record: &[u8], times: u64) -> Result<f64, Failure> {
        repeat(times, || {
            std::hint::black_box(digest(&SHA256, std::hint::black_box(record)));
            Ok(())
        })
    }

    /// What one write of a record and one `fdatasync` cost.
    pub(crate) fn force(&mut self, record: &[u8], times: u64) -> Result<Forced, Failure> {
        let length = u64::try_from(record.len())?;
        let mut walls: Vec<Duration> = Vec::new();
        let cpu = repeat(times, || {
            if self.at + length > u64::try_from(LOG_BYTES)? {
                self.at = 0;
            }
            let start = since_boot();
            self.log.write_all_at(record, self.at)?;
            self.log.sync_data()?;
            walls.push(since_boot().saturating_sub(start));
            self.at += length;
            Ok(())
        })?;
        walls.sort_unstable();
        let p50 = walls.get(walls.len() / 2).ok_or("nothing was written")?;
        Ok(Forced { cpu, wall_p50: p50.as_secs_f64() * 1e9 })
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        // The folder goes anyway, unless it was kept to be looked at.
        let _gone = fs::remove_file(&self.path);
    }
}

/// Nanoseconds of this thread's CPU time for one turn.
fn repeat(times: u64, mut turn: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let start = own_nanos()?;
    for _ in 0..times {
        turn()?;
    }
    Ok(float(own_nanos()?.saturating_sub(start)) / float(times))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn a_payload_is_as_long_on_the_wire_as_the_message_it_stands_for() {
        for bytes in [127, 200, 2_000] {
            assert_eq!(payload(bytes, 900).encoded_len(), bytes);
        }
    }
}
