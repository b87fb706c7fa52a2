//! What the resource server was told of endings: a picture that it draws from the broker's stream of revocations, and
//! relies on for two seconds at most.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use brevet_client::endpoints::Endpoints;
use brevet_client::watch::{Distrusted, Event, Watching, watch};
use brevet_client::{Identity, ServerTrust, Settings, connect};
use brevet_core::name::AudienceName;
use brevet_core::time::Timestamp;
use brevet_identity::jwk_set::JwkSet;
use brevet_verify::{Death, Picture, Standing, Verified};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::{Refused, notify};
use crate::clock::since_boot;
use crate::demo::Problem;
use crate::demo::message::Notice;

/// How long the picture is relied on without progress: a strict verifier's bound.
const STALENESS_MAX: Duration = Duration::from_secs(2);
/// How long it waits at most before it connects again: well within that bound.
const RETRY_MAX: Duration = Duration::from_millis(250);

/// A picture that a task of its own draws.
#[derive(Clone)]
pub(super) struct Following {
    picture: Arc<Mutex<Picture>>,
    progressed: Arc<Notify>,
}

impl Following {
    /// Follows the endings of some audiences, with the broker's keys of bookmarks. It returns when everything that
    /// ended so far was told.
    pub(super) async fn start(
        endpoints: &Endpoints,
        keys: JwkSet,
        audiences: Vec<AudienceName>,
    ) -> Result<Self, Problem> {
        let files = endpoints.identity("resource-server")?;
        let identity = Arc::new(Identity::load(&files.cert, &files.key)?);
        let trust = Arc::new(ServerTrust::load(&files.bundle, endpoints.server_spiffe_id.clone())?);
        let address: Arc<str> = endpoints.grpc.as_str().into();
        let broker = move || {
            let (address, identity, trust) =
                (Arc::clone(&address), Arc::clone(&identity), Arc::clone(&trust));
            async move { connect(&address, &identity, &trust, &Settings::default()).await }
        };
        let following =
            Self { picture: Arc::new(Mutex::new(Picture::new(keys.clone()))), progressed: Arc::default() };
        let watching = Watching { audiences, retry_max: RETRY_MAX, ..Watching::default() };
        let drawn = following.clone();
        tokio::spawn(async move { watch(&watching, broker, |event| drawn.tell(event, &keys)).await });
        following.progressed.notified().await;
        Ok(following)
    }

    fn picture(&self) -> MutexGuard<'_, Picture> {
        self.picture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: Event, keys: &JwkSet) -> Result<(), Distrusted> {
        match event {
            Event::Anew => {
                *self.picture() = Picture::new(keys.clone());
                // Whoever does not hear of it sees the refusals of an empty picture.
                let _unheard = notify(&Notice::Anew);
            }
            Event::Asking(nonce) => self.picture().asking(nonce, since_boot()),
            Event::Endings(endings) => self.picture().apply(&endings),
            Event::Bookmark(bookmark) => {
                self.picture().bookmark(&bookmark).map_err(|problem| {
                    warn!(reason = problem.reason(), "the broker is not the one that it was");
                    Distrusted
                })?;
                self.progressed.notify_one();
            }
            Event::Lost(problem) => info!(%problem, "the stream of revocations is begun again"),
        }
        Ok(())
    }

    /// Whether a token's lease lives, as far as was told, and that is recent enough.
    pub(super) fn judge(&self, token: &Verified, wall: Timestamp) -> Result<(), Refused> {
        match self.picture().judge(token, STALENESS_MAX, since_boot(), wall) {
            Standing::Live => Ok(()),
            Standing::Dead(Death::Expired) => Err(Refused::Expired),
            Standing::Dead(Death::Task(..) | Death::Lease(_)) => Err(Refused::Ended),
            Standing::Stale => Err(Refused::LivenessUnknown),
        }
    }
}
