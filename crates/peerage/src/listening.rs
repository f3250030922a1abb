//! Where others can reach this node.

use std::net::{IpAddr, SocketAddr};

use peerage_identity::{DialAddress, NodeKey};

use crate::environment::Environment;

/// Addresses that a node announces.
const MAX_ANNOUNCED: usize = 16;

/// Where others can reach us: what we listen at, a wildcard standing for the addresses of this machine's interfaces.
pub(crate) fn announced(
    key: &NodeKey,
    bound: &[SocketAddr],
    environment: &dyn Environment,
) -> Vec<DialAddress> {
    let mut found = Vec::new();
    for socket in bound {
        if socket.ip().is_unspecified() {
            let right = |ip: &IpAddr| ip.is_ipv4() == socket.is_ipv4();
            let interfaces = interfaces(environment).into_iter().filter(right);
            found.extend(interfaces.map(|ip| SocketAddr::new(ip, socket.port())));
        } else {
            found.push(*socket);
        }
    }
    found.sort_by_key(|socket| socket.ip().is_loopback());
    found
        .into_iter()
        .filter_map(|socket| DialAddress::from_socket_addr(socket).ok()?.with_peer_id(key.peer_id()).ok())
        .take(MAX_ANNOUNCED)
        .collect()
}

fn interfaces(environment: &dyn Environment) -> Vec<IpAddr> {
    match environment.interfaces() {
        Ok(interfaces) => {
            let usable = |ip: &IpAddr| match ip {
                IpAddr::V4(_) => true,
                // A link-local address means nothing without its interface.
                IpAddr::V6(ip) => !ip.is_unicast_link_local(),
            };
            interfaces.into_iter().filter(usable).collect()
        }
        Err(error) => {
            tracing::warn!(%error, "the interfaces of this machine cannot be listed: only loopback is announced");
            vec![IpAddr::from([127, 0, 0, 1])]
        }
    }
}
