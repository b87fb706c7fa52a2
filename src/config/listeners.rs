//! The listeners: where they are, and their limits. Each limit has its unit in its name and a safe default.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;

use super::{ClientCertificate, count, seconds};
use crate::http::HttpLimits;
use crate::net::NetLimits;
use crate::shares::ShareLimits;

/// The gRPC listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpcConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The URL that clients reach it by, as their DPoP proofs name it; `https://` and the address if it is not said.
    #[serde(default)]
    pub url: Option<String>,
    /// DNS names of the server's certificate.
    #[serde(default)]
    pub dns_names: Vec<String>,
    /// Addresses in the server's certificate.
    #[serde(default)]
    pub ip_addresses: Vec<IpAddr>,
    /// Whether every client has to have a certificate.
    #[serde(default)]
    pub client_certificate: ClientCertificate,
    /// Whether callers may ask which services there are.
    #[serde(default)]
    pub reflection: bool,
    /// Bytes in one request.
    #[serde(default = "defaults::message_bytes_max")]
    pub message_bytes_max: NonZeroU32,
    /// Bytes in one request of nobody that is known, which can but ask for the health of a service by its name; no more
    /// than in any other.
    #[serde(default = "defaults::strangers_message_bytes_max")]
    pub strangers_message_bytes_max: NonZeroU32,
    /// Connections at once.
    #[serde(default = "defaults::connections_max")]
    pub connections_max: NonZeroU32,
    /// Connections at once from one peer: an IPv4 address or an IPv6 network of 64 bits.
    #[serde(default = "defaults::connections_per_peer_max")]
    pub connections_per_peer_max: NonZeroU32,
    /// Connections at once from one network: an IPv4 network of 24 bits or an IPv6 network of 48 bits.
    #[serde(default = "defaults::connections_per_network_max")]
    pub connections_per_network_max: NonZeroU32,
    /// Handshakes at once, and never more than half of the connections. When there are as many, one of whoever has the
    /// most makes way for a newcomer.
    #[serde(default = "defaults::handshakes_max")]
    pub handshakes_max: NonZeroU32,
    /// Handshakes at once from one peer, and never more than half of its connections.
    #[serde(default = "defaults::handshakes_per_peer_max")]
    pub handshakes_per_peer_max: NonZeroU32,
    /// Seconds from accepting a connection to its handshake being complete.
    #[serde(default = "defaults::handshake_seconds_max")]
    pub handshake_seconds_max: NonZeroU32,
    /// Milliseconds from one stage of a handshake to the next, and to the first call; who takes longer makes way for
    /// newcomers as the silent do. Not above `handshake_seconds_max`. The longer, the easier strangers keep out others of
    /// their network; the shorter, the sooner whoever comes from far is taken for one of them.
    #[serde(default = "defaults::handshake_stage_millis_max")]
    pub handshake_stage_millis_max: NonZeroU32,
    /// Bytes that a client may send in its handshake: from 16384, so that an ordinary chain fits, to 1048576.
    #[serde(default = "defaults::handshake_bytes_max")]
    pub handshake_bytes_max: NonZeroU32,
    /// Seconds that a client whose handshake was refused may take to hear why, within those of the handshake.
    #[serde(default = "defaults::handshake_refused_seconds_max")]
    pub handshake_refused_seconds_max: NonZeroU32,
    /// Seconds from a complete handshake to its caller being known, by a certificate or by a call that shows a token.
    #[serde(default = "defaults::probation_seconds_max")]
    pub probation_seconds_max: NonZeroU32,
    /// Bytes that a client may send on one connection in a second, and at once beyond that; what is more waits.
    #[serde(default = "defaults::connection_bytes_per_second_max")]
    pub connection_bytes_per_second_max: NonZeroU32,
    /// Connections at once that are served by the thread of the emergency stop, of workloads with the role `stopper`; what
    /// is beyond is served with everybody's.
    #[serde(default = "defaults::stop_connections_max")]
    pub stop_connections_max: NonZeroU32,
    /// Of those, the ones of one tenant.
    #[serde(default = "defaults::stop_connections_per_tenant_max")]
    pub stop_connections_per_tenant_max: NonZeroU32,
    /// Of those, the ones of one caller.
    #[serde(default = "defaults::stop_connections_per_caller_max")]
    pub stop_connections_per_caller_max: NonZeroU32,
    /// Bytes that a client may send on one of them in a second, and at once beyond that; what is more waits.
    #[serde(default = "defaults::stop_connection_bytes_per_second_max")]
    pub stop_connection_bytes_per_second_max: NonZeroU32,
    /// Seconds that a connection is used, at most.
    #[serde(default = "defaults::connection_age_seconds_max")]
    pub connection_age_seconds_max: NonZeroU32,
    /// Seconds that one call may take, its request's body included; a caller may set itself less.
    #[serde(default = "defaults::call_seconds_max")]
    pub call_seconds_max: NonZeroU32,
    /// Seconds that a caller whose call was refused may take to send the rest of it, within those of the call.
    #[serde(default = "defaults::call_refused_seconds_max")]
    pub call_refused_seconds_max: NonZeroU32,
    /// Calls at once on one connection.
    #[serde(default = "defaults::streams_per_connection_max")]
    pub streams_per_connection_max: NonZeroU32,
    /// Bytes of one request's header fields, as HTTP/2 counts them.
    #[serde(default = "defaults::header_list_bytes_max")]
    pub header_list_bytes_max: NonZeroU32,
    /// Bytes that a client may send on one call before they are read.
    #[serde(default = "defaults::stream_window_bytes")]
    pub stream_window_bytes: NonZeroU32,
    /// Bytes that a client may send on all calls of a connection before they are read.
    #[serde(default = "defaults::connection_window_bytes")]
    pub connection_window_bytes: NonZeroU32,
    /// Bytes of an answer that are kept for one call beyond the part that is being sent.
    #[serde(default = "defaults::send_buffer_bytes_max")]
    pub send_buffer_bytes_max: NonZeroU32,
    /// Calls of one connection that were reset before they were taken up, and likewise those that ended by an error of the
    /// client's in the protocol; one more ends the connection.
    #[serde(default = "defaults::resets_max")]
    pub resets_max: NonZeroU32,
    /// Seconds that a client may take to take an answer, or what a stream tells; it is cut off within twice that time.
    #[serde(default = "defaults::answer_seconds_max")]
    pub answer_seconds_max: NonZeroU32,
    /// Seconds between two pings of a client.
    #[serde(default = "defaults::keepalive_interval_seconds")]
    pub keepalive_interval_seconds: NonZeroU32,
    /// Seconds that a client may take to answer a ping.
    #[serde(default = "defaults::keepalive_timeout_seconds")]
    pub keepalive_timeout_seconds: NonZeroU32,
    /// Seconds that running calls have when the daemon stops.
    #[serde(default = "defaults::drain_seconds_max")]
    pub drain_seconds_max: NonZeroU32,
}

impl GrpcConfig {
    /// The limits of each call.
    #[must_use]
    pub fn call_limits(&self) -> CallLimits {
        CallLimits {
            call_max: seconds(self.call_seconds_max),
            refused_max: seconds(self.call_refused_seconds_max),
            message_bytes_max: count(self.message_bytes_max),
            strangers_message_bytes_max: count(self.strangers_message_bytes_max),
        }
    }

    /// How many connections the thread of the emergency stop serves: of each caller, and of each tenant.
    #[must_use]
    pub fn stop_connections(&self) -> [ShareLimits; 2] {
        let what = "connections for stops";
        let all = Some(("stop_connections_max", count(self.stop_connections_max)));
        let of_callers = ("stop_connections_per_caller_max", count(self.stop_connections_per_caller_max));
        let of_tenants = ("stop_connections_per_tenant_max", count(self.stop_connections_per_tenant_max));
        [of_callers, of_tenants].map(|per_holder| ShareLimits { what, all, per_holder })
    }

    /// The limits of the listener.
    #[must_use]
    pub fn limits(&self) -> NetLimits {
        NetLimits {
            connections_max: count(self.connections_max),
            connections_per_peer_max: count(self.connections_per_peer_max),
            connections_per_network_max: count(self.connections_per_network_max),
            handshakes_max: count(self.handshakes_max),
            handshakes_per_peer_max: count(self.handshakes_per_peer_max),
            handshake_max: seconds(self.handshake_seconds_max),
            handshake_stage_max: Duration::from_millis(self.handshake_stage_millis_max.get().into()),
            handshake_bytes_max: count(self.handshake_bytes_max),
            handshake_refused_max: seconds(self.handshake_refused_seconds_max),
            probation_max: seconds(self.probation_seconds_max),
            bytes_per_second_max: self.connection_bytes_per_second_max,
            connection_age_max: seconds(self.connection_age_seconds_max),
            // Whatever was begun before the connection got too old may be finished.
            connection_grace: seconds(self.call_seconds_max),
            drain_max: seconds(self.drain_seconds_max),
            streams_max: self.streams_per_connection_max.get(),
            header_list_bytes_max: self.header_list_bytes_max.get(),
            stream_window_bytes: self.stream_window_bytes.get(),
            connection_window_bytes: self.connection_window_bytes.get(),
            send_buffer_bytes_max: count(self.send_buffer_bytes_max),
            reset_streams_max: count(self.resets_max),
            answer_max: seconds(self.answer_seconds_max),
            keepalive_interval: seconds(self.keepalive_interval_seconds),
            keepalive_timeout: seconds(self.keepalive_timeout_seconds),
        }
    }
}

/// What the gRPC listener bounds of each call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// How long it may take.
    pub call_max: Duration,
    /// How long its caller may take to send the rest of it when it was refused.
    pub refused_max: Duration,
    /// Bytes of its message.
    pub message_bytes_max: usize,
    /// As many of a message of nobody that is known.
    pub strangers_message_bytes_max: usize,
}

/// The HTTP listener: public documents, metrics, probes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Where it listens: a loopback address, since it speaks plain HTTP.
    pub listen: SocketAddr,
    /// Connections at once.
    #[serde(default = "defaults::http_connections_max")]
    pub connections_max: NonZeroU32,
    /// Connections at once from one peer address.
    #[serde(default = "defaults::http_connections_per_peer_max")]
    pub connections_per_peer_max: NonZeroU32,
    /// Seconds that a client may take to send a request's head, or leave its connection idle.
    #[serde(default = "defaults::header_seconds_max")]
    pub header_seconds_max: NonZeroU32,
    /// Bytes of one request's line and header fields.
    #[serde(default = "defaults::header_bytes_max")]
    pub header_bytes_max: NonZeroU32,
    /// Header fields of one request.
    #[serde(default = "defaults::header_fields_max")]
    pub header_fields_max: NonZeroU32,
    /// Seconds that a connection is used, at most.
    #[serde(default = "defaults::http_connection_age_seconds_max")]
    pub connection_age_seconds_max: NonZeroU32,
    /// Seconds that an answer may still take when the connection is too old.
    #[serde(default = "defaults::http_connection_grace_seconds_max")]
    pub connection_grace_seconds_max: NonZeroU32,
    /// Seconds that running answers have when the daemon stops.
    #[serde(default = "defaults::drain_seconds_max")]
    pub drain_seconds_max: NonZeroU32,
    /// Seconds that a published document may be kept by whoever fetched it.
    #[serde(default = "defaults::document_age_seconds_max")]
    pub document_age_seconds_max: NonZeroU32,
}

impl HttpConfig {
    /// The limits of the listener.
    #[must_use]
    pub fn limits(&self) -> HttpLimits {
        HttpLimits {
            connections_max: count(self.connections_max),
            connections_per_peer_max: count(self.connections_per_peer_max),
            header_read_max: seconds(self.header_seconds_max),
            header_bytes_max: count(self.header_bytes_max),
            header_fields_max: count(self.header_fields_max),
            connection_age_max: seconds(self.connection_age_seconds_max),
            connection_grace: seconds(self.connection_grace_seconds_max),
            drain_max: seconds(self.drain_seconds_max),
        }
    }
}

mod defaults {
    use std::num::NonZeroU32;

    use super::super::defaults::small;

    macro_rules! defaults {
        ($($name:ident = $value:literal;)*) => {
            $(pub(super) const fn $name() -> NonZeroU32 {
                small($value)
            })*
        };
    }

    defaults! {
        message_bytes_max = 65_536;
        strangers_message_bytes_max = 256;
        connections_max = 4_096;
        connections_per_peer_max = 512;
        connections_per_network_max = 2_048;
        handshakes_max = 256;
        handshakes_per_peer_max = 64;
        handshake_seconds_max = 5;
        handshake_stage_millis_max = 100;
        handshake_bytes_max = 65_536;
        handshake_refused_seconds_max = 1;
        probation_seconds_max = 10;
        connection_bytes_per_second_max = 8_388_608;
        stop_connections_max = 64;
        stop_connections_per_tenant_max = 16;
        stop_connections_per_caller_max = 4;
        stop_connection_bytes_per_second_max = 65_536;
        connection_age_seconds_max = 900;
        call_seconds_max = 30;
        call_refused_seconds_max = 5;
        streams_per_connection_max = 128;
        header_list_bytes_max = 16_384;
        stream_window_bytes = 131_072;
        connection_window_bytes = 262_144;
        send_buffer_bytes_max = 131_072;
        resets_max = 20;
        answer_seconds_max = 10;
        keepalive_interval_seconds = 10;
        keepalive_timeout_seconds = 20;
        drain_seconds_max = 5;
        http_connections_max = 512;
        http_connections_per_peer_max = 128;
        header_seconds_max = 5;
        header_bytes_max = 8_192;
        header_fields_max = 64;
        http_connection_age_seconds_max = 120;
        http_connection_grace_seconds_max = 5;
        document_age_seconds_max = 300;
    }
}
