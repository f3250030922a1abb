//! The endpoint of each form.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use peerage_bench_peer::Outcome;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig,
};

use super::{Form, tls};

/// Longer than anything that is measured.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1800);
/// Bytes of each socket buffer where it is tuned.
const SOCKET_BUFFER: usize = 4 << 20;

/// An endpoint on loopback that dials, and takes connections too if it is a server.
pub(crate) fn endpoint(form: Form, server: bool, keep_alive: Option<Duration>) -> Outcome<Endpoint> {
    let (client, listener) = tls::configs(form.suite, form.p256)?;
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(IdleTimeout::try_from(IDLE_TIMEOUT)?));
    transport.keep_alive_interval(keep_alive);
    let mut endpoint = EndpointConfig::default();
    if let Some(datagram) = form.datagram {
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(datagram);
        transport.initial_mtu(datagram).mtu_discovery_config(Some(discovery));
        endpoint.max_udp_payload_size(datagram)?;
    }
    let transport = Arc::new(transport);
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
    client.transport_config(transport.clone());
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(listener)?));
    config.transport_config(transport);

    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    if form.tuned {
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
    }
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let runtime = Arc::new(quinn::TokioRuntime);
    let mut endpoint = Endpoint::new(endpoint, server.then_some(config), socket.into(), runtime)?;
    endpoint.set_default_client_config(client);
    Ok(endpoint)
}
