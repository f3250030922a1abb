//! Where records stand: the names of keys, `/<network>/<kind>/…`.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use peerage_identity::{PeerId, PublicKey, decode_peer_id, inlined_public_key};
use sha2::{Digest, Sha256};

use super::Kind;
use crate::Target;

/// The most bytes of a network's name.
pub const MAX_NETWORK_NAME: usize = 32;
/// The most bytes of a user value's salt.
pub const MAX_SALT: usize = 64;

/// The name of a network: 1 to 32 of `a` to `z`, `0` to `9` and `-`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(Arc<str>);

/// It is not the name of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a network's name has 1 to {MAX_NETWORK_NAME} of a-z, 0-9 and '-'")]
pub struct NetworkNameError;

impl Network {
    /// Reads a name.
    ///
    /// # Errors
    /// [`NetworkNameError`].
    pub fn new(name: &str) -> Result<Self, NetworkNameError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = (1..=MAX_NETWORK_NAME).contains(&name.len()) && name.bytes().all(plain);
        fits.then(|| Self(name.into())).ok_or(NetworkNameError)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a record of ours stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// `/<network>/endpoint/` and the peer ID, in binary.
    Endpoint {
        /// Whose.
        peer: PeerId,
    },
    /// `/<network>/topic/`, the SHA-256 of the topic and the shard as two bytes, big-endian.
    Topic {
        /// The topic's hash: [`topic_hash`].
        topic: [u8; 32],
        /// Which part of a large topic; 0 is the first, and the only one of a small topic.
        shard: u16,
    },
    /// `/<network>/mailbox/`, the recipient's peer ID and the slot as one byte.
    Mailbox {
        /// Whose.
        recipient: PeerId,
        /// Which of its boxes; 0 is the first.
        slot: u8,
    },
    /// `/<network>/value/`, the publisher's peer ID and the salt.
    Value {
        /// Whose.
        publisher: PeerId,
        /// Which of its values: up to [`MAX_SALT`] bytes.
        salt: Bytes,
    },
    /// `/<network>/immutable/` and the SHA-256 of the content.
    Immutable {
        /// The hash.
        hash: [u8; 32],
    },
}

/// What the name of a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A place of a record of ours.
    Ours(Place),
    /// A name of another namespace, which a validator of the application may know: the first part of `/<namespace>/…`, or the second where the first is our network.
    Foreign(String),
    /// It begins like a place of ours and is none, or has no namespace.
    Malformed,
}

impl Place {
    /// The kind of records that stand here.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Endpoint { .. } => Kind::Endpoint,
            Self::Topic { .. } => Kind::Topic,
            Self::Mailbox { .. } => Kind::Mailbox,
            Self::Value { .. } => Kind::Value,
            Self::Immutable { .. } => Kind::Immutable,
        }
    }

    /// Where the content stands that never changes.
    pub fn of_content(body: &[u8]) -> Self {
        Self::Immutable { hash: Sha256::digest(body).into() }
    }

    /// Where the ads of a topic stand, in one of its shards.
    pub fn of_topic(topic: &str, shard: u16) -> Self {
        Self::Topic { topic: topic_hash(topic), shard }
    }

    /// The only peer that may publish here; `None` where several may.
    pub fn owner(&self) -> Option<PeerId> {
        match self {
            Self::Endpoint { peer } => Some(*peer),
            Self::Value { publisher, .. } => Some(*publisher),
            Self::Topic { .. } | Self::Mailbox { .. } | Self::Immutable { .. } => None,
        }
    }

    /// The name of the key. A salt beyond [`MAX_SALT`] makes one that nobody takes.
    pub fn name(&self, network: &Network) -> Vec<u8> {
        let mut name = format!("/{network}/{}/", self.kind().segment()).into_bytes();
        match self {
            Self::Endpoint { peer } => name.extend(peer.to_bytes()),
            Self::Topic { topic, shard } => {
                name.extend_from_slice(topic);
                name.extend_from_slice(&shard.to_be_bytes());
            }
            Self::Mailbox { recipient, slot } => {
                name.extend(recipient.to_bytes());
                name.push(*slot);
            }
            Self::Value { publisher, salt } => {
                name.extend(publisher.to_bytes());
                name.extend_from_slice(salt);
            }
            Self::Immutable { hash } => name.extend_from_slice(hash),
        }
        name
    }

    /// The key as a target; `None` when the salt is too long.
    pub fn target(&self, network: &Network) -> Option<Target> {
        if matches!(self, Self::Value { salt, .. } if salt.len() > MAX_SALT) {
            return None;
        }
        Target::new(&self.name(network))
    }

    /// Reads the name of a key in `network`.
    pub fn parse(network: &Network, name: &[u8]) -> Named {
        let mut parts = name.splitn(4, |byte| *byte == b'/');
        let (Some(b""), Some(first), Some(second)) = (parts.next(), parts.next(), parts.next()) else {
            return Named::Malformed;
        };
        if first != network.as_str().as_bytes() {
            return foreign(first);
        }
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.segment().as_bytes() == second) else {
            return foreign(second);
        };
        // What follows may hold slashes of its own.
        let rest = name.get(first.len() + second.len() + 3..).unwrap_or_default();
        Self::of_rest(kind, rest).map_or(Named::Malformed, Named::Ours)
    }

    fn of_rest(kind: Kind, rest: &[u8]) -> Option<Self> {
        Some(match kind {
            Kind::Endpoint => Self::Endpoint { peer: ed25519_peer(rest)? },
            Kind::Topic => {
                let (topic, shard) = rest.split_first_chunk::<32>()?;
                Self::Topic { topic: *topic, shard: u16::from_be_bytes(shard.try_into().ok()?) }
            }
            Kind::Mailbox => {
                let (slot, recipient) = rest.split_last()?;
                Self::Mailbox { recipient: ed25519_peer(recipient)?, slot: *slot }
            }
            Kind::Value => {
                let (publisher, salt) = rest.split_at_checked(PEER_BYTES)?;
                let salt = (salt.len() <= MAX_SALT).then(|| Bytes::copy_from_slice(salt))?;
                Self::Value { publisher: ed25519_peer(publisher)?, salt }
            }
            Kind::Immutable => Self::Immutable { hash: rest.try_into().ok()? },
        })
    }
}

/// The hash under which a topic is known.
pub fn topic_hash(topic: &str) -> [u8; 32] {
    Sha256::digest(topic.as_bytes()).into()
}

/// The key of a peer whose ID holds an Ed25519 key: nobody else publishes records of ours.
pub(crate) fn ed25519_key(peer: &PeerId) -> Option<PublicKey> {
    let key = inlined_public_key(peer)?;
    key.clone().try_into_ed25519().is_ok().then_some(key)
}

fn ed25519_peer(bytes: &[u8]) -> Option<PeerId> {
    let peer = (bytes.len() == PEER_BYTES).then(|| decode_peer_id(bytes).ok())??;
    ed25519_key(&peer).map(|_| peer)
}

fn foreign(namespace: &[u8]) -> Named {
    match std::str::from_utf8(namespace) {
        Ok(text) if !text.is_empty() && !text.contains(char::is_control) => Named::Foreign(text.to_owned()),
        _ => Named::Malformed,
    }
}

/// The bytes of a peer ID that holds an Ed25519 key.
const PEER_BYTES: usize = 38;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbered::peer;
    use proptest::prelude::*;

    fn network() -> Network {
        Network::new("acme").unwrap()
    }

    fn places() -> Vec<Place> {
        let salt = Bytes::from_static(b"a/b//");
        vec![
            Place::Endpoint { peer: peer(1) },
            Place::of_topic("chess", 7),
            Place::Mailbox { recipient: peer(2), slot: 3 },
            Place::Value { publisher: peer(3), salt },
            Place::Value { publisher: peer(3), salt: Bytes::new() },
            Place::of_content(b"///"),
        ]
    }

    #[test]
    fn every_place_has_a_name_that_reads_as_that_place() {
        for place in places() {
            let target = place.target(&network()).unwrap();
            assert!(target.name().starts_with(format!("/acme/{}/", place.kind().segment()).as_bytes()));
            assert_eq!(Place::parse(&network(), target.name()), Named::Ours(place));
        }
    }

    #[test]
    fn names_of_other_networks_and_namespaces_are_foreign() {
        let other = Network::new("other").unwrap();
        let foreign = |name: &[u8]| Place::parse(&network(), name);
        assert_eq!(foreign(&places()[0].name(&other)), Named::Foreign("other".into()));
        assert_eq!(foreign(b"/pk/x"), Named::Foreign("pk".into()));
        assert_eq!(foreign(b"/acme/chat/x"), Named::Foreign("chat".into()));
        for malformed in [&b""[..], b"x", b"/x", b"//x", b"/acme/endpoint/x", b"/\x1b/x", b"/acme/immutable/"]
        {
            assert_eq!(foreign(malformed), Named::Malformed, "{malformed:?}");
        }
    }

    #[test]
    fn a_networks_name_has_few_signs_and_is_short() {
        for good in ["a", "acme-2", &"x".repeat(MAX_NETWORK_NAME)] {
            assert_eq!(Network::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "A", "a/b", "ä", "a b", &"x".repeat(MAX_NETWORK_NAME + 1)] {
            assert_eq!(Network::new(bad), Err(NetworkNameError));
        }
    }

    #[test]
    fn a_salt_is_bounded() {
        let with = |length| Place::Value { publisher: peer(1), salt: vec![7; length].into() };
        assert!(with(MAX_SALT).target(&network()).is_some());
        assert!(with(MAX_SALT + 1).target(&network()).is_none());
        let name = with(MAX_SALT + 1).name(&network());
        assert_eq!(Place::parse(&network(), &name), Named::Malformed);
    }

    proptest! {
        #[test]
        fn any_name_is_read_without_a_panic(tail: Vec<u8>, kind in 0usize..5) {
            let segment = Kind::ALL[kind].segment();
            let name = [format!("/acme/{segment}/").as_bytes(), &tail].concat();
            if let Named::Ours(place) = Place::parse(&network(), &name) {
                prop_assert_eq!(place.name(&network()), name);
            }
            let _ = Place::parse(&network(), &tail);
        }
    }
}
