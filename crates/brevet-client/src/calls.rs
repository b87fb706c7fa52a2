//! What each call shows of a client whose connection shows nothing: its token, and a proof of the key that the token is
//! bound to (RFC 9449 §7).

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use brevet_core::time::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
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
    fn show<B>(&self, origin: &str, request: &mut Request<B>) -> Result<(), Status> {
        let problem = |what: &str| Status::unauthenticated(format!("the token cannot be shown: {what}"));
        let token = fs::read_to_string(&self.path).map_err(|error| problem(&error.to_string()))?;
        let token = token.trim_ascii();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| problem("the clock"))?;
        let mut id = [0; 16];
        SystemRandom::new().fill(&mut id).map_err(|_| problem("no randomness from the system"))?;
        let url = format!("{origin}{}", request.uri().path());
        let proof = prove(
            &self.key,
            &Proof {
                method: "POST",
                url: &url,
                issued_at: Timestamp::EPOCH.after(since),
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
    token: Option<Shown>,
}

/// What is shown, and the broker's URL that its proofs are for, without a slash at its end.
pub(crate) type Shown = (Arc<Token>, Arc<str>);

impl Calls {
    pub(crate) const fn new(channel: Channel, token: Option<Shown>) -> Self {
        Self { channel, token }
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
        let shown = self.token.as_ref().map_or(Ok(()), |(token, origin)| token.show(origin, &mut request));
        if let Err(status) = shown {
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        let call = self.channel.call(request);
        Box::pin(async move { call.await.map_err(Into::into) })
    }
}
