//! How two nodes of a private network prove to each other that they know its secret, and hide their hellos from all others.
//!
//! The hello is encrypted with a key, and proved by a MAC, that only who knows the secret can make, and only on this one connection: both are
//! bound to what TLS exports on it, to the two peer IDs, and to who says it. So nothing taken from another connection, and nothing
//! sent back, proves anything. No round trip is added, and neither side has to begin: a stranger gets some 1,100 bytes that look random.
//!
//! What it does not hide: that the node is a Peerage node in a network with a secret, its peer ID, and how many secrets it takes. A stranger can
//! try guesses of the secret against what it got, which is why secrets have to be random.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use peerage_identity::{MAX_NETWORK_SECRETS, NetworkSecret, PeerId};
use peerage_peers::RejectReason;
use peerage_transport::{Connection, Direction, ExportError};
use peerage_wire::frame::{self, Decoder};
use peerage_wire::hello::{Hello, Sealed};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

use crate::environment::Environment;
use crate::shared::Shared;

/// The hello inside is filled up to a multiple of so many bytes: its length tells how many channels there are.
const PADDING: usize = 1024;
/// The longest hello inside, in bytes.
const MAX_INSIDE: usize = crate::hello::MAX_HELLO_BYTES;
/// What TLS is asked for (RFC 8446 § 7.5).
const EXPORT_LABEL: &[u8] = b"EXPORTER-peerage-network-secret";
const PROOF_LABEL: &[u8] = b"peerage/hello/1 proof\0";
const KEY_LABEL: &[u8] = b"peerage/hello/1 key\0";

/// The longest hello that is read in a private network, in bytes: one for each secret.
pub(crate) const MAX_SEALED_BYTES: usize = MAX_NETWORK_SECRETS * (MAX_INSIDE + PADDING + 128);

/// Why the secrets of a running node can't be changed so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeSecretsError {
    /// There would be none.
    #[error(
        "a private network cannot go on without a secret: give the new one, and the old one until all nodes have both"
    )]
    None,
    /// More than are taken.
    #[error(
        "{count} network secrets were given where {MAX_NETWORK_SECRETS} are the most: leave the oldest out"
    )]
    TooMany {
        /// How many.
        count: usize,
    },
    /// The node was started without a secret.
    #[error("this node was started without a network secret: stop it, and start it with one")]
    NotPrivate,
}

/// The network secrets of a node, which can be changed while it runs; none in an open network.
#[derive(Default)]
pub(crate) struct Secrets {
    taken: RwLock<Arc<[NetworkSecret]>>,
}

impl Secrets {
    pub(crate) fn new(secrets: Vec<NetworkSecret>) -> Self {
        Self { taken: RwLock::new(secrets.into()) }
    }

    /// Whether the node is in a network with a secret. It stays so.
    pub(crate) fn are_needed(&self) -> bool {
        !self.get().is_empty()
    }

    pub(crate) fn get(&self) -> Arc<[NetworkSecret]> {
        self.taken.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on these are taken. Connections that there are stay.
    pub(crate) fn change(&self, secrets: Vec<NetworkSecret>) -> Result<(), ChangeSecretsError> {
        if !self.are_needed() {
            return Err(ChangeSecretsError::NotPrivate);
        }
        check(&secrets)?;
        *self.taken.write().unwrap_or_else(PoisonError::into_inner) = secrets.into();
        Ok(())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// Whether a node can take these.
pub(crate) fn check(secrets: &[NetworkSecret]) -> Result<(), ChangeSecretsError> {
    match secrets.len() {
        0 => Err(ChangeSecretsError::None),
        count if count > MAX_NETWORK_SECRETS => Err(ChangeSecretsError::TooMany { count }),
        _ => Ok(()),
    }
}

/// Our hello, as it may leave on this connection.
///
/// # Errors
/// In words.
pub(crate) fn outgoing(shared: &Shared, connection: &Connection, hello: Hello) -> Result<Hello, String> {
    let secrets = shared.secrets.get();
    if secrets.is_empty() {
        return Ok(hello);
    }
    let binding = Binding::ours(connection, shared.me).map_err(|error| error.to_string())?;
    seal(&secrets, &binding, &hello, shared.environment.as_ref()).map_err(|error| error.to_string())
}

/// The peer's hello, as it was before it was sealed; or why the peer is refused, in words that it may hear.
pub(crate) fn incoming(
    shared: &Shared,
    connection: &Connection,
    hello: Hello,
) -> Result<Hello, (RejectReason, String)> {
    let secrets = shared.secrets.get();
    if secrets.is_empty() {
        return match hello.sealed.is_empty() {
            true => Ok(hello),
            false => Err((RejectReason::NotProved, "this node has no network secret".to_owned())),
        };
    }
    let opened =
        Binding::theirs(connection, shared.me).ok().and_then(|binding| open(&secrets, &binding, &hello));
    opened.ok_or((RejectReason::NotProved, String::new()))
}

/// Who says it, and on which connection: what a proof is bound to.
pub(crate) struct Binding(Vec<u8>);

impl Binding {
    /// For what this side says.
    pub(crate) fn ours(connection: &Connection, me: PeerId) -> Result<Self, ExportError> {
        Self::of(connection, me, connection.direction())
    }

    /// For what the peer says.
    pub(crate) fn theirs(connection: &Connection, me: PeerId) -> Result<Self, ExportError> {
        let said = match connection.direction() {
            Direction::Inbound => Direction::Outbound,
            Direction::Outbound => Direction::Inbound,
        };
        Self::of(connection, me, said)
    }

    /// `said` is the direction of the connection for the one who says it.
    fn of(connection: &Connection, me: PeerId, said: Direction) -> Result<Self, ExportError> {
        let mut exported = [0; 32];
        connection.export_keying_material(&mut exported, EXPORT_LABEL, b"")?;
        let (dialler, listener) = match connection.direction() {
            Direction::Outbound => (me, connection.peer_id()),
            Direction::Inbound => (connection.peer_id(), me),
        };
        Ok(Self::new(&exported, dialler, listener, said == Direction::Outbound))
    }

    pub(crate) fn new(exported: &[u8; 32], dialler: PeerId, listener: PeerId, said_by_dialler: bool) -> Self {
        let mut bytes = vec![if said_by_dialler { 1 } else { 2 }];
        bytes.extend_from_slice(exported);
        for peer in [dialler, listener] {
            let id = peer.to_bytes();
            bytes.push(id.len() as u8);
            bytes.extend_from_slice(&id);
        }
        Self(bytes)
    }
}

/// The hello as it leaves, once for each secret.
///
/// # Errors
/// When there is no randomness.
pub(crate) fn seal(
    secrets: &[NetworkSecret],
    binding: &Binding,
    hello: &Hello,
    environment: &dyn Environment,
) -> io::Result<Hello> {
    let mut inside = frame::encode(hello).to_vec();
    inside.resize(inside.len().next_multiple_of(PADDING), 0);
    let mut sealed = Vec::with_capacity(secrets.len());
    for secret in secrets {
        let mut nonce = [0; NONCE_LEN];
        environment.entropy(&mut nonce)?;
        sealed.push(seal_one(secret, binding, nonce, inside.clone()));
    }
    Ok(Hello { sealed, ..Hello::default() })
}

/// What is said, encrypted and proved with one secret.
pub(crate) fn seal_one(
    secret: &NetworkSecret,
    binding: &Binding,
    nonce: [u8; NONCE_LEN],
    mut inside: Vec<u8>,
) -> Sealed {
    key(secret, binding)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut inside)
        .expect("a hello is far below the cipher's bound");
    let body = Bytes::from([&nonce[..], &inside].concat());
    Sealed { proof: prove(secret, binding, &body), body }
}

/// The hello inside, when it proves one of the secrets.
pub(crate) fn open(secrets: &[NetworkSecret], binding: &Binding, hello: &Hello) -> Option<Hello> {
    let entries = hello.sealed.iter().take(MAX_NETWORK_SECRETS);
    entries.flat_map(|sealed| secrets.iter().map(move |secret| (sealed, secret))).find_map(
        |(sealed, secret)| {
            // In the same time for every wrong proof.
            hmac::verify(&mac_key(secret), &proved(binding, &sealed.body), &sealed.proof).ok()?;
            decrypt(secret, binding, &sealed.body)
        },
    )
}

fn decrypt(secret: &NetworkSecret, binding: &Binding, body: &[u8]) -> Option<Hello> {
    let (nonce, encrypted) = body.split_first_chunk::<NONCE_LEN>()?;
    let (mut inside, nonce) = (encrypted.to_vec(), Nonce::assume_unique_for_key(*nonce));
    let inside = key(secret, binding).open_in_place(nonce, Aad::empty(), &mut inside).ok()?;
    let mut decoder = Decoder::new(MAX_INSIDE);
    decoder.push(Bytes::copy_from_slice(inside));
    decoder.next_message().ok()?
}

/// What a proof is about.
fn proved(binding: &Binding, body: &[u8]) -> Vec<u8> {
    [PROOF_LABEL, &binding.0, body].concat()
}

fn prove(secret: &NetworkSecret, binding: &Binding, body: &[u8]) -> Bytes {
    Bytes::copy_from_slice(hmac::sign(&mac_key(secret), &proved(binding, body)).as_ref())
}

fn mac_key(secret: &NetworkSecret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

/// The key for one direction of one connection.
fn key(secret: &NetworkSecret, binding: &Binding) -> LessSafeKey {
    let bytes = hmac::sign(&mac_key(secret), &[KEY_LABEL, &binding.0].concat());
    let key = UnboundKey::new(&CHACHA20_POLY1305, bytes.as_ref());
    LessSafeKey::new(key.expect("a SHA-256 output has the length of the key"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerage_identity::NodeKey;
    use prost::Message;

    fn secret(text: &str) -> NetworkSecret {
        NetworkSecret::new(&format!("{text} {}", "x".repeat(16))).unwrap()
    }

    fn sealed(secrets: &[NetworkSecret], binding: &Binding, hello: &Hello) -> Hello {
        seal(secrets, binding, hello, &crate::SystemEnvironment).unwrap()
    }

    fn hello(channels: usize) -> Hello {
        let channel = |number| peerage_wire::hello::Channel {
            name: format!("/acme/hidden/{number}"),
            ..Default::default()
        };
        Hello {
            network: "acme".into(),
            moniker: "hidden".into(),
            channels: (0..channels).map(channel).collect(),
            ..Hello::default()
        }
    }

    fn peers() -> (PeerId, PeerId) {
        (NodeKey::from_seed([1; 32]).peer_id(), NodeKey::from_seed([2; 32]).peer_id())
    }

    #[test]
    fn a_hello_opens_for_who_has_the_secret_where_it_was_said_and_nowhere_else() {
        let (a, b) = peers();
        let (one, other) = (secret("one"), secret("other"));
        let binding = Binding::new(&[7; 32], a, b, true);
        let sent = sealed(std::slice::from_ref(&one), &binding, &hello(3));
        let opens = |secrets: &[NetworkSecret], binding: &Binding| open(secrets, binding, &sent);
        let with = std::slice::from_ref(&one);
        assert_eq!(opens(with, &binding), Some(hello(3)));
        assert_eq!(opens(&[other.clone(), one.clone()], &binding), Some(hello(3)));
        assert_eq!(opens(&[other], &binding), None, "a wrong secret");
        assert_eq!(opens(&[], &binding), None, "no secret");
        assert_eq!(opens(with, &Binding::new(&[8; 32], a, b, true)), None, "another connection: a replay");
        assert_eq!(opens(with, &Binding::new(&[7; 32], a, b, false)), None, "the other role: a reflection");
        assert_eq!(opens(with, &Binding::new(&[7; 32], b, a, true)), None, "the roles changed");
        let third = NodeKey::from_seed([3; 32]).peer_id();
        assert_eq!(opens(with, &Binding::new(&[7; 32], a, third, true)), None, "another listener");
        assert_eq!(opens(with, &Binding::new(&[7; 32], third, b, true)), None, "another dialler");
    }

    #[test]
    fn a_change_of_the_secret_has_a_time_in_which_both_are_taken() {
        let (a, b) = peers();
        let (old, new) = (secret("old"), secret("new"));
        let binding = Binding::new(&[7; 32], a, b, false);
        let steps = [vec![old.clone()], vec![new.clone(), old], vec![new]];
        for (from, to, meet) in
            [(0, 1, true), (1, 0, true), (1, 2, true), (2, 1, true), (0, 2, false), (2, 0, false)]
        {
            let sent = sealed(&steps[from], &binding, &hello(1));
            assert_eq!(open(&steps[to], &binding, &sent).is_some(), meet, "from {from} to {to}");
        }
    }

    #[test]
    fn every_bit_of_a_sealed_hello_counts_and_none_of_it_is_readable() {
        let (a, b) = peers();
        let (with, binding) = ([secret("one")], Binding::new(&[7; 32], a, b, true));
        let sent = sealed(&with, &binding, &hello(1));
        let Sealed { proof, body } = &sent.sealed[0];
        for index in 0..proof.len() + body.len() {
            let mut bytes = [&proof[..], &body[..]].concat();
            bytes[index] ^= 1;
            let body = Bytes::from(bytes.split_off(proof.len()));
            let changed = Hello { sealed: vec![Sealed { proof: bytes.into(), body }], ..Hello::default() };
            assert_eq!(open(&with, &binding, &changed), None, "byte {index}");
        }
        for cut in [&[][..], &body[..NONCE_LEN], &body[..40]] {
            let body = Bytes::copy_from_slice(cut);
            let proof = prove(&with[0], &binding, &body);
            let changed = Hello { sealed: vec![Sealed { proof, body }], ..Hello::default() };
            assert_eq!(open(&with, &binding, &changed), None, "cut short by one who has the secret");
        }
        let bytes = sent.encode_to_vec();
        for hidden in ["acme", "hidden"] {
            assert!(!bytes.windows(hidden.len()).any(|part| part == hidden.as_bytes()));
        }
        let length = |channels| sealed(&with, &binding, &hello(channels)).encoded_len();
        assert_eq!(length(0), length(20), "the length tells nothing of the channels");
        let again = sealed(&with, &binding, &hello(1));
        assert_ne!(again.sealed[0].body, *body, "no nonce comes twice");
    }

    #[test]
    fn secrets_are_changed_within_their_bounds_only() {
        let secrets = Secrets::new(vec![secret("one")]);
        assert_eq!(secrets.change(vec![]), Err(ChangeSecretsError::None));
        assert_eq!(secrets.change(vec![secret("x"); 5]), Err(ChangeSecretsError::TooMany { count: 5 }));
        assert_eq!(secrets.change(vec![secret("two"), secret("one")]), Ok(()));
        assert_eq!(secrets.get().len(), 2);
        assert_eq!(Secrets::default().change(vec![secret("one")]), Err(ChangeSecretsError::NotPrivate));
        assert!(!format!("{secrets:?}").contains("two"));
    }
}
