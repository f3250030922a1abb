//! Connection IDs that a restarted node recognises as its own, and the key of its stateless resets.
//!
//! A node that comes back with the same key and port answers packets of its old connections with a stateless reset (RFC 9000 § 10.3), so that
//! the peers learn of the restart at once. For that, both the reset key and the mark in the connection IDs are derived from the node key and the socket's
//! address. The mark also keeps the node quiet when garbage arrives: only a packet whose ID bears it is answered. No two sockets share a key: one of
//! them would give away the reset tokens of the other's connections to whoever asks it with an ID seen on the wire (RFC 9000 § 21.11).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peerage_identity::NodeKey;
use peerage_machine::Random;
use quinn::ConnectionId;
use quinn::crypto::HmacKey;
use quinn_proto::InvalidCid;
use ring::hmac;

/// The key with which quinn computes reset tokens on the socket at `local`.
pub(crate) fn reset_key(key: &NodeKey, local: SocketAddr) -> Arc<dyn HmacKey> {
    Arc::new(hmac_key(key, "quic stateless reset", local))
}

/// Makes and recognises the connection IDs of one socket: five random bytes, then three of their HMAC.
#[derive(Clone)]
pub(crate) struct ConnectionIdGenerator {
    mark: hmac::Key,
    random: Random,
}

impl ConnectionIdGenerator {
    pub(crate) fn new(key: &NodeKey, local: SocketAddr, random: Random) -> Self {
        Self { mark: hmac_key(key, "quic connection id", local), random }
    }

    fn mark_of(&self, random: &[u8]) -> [u8; MARK_BYTES] {
        let tag = hmac::sign(&self.mark, random);
        let mut mark = [0; MARK_BYTES];
        mark.copy_from_slice(&tag.as_ref()[..MARK_BYTES]);
        mark
    }
}

impl quinn::ConnectionIdGenerator for ConnectionIdGenerator {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; RANDOM_BYTES + MARK_BYTES];
        let (random, mark) = id.split_at_mut(RANDOM_BYTES);
        self.random.fill(random);
        mark.copy_from_slice(&self.mark_of(random));
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match id.split_at_checked(RANDOM_BYTES) {
            Some((random, mark)) if mark == self.mark_of(random) => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        RANDOM_BYTES + MARK_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn hmac_key(key: &NodeKey, label: &str, local: SocketAddr) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &*key.derive(&format!("{label} {local}")))
}

const RANDOM_BYTES: usize = 5;
const MARK_BYTES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use quinn::ConnectionIdGenerator as _;
    use std::net::Ipv4Addr;

    const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

    #[test]
    fn a_restarted_node_knows_its_connection_ids_and_no_other_node_or_socket_does() {
        let (key, local) = (NodeKey::from_seed([1; 32]), LOCAL);
        let generator = |seed| ConnectionIdGenerator::new(&key, local, Random::from_number(seed));
        let id = generator(1).generate_cid();
        assert!(generator(2).validate(&id).is_ok());
        assert_ne!(generator(2).generate_cid(), id);
        let other = NodeKey::from_seed([2; 32]);
        assert!(ConnectionIdGenerator::new(&other, local, Random::from_number(1)).validate(&id).is_err());
        for elsewhere in ["127.0.0.1:2", "127.0.0.2:1", "[::1]:1"] {
            let elsewhere = elsewhere.parse().unwrap();
            let generator = ConnectionIdGenerator::new(&key, elsewhere, Random::from_number(1));
            assert!(generator.validate(&id).is_err(), "{elsewhere}");
        }
    }

    #[test]
    fn no_two_sockets_make_the_same_reset_token() {
        let token = |local: &str| {
            let mut token = [0; 32];
            reset_key(&NodeKey::from_seed([1; 32]), local.parse().unwrap()).sign(b"an ID", &mut token);
            token
        };
        assert_eq!(token("127.0.0.1:1"), token("127.0.0.1:1"));
        assert_ne!(token("127.0.0.1:1"), token("127.0.0.1:2"));
        assert_ne!(token("127.0.0.1:1"), token("127.0.0.2:1"));
    }

    #[test]
    fn an_id_of_any_length_is_judged_without_panic() {
        let generator =
            ConnectionIdGenerator::new(&NodeKey::from_seed([1; 32]), LOCAL, Random::from_number(1));
        for length in 0..=20 {
            assert!(generator.validate(&ConnectionId::new(&[7; 20][..length])).is_err());
        }
    }
}
