//! What this node has published and provides: how it stands, and how it is taken back.

use std::time::Duration;

use bytes::Bytes;
use peerage_dht::Target;
use peerage_dht::record::{EntryId, MailboxRules, Place};
use peerage_dht::replication::{SetState, SetView};
use peerage_dht::topic::Ad;
use peerage_identity::PeerId;

use super::handle::{Dht, DhtError, key};

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

    async fn forget_at(&self, place: Place) -> Result<bool, DhtError> {
        let Some(target) = place.target(&self.core()?.network) else { return Ok(false) };
        let id = EntryId::of(target.key(), &Bytes::new());
        self.of_machine(move |now, machine| machine.forget(now, &id)).await
    }
}

fn published(me: &PeerId, view: &SetView) -> Published {
    let tombstone = view.record.is_tombstone();
    let nothing = if tombstone { " (taken back)" } else { "" };
    Published {
        what: format!("{}{nothing}", in_words(me, view)),
        place: view.record.place().clone(),
        state: view.state,
        live: view.live,
        wanted: view.wanted,
        holders: view.holders.iter().map(|holder| *holder.peer()).collect(),
        not_after: Duration::from_secs(view.not_after),
        renewed: view.renews.is_some(),
        tombstone,
    }
}

fn in_words(me: &PeerId, view: &SetView) -> String {
    let hex = |hash: &[u8; 32]| hash.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    match view.record.place() {
        Place::Endpoint { .. } => "endpoint".to_owned(),
        Place::Topic { topic, shard } => {
            let ad = view.record.body().and_then(|body| Ad::decode(body).ok());
            let shard = if *shard == 0 { String::new() } else { format!(", shard {shard}") };
            format!("topic {}{shard}", ad.map_or_else(|| hex(topic), |ad| ad.topic))
        }
        Place::Mailbox { recipient, .. } if recipient == me => {
            let rules = view.record.body().and_then(|body| MailboxRules::decode(body).ok());
            let cleared = rules.map_or(0, |rules| rules.cleared.len());
            format!("rules of the mailbox, {cleared} read")
        }
        Place::Mailbox { recipient, .. } => format!("message to {recipient}"),
        Place::Value { salt, .. } => format!("value {}", salt.escape_ascii()),
        Place::Immutable { hash } => format!("content {}", hex(hash)),
    }
}
