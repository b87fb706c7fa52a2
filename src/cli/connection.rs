//! Whom a client command talks to, and as whom.

use std::path::{Path, PathBuf};

use brevet_client::dpop::HolderKey;
use brevet_client::{Broker, Endpoints, Identity, ServerTrust, Settings, connect, connect_local};
use brevet_core::spiffe_id::SpiffeId;
use clap::Args;
use tokio::runtime;

use super::Exit;
use super::exit::{Failure, Usage};
use super::output::Format;
use super::secret;

/// What every client command takes.
#[derive(Debug, Args)]
pub(super) struct Client {
    #[command(flatten)]
    connection: Connection,
    /// The form of the answer.
    #[arg(
        short = 'o',
        long = "output",
        global = true,
        value_enum,
        value_name = "FORM",
        default_value = "table"
    )]
    output: Format,
}

/// The options of a connection: a folder of `brevet dev` and a name in it, or everything one by one.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
struct Connection {
    /// The folder that `brevet dev` wrote.
    #[arg(long, global = true, value_name = "DIR", env = "BREVET_DIR")]
    dir: Option<PathBuf>,
    /// The name of the identity in that folder.
    #[arg(id = "as", long = "as", global = true, value_name = "NAME", env = "BREVET_AS")]
    identity: Option<String>,
    /// The broker's gRPC listener, https://{host}:{port}.
    #[arg(long, global = true, value_name = "URL", env = "BREVET_ENDPOINT")]
    endpoint: Option<String>,
    /// The caller's X.509-SVID, PEM, leaf first.
    #[arg(long, global = true, value_name = "FILE", env = "BREVET_CERT")]
    cert: Option<PathBuf>,
    /// The caller's token instead of an X.509-SVID: a JWT-SVID, or one of a configured issuer. It is read for each call.
    #[arg(long, global = true, value_name = "FILE", env = "BREVET_TOKEN")]
    token: Option<PathBuf>,
    /// The private key of the X.509-SVID, or the P-256 key to bind the token to, PEM.
    #[arg(long, global = true, value_name = "FILE", env = "BREVET_KEY")]
    key: Option<PathBuf>,
    /// The certificate authorities of the broker's trust domain, PEM.
    #[arg(long, global = true, value_name = "FILE", env = "BREVET_BUNDLE")]
    bundle: Option<PathBuf>,
    /// The broker's SPIFFE ID.
    #[arg(long, global = true, value_name = "SPIFFEID", env = "BREVET_SERVER_ID")]
    server_id: Option<SpiffeId>,
}

/// A connection, and where it leads.
pub(super) struct Session {
    /// The broker.
    pub(super) broker: Broker,
    /// Its URL, without a slash at its end.
    pub(super) endpoint: String,
    /// The file with the caller's own key; none at the root socket.
    pub(super) key: Option<PathBuf>,
    /// The form of the answer.
    pub(super) output: Format,
}

impl Client {
    /// Connects and does one thing.
    pub(super) fn run(&self, command: impl AsyncFnOnce(Session) -> Result<(), Failure>) -> Exit {
        self.run_at(None, command)
    }

    /// The same over the local root socket, if there is to be one.
    pub(super) fn run_at(
        &self,
        root_socket: Option<&Path>,
        command: impl AsyncFnOnce(Session) -> Result<(), Failure>,
    ) -> Exit {
        let outcome = runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::from);
        let outcome = outcome.and_then(|runtime| {
            runtime.block_on(async {
                let session = match root_socket {
                    Some(path) => Session {
                        broker: connect_local(path, &Settings::default()).await?,
                        endpoint: path.display().to_string(),
                        key: None,
                        output: self.output,
                    },
                    None => self.connection.connect(self.output).await?,
                };
                command(session).await
            })
        });
        outcome.map_or_else(|failure| failure.report(), |()| Exit::Ok)
    }
}

/// The options, once they fit together.
#[derive(Debug, PartialEq, Eq)]
enum Target<'a> {
    Folder(&'a Path, &'a str),
    Each { endpoint: &'a str, own: Own<'a>, key: &'a Path, bundle: &'a Path, server: &'a SpiffeId },
}

/// What says who the caller is.
#[derive(Debug, PartialEq, Eq)]
enum Own<'a> {
    Certificate(&'a Path),
    Token(&'a Path),
}

impl Connection {
    fn target(&self) -> Result<Target<'_>, Usage> {
        let Self { dir, identity, endpoint, cert, token, key, bundle, server_id } = self;
        let own = match (cert, token) {
            (Some(cert), None) => Some(Own::Certificate(cert)),
            (None, Some(token)) => Some(Own::Token(token)),
            _ => None,
        };
        match (dir, identity, endpoint, own, key, bundle, server_id) {
            (Some(dir), Some(identity), None, None, None, None, None) => Ok(Target::Folder(dir, identity)),
            (None, None, Some(endpoint), Some(own), Some(key), Some(bundle), Some(server)) => {
                Ok(Target::Each { endpoint, own, key, bundle, server })
            }
            _ => Err(Usage(
                "a connection needs --dir and --as, or --endpoint, --cert or --token, --key, --bundle and \
                 --server-id, each also as BREVET_DIR, BREVET_AS and so on, and not both",
            )),
        }
    }

    async fn connect(&self, output: Format) -> Result<Session, Failure> {
        let (broker, endpoint, key) = match self.target()? {
            Target::Folder(dir, identity) => {
                let endpoints = Endpoints::read(dir)?;
                let key = endpoints.key(identity).map(Path::to_owned);
                (endpoints.connect(identity).await?, endpoints.grpc, key)
            }
            Target::Each { endpoint, own, key, bundle, server } => {
                let identity = match own {
                    Own::Certificate(cert) => Identity::load(cert, key)?,
                    Own::Token(token) => {
                        Identity::token(token, HolderKey::from_pem(secret::read(key)?.as_bytes())?)
                    }
                };
                let trust = ServerTrust::load(bundle, server.clone())?;
                let broker = connect(endpoint, &identity, &trust, &Settings::default()).await?;
                (broker, endpoint.to_owned(), Some(key.to_owned()))
            }
        };
        Ok(Session { broker, endpoint: endpoint.trim_end_matches('/').to_owned(), key, output })
    }
}
