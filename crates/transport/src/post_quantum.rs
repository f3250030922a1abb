//! X25519MLKEM768: a key exchange that stays secret as long as either of its halves does (draft-ietf-tls-ecdhe-mlkem).
//!
//! The dialler shows an ML-KEM-768 key and an X25519 key; the listener answers with a ciphertext and its X25519 key. The secret is both secrets, one after the
//! other, ML-KEM's first. X25519 is the provider's. `session` tells which connections use it.

mod session;

use ml_kem::kem::{Decapsulate, Encapsulate, KeyExport};
use ml_kem::{Seed, ml_kem_768};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::crypto::ring::kx_group::X25519;
use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved, ProtocolVersion};

pub(crate) use session::{Watched, protects};

/// The group, as rustls takes it.
pub(crate) static X25519_MLKEM768: &dyn SupportedKxGroup = &Hybrid;

#[derive(Debug)]
struct Hybrid;

impl SupportedKxGroup for Hybrid {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut seed = Seed::default();
        SystemRandom::new().fill(&mut seed).map_err(|_| Error::FailedToGetRandomBytes)?;
        let quantum = ml_kem_768::DecapsulationKey::from_seed(seed);
        let classical = X25519.start()?;
        let mut share = quantum.encapsulation_key().to_bytes().to_vec();
        share.extend_from_slice(classical.pub_key());
        Ok(Box::new(Started { quantum: Box::new(quantum), classical, share }))
    }

    fn start_and_complete(&self, share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let (quantum, classical) = split(share, KEY_BYTES)?;
        let key = quantum.try_into().map_err(|_| INVALID_SHARE)?;
        let key = ml_kem_768::EncapsulationKey::new(key).map_err(|_| INVALID_SHARE)?;
        let classical = X25519.start_and_complete(classical)?;
        let (ciphertext, secret) = key.encapsulate();
        session::mark();
        Ok(CompletedKeyExchange {
            group: self.name(),
            pub_key: [&ciphertext[..], &classical.pub_key].concat(),
            secret: joined(&secret, &classical.secret),
        })
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

/// The dialler's side, between its share and the listener's.
struct Started {
    quantum: Box<ml_kem_768::DecapsulationKey>,
    classical: Box<dyn ActiveKeyExchange>,
    share: Vec<u8>,
}

impl ActiveKeyExchange for Started {
    fn complete(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        let (quantum, classical) = split(share, CIPHERTEXT_BYTES)?;
        let ciphertext = quantum.try_into().map_err(|_| INVALID_SHARE)?;
        let classical = self.classical.complete(classical)?;
        session::mark();
        Ok(joined(&self.quantum.decapsulate(ciphertext), &classical))
    }

    /// The X25519 key is shown by itself as well, so that a listener without ML-KEM needs no second round trip.
    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((self.classical.group(), self.classical.pub_key()))
    }

    fn complete_hybrid_component(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        self.classical.complete(share)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

/// The two halves of a share, the first of which has a fixed length.
fn split(share: &[u8], first: usize) -> Result<(&[u8], &[u8]), Error> {
    share.split_at_checked(first).filter(|(_, rest)| rest.len() == X25519_BYTES).ok_or(INVALID_SHARE)
}

fn joined(quantum: &[u8], classical: &SharedSecret) -> SharedSecret {
    SharedSecret::from([quantum, classical.secret_bytes()].concat())
}

const KEY_BYTES: usize = 1184;
const CIPHERTEXT_BYTES: usize = 1088;
const X25519_BYTES: usize = 32;
const INVALID_SHARE: Error = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_find_the_same_secret_of_both_halves() {
        let dialler = X25519_MLKEM768.start().unwrap();
        assert_eq!(dialler.pub_key().len(), KEY_BYTES + X25519_BYTES);
        let listener = X25519_MLKEM768.start_and_complete(dialler.pub_key()).unwrap();
        assert_eq!(listener.pub_key.len(), CIPHERTEXT_BYTES + X25519_BYTES);
        let secret = dialler.complete(&listener.pub_key).unwrap();
        assert_eq!(secret.secret_bytes(), listener.secret.secret_bytes());
        assert_eq!(secret.secret_bytes().len(), 64);
    }

    #[test]
    fn a_share_of_another_length_or_outside_the_field_is_refused() {
        let whole = X25519_MLKEM768.start().unwrap().pub_key().to_vec();
        for length in [0, 1, 32, KEY_BYTES, whole.len() - 1] {
            assert!(X25519_MLKEM768.start_and_complete(&whole[..length]).is_err(), "{length}");
            let dialler = X25519_MLKEM768.start().unwrap();
            assert!(dialler.complete(&whole[..length]).is_err(), "{length}");
        }
        // Coefficients are below 3329; these are 4095 (FIPS 203 § 7.2).
        let mut outside = whole.clone();
        outside[..3].fill(0xff);
        assert!(X25519_MLKEM768.start_and_complete(&outside).is_err());
        // An X25519 key of small order.
        let mut small = whole;
        small[KEY_BYTES..].fill(0);
        assert!(X25519_MLKEM768.start_and_complete(&small).is_err());
    }

    #[test]
    fn a_changed_ciphertext_gives_another_secret_and_no_error() {
        let dialler = X25519_MLKEM768.start().unwrap();
        let mut listener = X25519_MLKEM768.start_and_complete(dialler.pub_key()).unwrap();
        listener.pub_key[5] ^= 1;
        let secret = dialler.complete(&listener.pub_key).unwrap();
        assert_ne!(secret.secret_bytes()[..32], listener.secret.secret_bytes()[..32]);
        assert_eq!(secret.secret_bytes()[32..], listener.secret.secret_bytes()[32..]);
    }
}
