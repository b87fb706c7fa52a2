//! Who is served by the threads of the emergency stop.

use std::num::NonZeroU32;
use std::sync::Arc;

use brevet_core::name::TenantName;
use brevet_core::registry::{Registry, Role};
use brevet_core::sabotage;
use brevet_core::spiffe_id::SpiffeId;
use tokio::runtime::Handle;

use crate::config::GrpcConfig;
use crate::net::Lane;
use crate::shares::Shares;

/// The threads, and room there for so many connections. Whoever floods them floods every other stop, so nobody has many,
/// and none may send much.
pub(super) struct Stops {
    runtime: Handle,
    bytes_per_second_max: NonZeroU32,
    of_callers: Arc<Shares>,
    of_tenants: Arc<Shares<TenantName>>,
}

impl Stops {
    pub(super) fn new(runtime: Handle, config: &GrpcConfig) -> Self {
        let [of_callers, of_tenants] = config.stop_connections();
        Self {
            runtime,
            bytes_per_second_max: config.stop_connection_bytes_per_second_max,
            of_callers: Shares::new(of_callers),
            of_tenants: Shares::new(of_tenants),
        }
    }

    /// Where a caller's connection is served, if not where everybody's are.
    pub(super) fn lane(&self, registry: &Registry, caller: &SpiffeId) -> Option<Lane> {
        if !registry.roles(caller).contains(&Role::Stopper) || sabotage::on("stops_stand_in_line") {
            return None;
        }
        let tenant = registry.tenant_of(caller)?;
        // Those beyond are served all the same, with everybody.
        let places = (self.of_callers.take(caller).ok()?, self.of_tenants.take(tenant).ok()?);
        Some(Lane { runtime: self.runtime.clone(), bytes_per_second_max: self.bytes_per_second_max, places })
    }
}
