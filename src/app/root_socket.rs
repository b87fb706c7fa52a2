//! The local root socket: the way to the emergency stop that no policy, certificate or lock can close.

use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use super::StartError;
use crate::broker::Broker;
use crate::config::Config;
use crate::grpc;
use crate::net::{Counters, Endpoint, LocalListener, LocalPeer};
use crate::threads::Handles;

/// A bound root socket.
pub(super) struct RootSocket {
    path: PathBuf,
    listener: LocalListener,
    endpoint: Endpoint,
}

impl RootSocket {
    /// Binds it, unless somebody else could have put it there or could put something in its place.
    pub(super) fn bind(
        config: &Config,
        broker: &Arc<Broker>,
        counters: Arc<Counters>,
        threads: &Handles,
    ) -> Result<Self, StartError> {
        let path = config.root_socket();
        let _registered_there = threads.root.enter();
        let listener =
            LocalListener::bind(&path).map_err(|source| StartError::Root { path: path.clone(), source })?;
        let routes = grpc::root_routes(broker, &config.grpc, &threads.everybody);
        Ok(Self { path, listener, endpoint: Endpoint { routes, limits: config.root_limits(), counters } })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until `shutdown` completes, and leaves nothing behind.
    pub(super) async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self { path, listener, endpoint } = self;
        endpoint.serve_local(listener, |peer: LocalPeer| peer, shutdown).await;
        match fs::remove_file(&path) {
            Err(problem) if problem.kind() != io::ErrorKind::NotFound => {
                warn!(%problem, path = %path.display(), "the root socket could not be removed");
            }
            _ => {}
        }
    }
}
