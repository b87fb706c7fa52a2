//! What each call shows of a client whose connection shows nothing: its token, and a proof of the key that the token is
//! bound to (RFC 9449 §7).

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use brevet_core::time::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::time_provider::TimeProvider;
use tonic::Status;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::transport::Channel;
use tower::Service;

use crate::dpop::{HolderKey, Proof, prove};

/// A token in a file and the key that is proven with it.
pub(crate) struct Token {
    path: PathBuf,
    key: HolderKey,
}

impl Token {
    pub(crate) const fn new(path: PathBuf, key: HolderKey) -> Self {
        Self { path, key }
    }

    /// Adds to a call what proves its caller.
    fn show<B>(&self, shown: &Shown, request: &mut Request<B>) -> Result<(), Status> {
        let problem = |what: &str| Status::unauthenticated(format!("the token cannot be shown: {what}"));
        let token = fs::read_to_string(&self.path).map_err(|error| problem(&error.to_string()))?;
        let token = token.trim_ascii();
        let now = shown.time.current_time().ok_or_else(|| problem("no time from the system"))?;
        let mut id = [0; 16];
        SystemRandom::new().fill(&mut id).map_err(|_| problem("no randomness from the system"))?;
        let url = format!("{}{}", shown.origin, request.uri().path());
        let proof = prove(
            &self.key,
            &Proof {
                method: "POST",
                url: &url,
                issued_at: Timestamp::from_seconds(now.as_secs()),
                id: &format!("{:032x}", u128::from_be_bytes(id)),
                access_token: Some(token),
            },
        );
        let proof = proof.map_err(|error| problem(&error.to_string()))?;
        let secret = |text: String| {
            let value = HeaderValue::try_from(text).map_err(|_| problem("not visible ascii"));
            value.map(|mut value| {
                value.set_sensitive(true);
                value
            })
        };
        request.headers_mut().insert(AUTHORIZATION, secret(format!("Bearer {token}"))?);
        request.headers_mut().insert("dpop", secret(proof)?);
        Ok(())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The calls over one connection.
#[derive(Debug, Clone)]
pub struct Calls {
    channel: Channel,
    shown: Option<Shown>,
}

/// What is shown with each call.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) token: Arc<Token>,
    /// The broker's URL that proofs are for, without a slash at its end.
    pub(crate) origin: Arc<str>,
    /// What proofs are dated by.
    pub(crate) time: Arc<dyn TimeProvider>,
}

impl Calls {
    pub(crate) const fn new(channel: Channel, shown: Option<Shown>) -> Self {
        Self { channel, shown }
    }
}

impl Service<Request<tonic::body::Body>> for Calls {
    type Response = Response<tonic::body::Body>;
    type Error = tonic::codegen::StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<tonic::body::Body>) -> Self::Future {
        let shown = self.shown.as_ref().map_or(Ok(()), |shown| shown.token.show(shown, &mut request));
        if let Err(status) = shown {
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        let call = self.channel.call(request);
        Box::pin(async move { call.await.map_err(Into::into) })
    }
}
