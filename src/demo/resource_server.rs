//! The resource server: it serves whoever holds a live token that permits the call, and says on standard output when
//! it decided what.
//!
//! What it knows it reads itself: its own SVID, the workloads' authorities, the broker's published keys and bundle.
//! Whether a lease lives it asks the broker at each call, or follows the broker's stream of revocations. In doubt it
//! refuses, so while nobody can tell, nothing is served that a revocation could have ended.

mod following;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use brevet_api::v1::IntrospectCredentialRequest;
use brevet_client::Broker;
use brevet_client::endpoints::Endpoints;
use brevet_core::name::{ActionName, AudienceName};
use brevet_core::scope::ResourcePattern;
use brevet_core::spiffe_id::SpiffeId;
use brevet_core::time::Timestamp;
use brevet_identity::bearer::{AGE_MAX, BearerError, Limits, Rules};
use brevet_identity::jwk_set::{JWK_SET_BYTES_MAX, JwkSet};
use brevet_identity::jwt_svid::{self, JwtBundles, JwtSvid};
use brevet_identity::tls::{self, Certificates};
use brevet_identity::trust::{BUNDLE_BYTES_MAX, Bundle, CallerTrust};
use brevet_verify::{Presenter, Refusal, Verifier};
use http::{HeaderMap, StatusCode, Uri, header, request::Parts};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use self::following::Following;
use super::identity::{self, Svid};
use super::message::{Decided, LIVENESS_UNKNOWN, NAMES_ALONE, Notice, micros};
use super::{FILES, LEDGER, METRICS, Problem, STATUS};
use crate::clock::{Clock, since_boot};
use crate::grpc::Peer;
use crate::net::{Admitted, Counters, Endpoint, NetLimits, TlsPeer};
use crate::telemetry::{self, LogFormat};

/// The audiences that it serves, and how it learns that a lease has ended.
const AUDIENCES: [(&str, Liveness); 4] = [
    (FILES, Liveness::Asked),
    (LEDGER, Liveness::Watched),
    (STATUS, Liveness::SignatureAlone),
    (METRICS, Liveness::SignatureAlone),
];

/// The name by which it would refuse its own SVIDs as callers, if it minted any.
const MINTS_NOTHING: &str = "resource-server.dev.example";

/// How a lease is known to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Liveness {
    /// The broker is asked at each call.
    Asked,
    /// The broker's stream of revocations tells.
    Watched,
    /// Not at all: the token's short life has to do.
    SignatureAlone,
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refused {
    /// The caller is not known.
    Stranger(&'static str),
    /// The call names no audience of this server, no resource or no action.
    Malformed,
    /// There is no token.
    NoToken,
    /// The token is not acceptable from this caller.
    Token(Refusal),
    /// A JWT-SVID of a task is not acceptable from this caller.
    Svid(BearerError),
    /// It is, and says who works on which task. That permits nothing.
    Named(SpiffeId),
    /// The token does not permit the call.
    OutOfScope,
    /// The lease has ended, says the broker.
    Inactive,
    /// The lease has ended, the stream of revocations told.
    Ended,
    /// The lease has come to its end.
    Expired,
    /// Whether the lease lives could not be learnt.
    LivenessUnknown,
}

impl Refused {
    /// A stable name for the log.
    const fn reason(&self) -> &'static str {
        match self {
            Self::Stranger(reason) => reason,
            Self::Malformed => "malformed_call",
            Self::NoToken => "no_token",
            Self::Token(refusal) => refusal.reason(),
            Self::Svid(error) => error.reason(),
            Self::Named(_) => NAMES_ALONE,
            Self::OutOfScope => "out_of_scope",
            Self::Inactive => "inactive",
            Self::Ended => "ended",
            Self::Expired => "expired",
            Self::LivenessUnknown => LIVENESS_UNKNOWN,
        }
    }

    /// What the caller learns (RFC 6750 §3.1).
    const fn answer(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, r#"Bearer error="invalid_request""#),
            Self::NoToken => (StatusCode::UNAUTHORIZED, "Bearer"),
            Self::Stranger(_)
            | Self::Token(_)
            | Self::Svid(_)
            | Self::Inactive
            | Self::Ended
            | Self::Expired => (StatusCode::UNAUTHORIZED, r#"Bearer error="invalid_token""#),
            Self::OutOfScope | Self::Named(_) => {
                (StatusCode::FORBIDDEN, r#"Bearer error="insufficient_scope""#)
            }
            Self::LivenessUnknown => (StatusCode::SERVICE_UNAVAILABLE, "Bearer"),
        }
    }
}

/// Serves until standard input ends.
///
/// # Errors
/// If the identity or the broker's keys cannot be read, or the socket cannot be bound.
pub fn run(dir: &Path) -> Result<(), Problem> {
    telemetry::init("info", LogFormat::default())?;
    let runtime = Runtime::new()?;
    runtime.block_on(serve(dir))
}

async fn serve(dir: &Path) -> Result<(), Problem> {
    let endpoints = Endpoints::read(dir)?;
    let files = endpoints.identity("resource-server")?;
    let trust = Arc::new(trust(dir, &endpoints).await?);
    let callers: tls::TrustSource<_> = Arc::new(move || Arc::clone(&trust));
    let clock = Clock::system(Timestamp::EPOCH, Duration::ZERO)?;
    let server = Arc::new(Server {
        verifiers: verifiers(&endpoints).await?,
        jwt_bundles: jwt_bundles(&endpoints).await?,
        following: following(&endpoints).await?,
        broker: endpoints.connect("resource-server").await?,
        clock: clock.clone(),
    });

    let Svid { chain, key } = Svid::load(files)?;
    let tls = Arc::new(tls::server_config(
        chain,
        key,
        Certificates::Required,
        Arc::clone(&callers),
        Arc::new(|_| ()),
        clock.time_provider(),
    )?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    notify(&Notice::Listening(listener.local_addr()?.to_string()))?;
    let limits = NetLimits::default();
    let admit = move |peer: TlsPeer| Admitted {
        extension: Peer::new(peer.certificates, Arc::clone(&callers), None),
        age_max: limits.connection_age_max,
        lane: None,
    };
    let endpoint = Endpoint {
        routes: Router::new().fallback(answer).with_state(server),
        limits,
        counters: Arc::new(Counters::new("resource-server")),
    };
    endpoint.serve_tls(listener, Arc::new(ArcSwap::new(tls)), admit, input_ended()).await;
    Ok(())
}

/// Completes when whoever started the process is gone.
async fn input_ended() {
    let ended = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink()));
    // An input that cannot be read has ended as well.
    let _read = ended.await;
}

/// Whose SVIDs it accepts: the workloads' own, and those that the broker mints for their tasks.
async fn trust(dir: &Path, endpoints: &Endpoints) -> Result<CallerTrust, Problem> {
    let workloads = endpoints.identity("resource-server")?.spiffe_id.trust_domain();
    let bundle = published(&endpoints.http, "/spiffe/bundle", BUNDLE_BYTES_MAX).await?;
    let tasks = (endpoints.trust_domain.clone(), Bundle::from_spiffe_json(&bundle)?);
    Ok(CallerTrust::new(MINTS_NOTHING.parse()?, [(workloads, identity::workloads(dir)?), tasks])?)
}

/// By what it judges JWT-SVIDs, as anybody does who knows the SPIFFE standards: the bundle that the broker publishes.
async fn jwt_bundles(endpoints: &Endpoints) -> Result<JwtBundles, Problem> {
    let bundle = published(&endpoints.http, "/spiffe/bundle", BUNDLE_BYTES_MAX).await?;
    Ok([(endpoints.trust_domain.clone(), JwkSet::parse_bundle(&bundle)?)].into())
}

async fn verifiers(endpoints: &Endpoints) -> Result<BTreeMap<AudienceName, (Verifier, Liveness)>, Problem> {
    let keys = published_keys(&endpoints.http, "/oauth/jwks").await?;
    AUDIENCES
        .into_iter()
        .map(|(name, liveness)| {
            let audience = AudienceName::parse(name)?;
            let verifier = Verifier::new(endpoints.http.clone(), audience.clone(), keys.clone());
            Ok((audience, (verifier, liveness)))
        })
        .collect()
}

async fn following(endpoints: &Endpoints) -> Result<Following, Problem> {
    let watched = AUDIENCES.into_iter().filter(|(_, liveness)| *liveness == Liveness::Watched);
    let audiences = watched.map(|(name, _)| AudienceName::parse(name)).collect::<Result<_, _>>()?;
    let keys = published_keys(&endpoints.http, "/revocation/jwks").await?;
    Following::start(endpoints, keys, audiences).await
}

/// Keys that the broker publishes.
async fn published_keys(issuer: &str, path: &str) -> Result<JwkSet, Problem> {
    Ok(JwkSet::parse(&published(issuer, path, JWK_SET_BYTES_MAX).await?)?)
}

/// What the broker publishes.
async fn published(issuer: &str, path: &str, bytes_max: usize) -> Result<Bytes, Problem> {
    let url: Uri = format!("{issuer}{path}").parse()?;
    let authority = url.authority().ok_or("the issuer has no address")?.as_str();
    let stream = TcpStream::connect(authority).await?;
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = http::Request::get(url.path()).header(header::HOST, authority).body(Body::empty())?;
    let answer = requests.send_request(request).await?;
    if answer.status() != StatusCode::OK {
        return Err(format!("the broker's {path}: status {}", answer.status()).into());
    }
    Ok(axum::body::to_bytes(Body::new(answer.into_body()), bytes_max).await?)
}

struct Server {
    verifiers: BTreeMap<AudienceName, (Verifier, Liveness)>,
    jwt_bundles: JwtBundles,
    following: Following,
    broker: Broker,
    clock: Clock,
}

impl Server {
    /// Who acts, outermost first, if the call is served.
    async fn decide(
        &self,
        presenter: Presenter,
        call: &Parts,
        now: Timestamp,
    ) -> Result<Vec<String>, Refused> {
        // 1. What is wanted.
        let (audience, resource, action) = wanted(&call.uri).ok_or(Refused::Malformed)?;
        let (verifier, liveness) = self.verifiers.get(&audience).ok_or(Refused::Malformed)?;

        // 2. The broker issued the token, for this audience, to whoever calls.
        let token = bearer_token(&call.headers).ok_or(Refused::NoToken)?;
        if let Some(svid) = self.jwt_svid(token, &audience, now) {
            return Err(self.named(svid, token, &presenter).await?);
        }
        let verified = verifier.verify(token, &presenter, now).map_err(Refused::Token)?;

        // 3. It permits the call.
        if !verified.permits(&audience, &resource, &action, &BTreeMap::new()) {
            return Err(Refused::OutOfScope);
        }

        // 4. Its lease lives, last of all, so that nothing can end between here and the answer but time.
        match liveness {
            Liveness::Asked if self.is_active(token).await? => {}
            Liveness::Asked => return Err(Refused::Inactive),
            Liveness::Watched => self.following.judge(&verified, now)?,
            Liveness::SignatureAlone => {}
        }
        Ok(verified.claims().actors.iter().map(ToString::to_string).collect())
    }

    /// The JWT-SVID that a token is, if it is one of a task, for this audience.
    fn jwt_svid(&self, token: &str, audience: &AudienceName, now: Timestamp) -> Option<JwtSvid> {
        // As old as its life is long: it is a credential here, and not the first word of a caller.
        let rules = Rules::Strict(Limits { age_max: AGE_MAX, ..Limits::default() });
        jwt_svid::verify(token, &self.jwt_bundles, None, audience.as_str(), now, rules).ok()
    }

    /// Whom a JWT-SVID names, if it comes from its holder and lives.
    async fn named(&self, svid: JwtSvid, token: &str, presenter: &Presenter) -> Result<Refused, Refused> {
        let holder = svid.bearer.confirmation.ok_or(Refused::Svid(BearerError::Holder))?;
        holder.require(presenter.key, presenter.certificate).map_err(Refused::Svid)?;
        if self.is_active(token).await? { Ok(Refused::Named(svid.spiffe_id)) } else { Err(Refused::Inactive) }
    }

    async fn is_active(&self, token: &str) -> Result<bool, Refused> {
        let request = IntrospectCredentialRequest { token: token.to_owned(), min_revision: None };
        let answer = self.broker.revocations().introspect_credential(request).await;
        answer.map(|answer| answer.into_inner().active).map_err(|_| Refused::LivenessUnknown)
    }
}

async fn answer(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    let began = since_boot();
    let (call, _no_body) = request.into_parts();
    let now = server.clock.now().judge;
    let caller = peer.caller(now);
    let verdict = match &caller {
        Ok(caller) => server.decide(Presenter::from(&**caller), &call, now).await,
        Err(reason) => Err(Refused::Stranger(reason)),
    };
    let decided = since_boot();
    let (actors, refused) = match verdict {
        Ok(actors) => (actors, None),
        Err(refused) => (Vec::new(), Some(refused)),
    };
    let notice = Notice::Decided(Decided {
        at_micros: micros(decided),
        judged_at_millis: now.millis(),
        took_micros: micros(decided.saturating_sub(began)),
        caller: caller.ok().map(|caller| caller.spiffe_id().to_string()),
        actors,
        named: match &refused {
            Some(Refused::Named(spiffe_id)) => Some(spiffe_id.to_string()),
            _ => None,
        },
        refused: refused.as_ref().map(|refused| refused.reason().to_owned()),
    });
    // Whoever does not hear of a decision does not hear of this failure either.
    let _unheard = notify(&notice);
    match refused.as_ref().map(Refused::answer) {
        None => StatusCode::OK.into_response(),
        Some((status, challenge)) => (status, [(header::WWW_AUTHENTICATE, challenge)]).into_response(),
    }
}

/// The audience, the resource and the action that `https://{audience}/{resource}?action={action}` names.
fn wanted(url: &Uri) -> Option<(AudienceName, ResourcePattern, ActionName)> {
    let audience = AudienceName::parse(&format!("https://{}", url.authority()?)).ok()?;
    // A call is about one resource, never about all below one.
    let resource = url.path().strip_prefix('/').filter(|path| !path.contains('*'))?.parse().ok()?;
    let action = ActionName::parse(url.query()?.strip_prefix("action=")?).ok()?;
    Some((audience, resource, action))
}

/// The one token of a call (RFC 6750 §2.1).
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (only, None) = (values.next()?, values.next()) else { return None };
    only.to_str().ok()?.strip_prefix("Bearer ")
}

fn notify(notice: &Notice) -> Result<(), Problem> {
    let line = serde_json::to_string(notice)?;
    Ok(writeln!(io::stdout(), "{line}")?)
}
