//! What an endpoint says, in plain text.

use peerage_identity::PeerId;

use crate::connection::ConnectionId;

/// Sees what an endpoint says to its peers above TLS, as it is handed to QUIC. It is for tests that look for what must not be told: whoever gives an
/// endpoint a tap ([`EndpointConfig::tap`](crate::EndpointConfig::tap)) reads all that it sends.
pub trait Tap: Send + Sync + 'static {
    /// `bytes` were written to a stream; the name of its protocol, where this side proposes or answers it, comes the same way. Bytes of one stream come in
    /// their order.
    fn wrote(&self, to: &PeerId, connection: ConnectionId, stream: u64, bytes: &[u8]);

    /// A connection was closed with these words.
    fn closed(&self, to: &PeerId, connection: ConnectionId, reason: &str);
}
