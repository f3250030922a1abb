//! A node's key: Ed25519, from which its peer ID and further secrets follow.

use std::fmt;
use std::sync::Arc;

use ed25519_dalek::{Signer, SigningKey};
use hkdf::Hkdf;
use libp2p_identity::{PeerId, PublicKey, ed25519};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::pem::{self, PemError};

/// A node's private key. Cloning is cheap and shares the key, which is wiped from memory with the last clone.
///
/// `Debug` shows the peer ID and nothing else.
#[derive(Clone)]
pub struct NodeKey(Arc<Inner>);

struct Inner {
    signing: SigningKey,
    public: PublicKey,
    peer_id: PeerId,
}

impl NodeKey {
    /// A new key from the operating system's entropy.
    ///
    /// # Panics
    /// When the operating system has no entropy source, which leaves nothing that a node could do safely.
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).expect("the operating system gives entropy");
        Self::from_signing_key(SigningKey::from_bytes(&seed))
    }

    /// The key that belongs to a 32-byte seed, the *private key* of RFC 8032 § 5.1.5. Tests want the same key again; nothing else should.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        Self::from_signing_key(SigningKey::from_bytes(&seed))
    }

    /// Reads an unencrypted PKCS#8 PEM text (RFC 8410, RFC 5958), with or without the public key in it.
    ///
    /// # Errors
    /// [`PemError`] says what the text is instead.
    pub fn from_pem(text: &str) -> Result<Self, PemError> {
        pem::decode(text).map(Self::from_signing_key)
    }

    /// The key as PKCS#8 PEM without the public key (version 1, RFC 8410 § 7), the form that every tool reads.
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem::encode(&self.0.signing)
    }

    /// The 32-byte seed that [`NodeKey::from_seed`] takes.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.signing.to_bytes())
    }

    /// The node's peer ID, which follows from the public key.
    pub fn peer_id(&self) -> PeerId {
        self.0.peer_id
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        self.0.public.clone()
    }

    /// Signs `message`: plain Ed25519 (RFC 8032), the same bytes each time. The caller separates domains: what is signed must begin
    /// with something that says what it is for.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.signing.sign(message).to_bytes()
    }

    /// A secret for the purpose that `label` names, derived with HKDF-SHA256 (RFC 5869): the same key and label give the same secret, and
    /// nobody learns the key or another label's secret from it.
    ///
    /// The seed is the input keying material, the label the info; the salt is a constant of this crate.
    pub fn derive(&self, label: &str) -> Zeroizing<[u8; 32]> {
        let mut secret = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(DERIVE_SALT), self.0.signing.as_bytes())
            .expand(label.as_bytes(), &mut *secret)
            .expect("one hash of output is within what HKDF gives");
        secret
    }

    /// The key itself, for what else this crate does with it.
    pub(crate) fn signing_key(&self) -> &SigningKey {
        &self.0.signing
    }

    fn from_signing_key(signing: SigningKey) -> Self {
        let public = ed25519::PublicKey::try_from_bytes(signing.verifying_key().as_bytes())
            .expect("a key pair's public key is a point of the curve");
        let public = PublicKey::from(public);
        let peer_id = public.to_peer_id();
        Self(Arc::new(Inner { signing, public, peer_id }))
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.0.peer_id)
    }
}

const DERIVE_SALT: &[u8] = b"peerage node key 1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify_signature;

    /// RFC 8032 § 7.1, test 2.
    #[test]
    fn a_key_signs_as_rfc_8032_prescribes() {
        let seed = hex::decode("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let key = NodeKey::from_seed(seed.try_into().unwrap());
        assert_eq!(
            hex::encode(key.sign(&[0x72])),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert!(verify_signature(&key.public(), &[0x72], &key.sign(&[0x72])));
    }

    /// Computed from RFC 5869 with another implementation of HMAC.
    #[test]
    fn a_derived_secret_is_hkdf_of_the_seed_and_differs_by_label_and_key() {
        let key = NodeKey::from_seed([7; 32]);
        let secret = key.derive("stateless reset");
        assert_eq!(hex::encode(*secret), "3688205aa6c816650f7e891a1b467c7fd79837a878664ad50a43ba34352bf415");
        assert_ne!(secret, key.derive("stateless reset 2"));
        assert_ne!(secret, NodeKey::from_seed([8; 32]).derive("stateless reset"));
    }

    #[test]
    fn the_peer_id_follows_from_the_public_key_and_holds_it() {
        let key = NodeKey::generate();
        assert_eq!(key.peer_id(), key.public().to_peer_id());
        assert_eq!(crate::inlined_public_key(&key.peer_id()), Some(key.public()));
        assert_ne!(key.peer_id(), NodeKey::generate().peer_id());
    }

    #[test]
    fn debug_shows_the_peer_id_and_nothing_secret() {
        let key = NodeKey::from_seed([0x41; 32]);
        assert_eq!(format!("{key:?}"), format!("NodeKey({})", key.peer_id()));
    }

    #[test]
    fn the_seed_gives_the_same_key_again() {
        let key = NodeKey::generate();
        assert_eq!(NodeKey::from_seed(*key.seed()).peer_id(), key.peer_id());
    }
}
