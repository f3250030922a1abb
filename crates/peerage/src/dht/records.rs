//! Records: signed here, read here. What stands where, and who may put it there, is `peerage_dht::record`'s.

use std::time::Duration;

use bytes::Bytes;
use peerage_dht::record::{Draft, EndpointBody, Kind, MAX_SALT, MailboxPolicy, Place, Record};
use peerage_dht::{Class, Contact, Mode, Operation, Options, Outcome, Target};
use peerage_identity::{DialAddress, PeerId};

use super::DhtCore;
use super::handle::{Dht, DhtCall, DhtError, Terms, not_found, stored};
use super::report::DhtReport;

/// Nothing is published for less: it would be renewed without a pause.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);

/// How long a node waits before it publishes its addresses again when nobody has taken them.
const RETRY_PUBLISH: Duration = Duration::from_secs(10);

/// What a node keeps under its own name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Value {
    /// The content.
    pub body: Bytes,
    /// Who signed it.
    pub publisher: PeerId,
    /// The publisher's number: the higher, the newer.
    pub seq: u64,
    /// When it expires unless it is published again, since the Unix epoch.
    pub not_after: Duration,
}

impl Dht {
    /// Publishes where this node can be reached, under its peer ID, so that others can connect to it by its ID alone, and who may write to its mailbox. A node that serves does
    /// so by itself, again whenever that changes.
    pub fn publish(&self) -> DhtCall<DhtReport> {
        let body = self.core().map(|core| {
            let default = MailboxPolicy::Open { work_bits: core.records.mailbox_work_bits };
            let said = core.policy.borrow().map(|(_, policy)| policy);
            let mailbox = Some(said.unwrap_or(default));
            let addresses = self.shared.listening.here().addresses.clone();
            EndpointBody { addresses, mailbox, protocols: Vec::new() }.encode()
        });
        self.store(Place::Endpoint { peer: self.shared.me }, body)
    }

    /// Where a peer says that it can be reached: its own signed word, unlike [`Dht::find_peer`].
    pub fn endpoint(&self, peer: PeerId) -> DhtCall<(Vec<DialAddress>, DhtReport)> {
        self.fetch(&Place::Endpoint { peer }, move |record, report| {
            let Some(body) = record.body() else { return Err(not_found(report)) };
            let endpoint =
                EndpointBody::decode(&peer, body).map_err(|fault| DhtError::Record(fault.to_string()))?;
            Ok((endpoint.addresses, report))
        })
    }

    /// Keeps a value under this node's own name, where only this node can change it. `name` has up to 64 bytes, the value 1 byte to 4 KiB.
    ///
    /// It is kept for two days at a time and renewed while the node runs ([`DhtCall::lasts`], [`DhtCall::once`]), until [`Dht::remove`] takes it away or [`Dht::forget`] lets it
    /// expire; after a restart of the node it is renewed once it is put again. A call that is dropped, or finds nobody, before anybody has stored the value leaves nothing behind; where too few have stored it the call says so, and the
    /// node looks after it all the same: [`DhtReport::looked_after`].
    pub fn put(&self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> DhtCall<DhtReport> {
        let value = value.into();
        // An empty body says that there is no value any more: nobody is to lose one because what was to make the next has failed.
        let body = match value.is_empty() {
            true => Err(DhtError::Record("a value has at least one byte: remove takes one away".to_owned())),
            false => Ok(value),
        };
        self.store(Place::Value { publisher: self.shared.me, salt: name.into() }, body)
    }

    /// The value that a node keeps under its own name.
    pub fn get(&self, publisher: PeerId, name: impl Into<Bytes>) -> DhtCall<(Value, DhtReport)> {
        self.fetch(&Place::Value { publisher, salt: name.into() }, value)
    }

    /// Takes a value away: what is left says that there is none any more, for as long as a value can last.
    pub fn remove(&self, name: impl Into<Bytes>) -> DhtCall<DhtReport> {
        self.store(Place::Value { publisher: self.shared.me, salt: name.into() }, Ok(Bytes::new()))
    }

    /// Keeps content of up to 8 KiB under its own hash, which is returned: whoever has that can fetch it, and nobody can change it. It is kept for two days at a time and
    /// renewed while the node runs, as a value is, until [`Dht::forget_immutable`].
    pub fn put_immutable(&self, content: impl Into<Bytes>) -> ([u8; 32], DhtCall<DhtReport>) {
        let content = content.into();
        let place = Place::of_content(&content);
        let hash = match &place {
            Place::Immutable { hash } => *hash,
            _ => [0; 32],
        };
        (hash, self.store(place, Ok(content)))
    }

    /// The content with this hash.
    pub fn get_immutable(&self, hash: [u8; 32]) -> DhtCall<(Bytes, DhtReport)> {
        self.fetch(&Place::Immutable { hash }, |record, report| {
            let Some(body) = record.body() else { return Err(not_found(report)) };
            Ok((body.clone(), report))
        })
    }

    /// Signs a record on `place` with `body` and stores it at as many nodes as its kind asks for.
    pub(super) fn store(&self, place: Place, body: Result<Bytes, DhtError>) -> DhtCall<DhtReport> {
        let dht = self.clone();
        let make = move |_: Options, terms: Terms| async move {
            let core = dht.core()?.clone();
            dht.publication(&core, place, body?, &terms)
        };
        self.make(make, stored)
    }

    /// What signs and stores it, and looks after it if it is to be renewed.
    pub(super) fn publication(
        &self,
        core: &DhtCore,
        place: Place,
        body: Bytes,
        terms: &Terms,
    ) -> Result<Operation, DhtError> {
        let (draft, renew) = self.draft(core, place, body, terms)?;
        Ok(Operation::Publish { record: Box::new(self.sign(core, draft)?), renew })
    }

    /// What is to be signed, and for how long it is renewed each time, if it is.
    pub(super) fn draft(
        &self,
        core: &DhtCore,
        place: Place,
        body: Bytes,
        terms: &Terms,
    ) -> Result<(Draft, Option<Duration>), DhtError> {
        target_of(core, &place)?;
        let (unix, kind) = (self.shared.clock.now().unix, place.kind());
        let limits = core.records.of(kind);
        if body.len() > limits.max_body_bytes {
            let most = limits.max_body_bytes;
            return Err(DhtError::Record(format!("it has {} bytes: at most {most} are kept", body.len())));
        }
        // What says that there is nothing any more outlasts what it hides; then both are forgotten.
        let tombstone = body.is_empty() && kind != Kind::Immutable;
        let life = terms.lasts.unwrap_or(if tombstone { limits.max_ttl } else { limits.default_ttl });
        if !(SHORTEST_LIFE.min(limits.max_ttl)..=limits.max_ttl).contains(&life) {
            let (least, most) = (SHORTEST_LIFE, limits.max_ttl);
            let why = format!("it is to last {life:?}: {least:?} to {most:?} is what nodes keep it for");
            return Err(DhtError::Record(why));
        }
        // A message to somebody is kept until it was read, or is old.
        let message = matches!(&place, Place::Mailbox { recipient, .. } if *recipient != self.shared.me);
        let renew = (!message && !tombstone && !terms.once).then_some(life);
        let seq = if kind == Kind::Immutable { 0 } else { core.next_seq(unix) };
        Ok((Draft::new(place, seq, (unix + life).as_secs(), body), renew))
    }

    pub(super) fn sign(&self, core: &DhtCore, draft: Draft) -> Result<Record, DhtError> {
        Record::sign(&self.shared.key, &core.network, draft)
            .map_err(|fault| DhtError::Record(fault.to_string()))
    }

    /// Looks up the record at a place that holds one.
    fn fetch<T: Send + 'static>(
        &self,
        place: &Place,
        read: impl FnOnce(&Record, DhtReport) -> Result<T, DhtError> + Send + 'static,
    ) -> DhtCall<T> {
        let core = self.core().cloned();
        let network = core.as_ref().ok().map(|core| core.network.clone());
        let wanted = core.and_then(|core| Ok(Operation::Get { target: target_of(&core, place)? }));
        self.call(wanted, move |outcome| {
            let report = DhtReport::of_value(outcome);
            let found = outcome.values.first().zip(network.as_ref());
            let Some((found, network)) = found else { return Err(not_found(report)) };
            let record = Record::open(network, &found.value);
            read(&record.map_err(|fault| DhtError::Record(fault.to_string()))?, report)
        })
    }

    /// Looks up all records at a place that holds several.
    pub(super) fn collect<T: Send + 'static>(
        &self,
        place: &Place,
        wanted: usize,
        read: impl FnOnce(&DhtCore, &Outcome) -> Vec<T> + Send + 'static,
    ) -> DhtCall<(Vec<T>, DhtReport)> {
        let core = self.core().cloned();
        let of = core.clone();
        let wanted =
            core.and_then(|core| Ok(Operation::Collect { target: target_of(&core, place)?, wanted }));
        self.call(wanted, move |outcome| Ok((read(&*of?, outcome), DhtReport::of(outcome))))
    }
}

/// The key of a place.
pub(super) fn target_of(core: &DhtCore, place: &Place) -> Result<Target, DhtError> {
    let length = match place {
        Place::Value { salt, .. } => salt.len(),
        _ => place.name(&core.network).len(),
    };
    place.target(&core.network).ok_or(DhtError::Name { length, most: MAX_SALT })
}

/// Publishes where this node can be reached, at once and whenever that or who may write to it changes, and again before the record expires; and tells those whom it told what it
/// provides where it is now. A node that does not serve does only that; one that does not any more renews what it has published no longer.
pub(crate) async fn keep_published(shared: std::sync::Arc<crate::shared::Shared>) {
    let dht = Dht { shared: shared.clone() };
    let Ok(core) = dht.core().cloned() else { return };
    let (mut changes, mut policies) = (shared.listening.changes(), core.policy.subscribe());
    let mut modes = core.mode.subscribe();
    let every = core.records.endpoint.default_ttl / 3;
    let mut served = false;
    loop {
        changes.borrow_and_update();
        policies.borrow_and_update();
        let serves = *modes.borrow_and_update() == Mode::Server;
        if std::mem::replace(&mut served, serves)
            && !serves
            && dht.forget_at(Place::Endpoint { peer: shared.me }).await.is_err()
        {
            return;
        }
        let addresses = shared.listening.here().addresses.clone();
        let provider = Contact::new(shared.me, &addresses);
        if dht.of_machine(move |now, machine| machine.moved(now, &provider)).await.is_err() {
            return;
        }
        let wait = match serves && !addresses.is_empty() {
            false => every,
            true => match dht.publish().class(Class::Normal).await {
                Ok(_) => every,
                Err(DhtError::Closed | DhtError::Off) => return,
                Err(error) => {
                    tracing::debug!(%error, "where this node can be reached is not published yet");
                    RETRY_PUBLISH
                }
            },
        };
        tokio::select! {
            biased;
            changed = changes.changed() => if changed.is_err() { return },
            _ = policies.changed() => {}
            _ = modes.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn value(record: &Record, report: DhtReport) -> Result<(Value, DhtReport), DhtError> {
    let Some(value) = value_of(record) else { return Err(not_found(report)) };
    Ok((value, report))
}

/// The value that a record holds. A tombstone says that there is none any more.
pub(super) fn value_of(record: &Record) -> Option<Value> {
    let body = record.body().filter(|_| !record.is_tombstone())?.clone();
    let version = record.version();
    let not_after = Duration::from_secs(version.not_after);
    Some(Value { body, publisher: record.publisher(), seq: version.seq, not_after })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DhtConfig, Node};

    ///
    #[tokio::test]
    async fn each_kind_is_published_for_the_time_that_is_configured() {
        let mut config = DhtConfig::default();
        let records = &mut config.records;
        let kinds = [
            &mut records.endpoint,
            &mut records.topic,
            &mut records.mailbox,
            &mut records.value,
            &mut records.immutable,
        ];
        for (minutes, limits) in (10..).zip(kinds) {
            limits.default_ttl = Duration::from_secs(60 * minutes);
        }
        let node = Node::builder().dht(config).start().await.unwrap();
        let (dht, me) = (node.dht(), node.peer_id());
        let core = dht.core().unwrap();
        let places = [
            Place::Endpoint { peer: me },
            Place::Topic { topic: [1; 32], shard: 0 },
            Place::Mailbox { recipient: me, slot: 0 },
            Place::Value { publisher: me, salt: Bytes::from_static(b"name") },
            Place::of_content(&Bytes::from_static(b"body")),
        ];
        let now = node.dht().shared.clock.now().unix.as_secs();
        for (minutes, place) in (10..).zip(places) {
            let kind = place.kind();
            let body = Bytes::from_static(b"body");
            let (draft, _) = dht.draft(core, place, body, &Terms::default()).unwrap();
            let life = draft.not_after - now;
            assert!((60 * minutes..60 * minutes + 5).contains(&life), "{kind:?}: {life} s");
        }
        node.close().await;
    }
}
