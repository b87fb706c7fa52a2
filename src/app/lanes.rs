//! Which threads serve a connection once its handshake is over.

use std::num::NonZeroU32;
use std::sync::Arc;

use brevet_core::name::TenantName;
use brevet_core::registry::{Registry, Role};
use brevet_core::sabotage;
use brevet_core::spiffe_id::SpiffeId;
use tokio::runtime::Handle;

use crate::config::GrpcConfig;
use crate::net::{Lane, Room};
use crate::shares::Shares;
use crate::threads::Handles;

/// The threads of everybody, and those of the emergency stop with room for so many connections. Whoever floods those
/// floods every other stop, so nobody has many there, and none may send much.
pub(super) struct Lanes {
    everybody: Handle,
    stops: Handle,
    bytes_per_second_max: NonZeroU32,
    of_callers: Arc<Shares>,
    of_tenants: Arc<Shares<TenantName>>,
}

impl Lanes {
    pub(super) fn new(threads: &Handles, config: &GrpcConfig) -> Self {
        let [of_callers, of_tenants] = config.stop_connections();
        Self {
            everybody: threads.everybody.clone(),
            stops: threads.stops.clone(),
            bytes_per_second_max: config.stop_connection_bytes_per_second_max,
            of_callers: Shares::new(of_callers),
            of_tenants: Shares::new(of_tenants),
        }
    }

    /// Where everybody's connections are served.
    pub(super) fn everybody(&self) -> Lane {
        Lane { runtime: self.everybody.clone(), room: None }
    }

    /// Where a caller's connection is served.
    pub(super) fn of(&self, registry: &Registry, caller: &SpiffeId) -> Lane {
        // Those for whom there is no room are served all the same, with everybody.
        self.among_stops(registry, caller).unwrap_or_else(|| self.everybody())
    }

    fn among_stops(&self, registry: &Registry, caller: &SpiffeId) -> Option<Lane> {
        if !registry.roles(caller).contains(&Role::Stopper) || sabotage::on("stops_stand_in_line") {
            return None;
        }
        let tenant = registry.tenant_of(caller)?;
        let places = (self.of_callers.take(caller).ok()?, self.of_tenants.take(tenant).ok()?);
        let room = Room { bytes_per_second_max: self.bytes_per_second_max, places };
        Some(Lane { runtime: self.stops.clone(), room: Some(room) })
    }
}
