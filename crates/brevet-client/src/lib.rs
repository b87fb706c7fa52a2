//! Connects agents, orchestrators, operators and resource servers to a broker.
//!
//! It is thin: a connection that proves both ends by their X.509-SVIDs, or a token with each call, the generated stubs, the broker's refusals,
//! and proofs of possession. What the calls mean is said in the `.proto` files of [`brevet_api`].

pub mod calls;
pub mod connect;
pub mod dpop;
pub mod endpoints;
pub mod refusal;
pub mod watch;

pub use connect::{Broker, ConnectError, Identity, ServerTrust, Settings, connect, connect_local};
pub use endpoints::Endpoints;
pub use refusal::Refusal;
pub use watch::{Watching, watch};
