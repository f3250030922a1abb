//! Which connections have their keys from X25519MLKEM768.
//!
//! quinn doesn't tell the group that TLS agreed on, so its sessions are wrapped: the group leaves a mark when it makes a secret, and that happens while
//! the session reads the peer's message, on the same thread. Everything else passes straight through.

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

use quinn::crypto::{
    ClientConfig, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session,
    UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError};

thread_local! {
    static SECRET_MADE: Cell<bool> = const { Cell::new(false) };
}

/// The group has made a secret.
pub(super) fn mark() {
    SECRET_MADE.set(true);
}

/// Whether the keys of a connection, whose handshake is done, come from the group.
pub(crate) fn protects(connection: &quinn::Connection) -> bool {
    let facts = connection.handshake_data().and_then(|data| data.downcast::<Facts>().ok());
    facts.is_some_and(|facts| facts.post_quantum)
}

/// What a watched session says of its handshake.
struct Facts {
    post_quantum: bool,
}

/// A configuration whose sessions are watched.
pub(crate) struct Watched<C>(pub(crate) Arc<C>);

impl<C: ClientConfig> ClientConfig for Watched<C> {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let session = self.0.clone().start_session(version, server_name, params)?;
        Ok(WatchedSession::boxed(session))
    }
}

impl<C: ServerConfig> ServerConfig for Watched<C> {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.0.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.0.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        WatchedSession::boxed(self.0.clone().start_session(version, params))
    }
}

struct WatchedSession {
    inner: Box<dyn Session>,
    post_quantum: bool,
}

impl WatchedSession {
    fn boxed(inner: Box<dyn Session>) -> Box<dyn Session> {
        Box::new(Self { inner, post_quantum: false })
    }
}

impl Session for WatchedSession {
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        SECRET_MADE.set(false);
        let read = self.inner.read_handshake(buf);
        self.post_quantum |= SECRET_MADE.get();
        read
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.inner.handshake_data()?;
        Some(Box::new(Facts { post_quantum: self.post_quantum }))
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(dst_cid, side)
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.inner.write_handshake(buf)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}
