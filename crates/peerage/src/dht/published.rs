//! What this node has published and provides: how it stands, and how it is taken back; and how what it keeps for others stands.

use std::time::Duration;

use bytes::Bytes;
use peerage_dht::record::{Claim, EntryId, MailboxRules, Place};
use peerage_dht::replication::{SetState, SetView};
use peerage_dht::topic::Ad;
use peerage_dht::{HeldView, Target};
use peerage_identity::PeerId;

use super::handle::{Dht, DhtError, key};

/// The most records that [`Dht::held`] shows.
pub const MAX_HELD_SHOWN: usize = 1_000;

/// A record of this node's and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// What it is, in words, such as `topic chess` or `value colour`.
    pub what: String,
    /// Where it stands.
    pub place: Place,
    /// How it stands.
    pub state: SetState,
    /// Nodes that have said that they have it, and have not failed since.
    pub live: usize,
    /// So many are wanted.
    pub wanted: usize,
    /// Who they are.
    pub holders: Vec<PeerId>,
    /// When it expires unless it is renewed, since the Unix epoch.
    pub not_after: Duration,
    /// Whether it is renewed for as long as the node runs.
    pub renewed: bool,
    /// It says that there is nothing any more.
    pub tombstone: bool,
}

/// A record that this node keeps as one of the nodes close to it, and how it stands as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldRecord {
    /// What it is, in words.
    pub what: String,
    /// Where it stands.
    pub place: Place,
    /// Who has signed it.
    pub publisher: PeerId,
    /// How it stands; `None` where so many others are closer that this copy is one to spare, of which the node compares nothing.
    pub state: Option<SetState>,
    /// Live copies that this node knows of, its own included: neighbours that compare with it what they hold. Of those further away it knows nothing.
    pub live: usize,
    /// So many are wanted.
    pub wanted: usize,
    /// When it goes, since the Unix epoch.
    pub not_after: Duration,
    /// It says that there is nothing any more.
    pub tombstone: bool,
}

impl Dht {
    /// How what this node has published stands: for each record the nodes that have it, and how many should. A record that is not renewed is here until it expires, or until
    /// its holders say that it was read.
    ///
    /// # Errors
    /// [`DhtError::Off`], [`DhtError::Closed`].
    pub async fn published(&self) -> Result<Vec<Published>, DhtError> {
        let me = self.shared.me;
        let views = self.of_machine(|_, machine| machine.published()).await?;
        Ok(views.iter().map(|view| published(&me, view)).collect())
    }

    /// The records that this node keeps because it is close to them, its own among them where it is: at most `most` and at most [`MAX_HELD_SHOWN`], the closest first, with how many
    /// live copies it knows of, and how many there should be. How many it keeps in all is in [`Dht::standing`].
    ///
    /// # Errors
    /// [`DhtError::Off`], [`DhtError::Closed`].
    pub async fn held(&self, most: usize) -> Result<Vec<HeldRecord>, DhtError> {
        let me = self.shared.me;
        let most = most.min(MAX_HELD_SHOWN);
        let views = self.of_machine(move |now, machine| machine.held_records(now, most)).await?;
        Ok(views.iter().map(|view| held(&me, view)).collect())
    }

    /// Renews a value no more: it is there until it expires. [`Dht::remove`] takes it away at once. Says whether it was looked after.
    ///
    /// # Errors
    /// [`DhtError::Off`], [`DhtError::Closed`].
    pub async fn forget(&self, name: impl Into<Bytes>) -> Result<bool, DhtError> {
        self.forget_at(Place::Value { publisher: self.shared.me, salt: name.into() }).await
    }

    /// Renews content no more: it is there until it expires, for nobody can take back what never changes. Says whether it was looked after.
    ///
    /// # Errors
    /// [`DhtError::Off`], [`DhtError::Closed`].
    pub async fn forget_immutable(&self, hash: [u8; 32]) -> Result<bool, DhtError> {
        self.forget_at(Place::Immutable { hash }).await
    }

    /// The keys that this node provides and tells again.
    ///
    /// # Errors
    /// [`DhtError::Off`], [`DhtError::Closed`].
    pub async fn provided(&self) -> Result<Vec<Bytes>, DhtError> {
        let name = |target: Target| Bytes::copy_from_slice(target.name());
        self.of_machine(move |_, machine| machine.provided().into_iter().map(name).collect()).await
    }

    /// Provides something no more: it is not told again, and others forget it within `dht.store.provider_ttl`, two days by default. Nobody can be told sooner: libp2p has no
    /// word for it. Says whether it was provided.
    ///
    /// # Errors
    /// [`DhtError::Off`], [`DhtError::Closed`], [`DhtError::Key`].
    pub async fn stop_providing(&self, target: impl AsRef<[u8]>) -> Result<bool, DhtError> {
        let target = key(target.as_ref())?;
        self.of_machine(move |now, machine| machine.stop_providing(now, &target)).await
    }

    pub(super) async fn forget_at(&self, place: Place) -> Result<bool, DhtError> {
        let Some(target) = place.target(&self.core()?.network) else { return Ok(false) };
        let id = EntryId::of(target.key(), &Bytes::new());
        self.of_machine(move |now, machine| machine.forget(now, &id)).await
    }
}

fn published(me: &PeerId, view: &SetView) -> Published {
    Published {
        what: in_words(me, &view.record),
        place: view.record.place().clone(),
        state: view.state,
        live: view.live,
        wanted: view.wanted,
        holders: view.holders.iter().map(|holder| *holder.peer()).collect(),
        not_after: Duration::from_secs(view.not_after),
        renewed: view.renews.is_some(),
        tombstone: view.record.is_tombstone(),
    }
}

fn held(me: &PeerId, view: &HeldView) -> HeldRecord {
    let HeldView { claim, state, live, wanted, expires } = view;
    HeldRecord {
        what: in_words(me, claim),
        place: claim.place().clone(),
        publisher: claim.publisher(),
        state: *state,
        live: *live,
        wanted: *wanted,
        not_after: Duration::from_secs(*expires),
        tombstone: claim.is_tombstone(),
    }
}

fn in_words(me: &PeerId, record: &Claim) -> String {
    let nothing = if record.is_tombstone() { " (taken back)" } else { "" };
    format!("{}{nothing}", place_in_words(me, record))
}

fn place_in_words(me: &PeerId, record: &Claim) -> String {
    let hex = |hash: &[u8; 32]| hash.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    match record.place() {
        Place::Endpoint { .. } => "endpoint".to_owned(),
        Place::Topic { topic, shard } => {
            let ad = record.body().and_then(|body| Ad::decode(body).ok());
            let shard = if *shard == 0 { String::new() } else { format!(", shard {shard}") };
            format!("topic {}{shard}", ad.map_or_else(|| hex(topic), |ad| ad.topic))
        }
        Place::Mailbox { recipient, .. } if recipient == me && record.publisher() == *me => {
            let rules = record.body().and_then(|body| MailboxRules::decode(body).ok());
            let cleared = rules.map_or(0, |rules| rules.cleared.len());
            format!("rules of the mailbox, {cleared} read")
        }
        Place::Mailbox { recipient, .. } if *recipient == record.publisher() => {
            format!("rules of the mailbox of {recipient}")
        }
        Place::Mailbox { recipient, .. } => format!("message to {recipient}"),
        Place::Value { salt, .. } => match std::str::from_utf8(salt) {
            Ok(name) => format!("value {}", name.escape_debug()),
            Err(_) => format!("value {}", salt.escape_ascii()),
        },
        Place::Immutable { hash } => format!("content {}", hex(hash)),
    }
}

#[cfg(test)]
mod tests {
    use peerage_dht::record::{Draft, Record};
    use peerage_dht::store::Put;
    use peerage_identity::NodeKey;

    use super::*;
    use crate::{DhtConfig, Node};

    /// X-29, AL-71: what is shown of the records that are held is bounded, and each says how it stands.
    #[tokio::test]
    async fn no_more_held_records_are_shown_than_the_bound() {
        let node = Node::builder().dht(DhtConfig::default()).start().await.unwrap();
        let dht = node.dht();
        assert_eq!(dht.held(10).await.unwrap(), []);
        let core = dht.core().unwrap();
        let until = dht.shared.clock.now().unix.as_secs() + 3600;
        for number in 0..MAX_HELD_SHOWN + 1 {
            let publisher = NodeKey::from_seed([1 + (number % 20) as u8; 32]);
            let salt = Bytes::from(number.to_string());
            let place = Place::Value { publisher: publisher.peer_id(), salt };
            let draft = Draft::new(place, 1, until, Bytes::from_static(b"body"));
            let record = Record::sign(&publisher, &core.network, draft).unwrap();
            let plant = move |now, machine: &mut peerage_dht::Dht| {
                machine.plant_record(now, record.target(), &record.to_bytes()).unwrap()
            };
            assert_eq!(dht.of_machine(plant).await.unwrap(), Put::Stored);
        }
        assert_eq!(dht.standing().await.unwrap().held.records, MAX_HELD_SHOWN + 1);
        let held = dht.held(usize::MAX).await.unwrap();
        assert_eq!((held.len(), dht.held(7).await.unwrap()), (MAX_HELD_SHOWN, held[..7].to_vec()));
        let HeldRecord { what, publisher, live, wanted, not_after, tombstone, .. } = &held[0];
        assert!(what.starts_with("value ") && *publisher != node.peer_id() && !tombstone, "{:?}", held[0]);
        assert_eq!((*live, *wanted, not_after.as_secs()), (1, 12, until));
        node.close().await;
    }
}
