//! Records: signed here, read here. What stands where, and who may put it there, is `peerage_dht::record`'s.

use std::time::Duration;

use bytes::Bytes;
use peerage_dht::record::{
    Draft, EndpointBody, EntryId, Kind, MailboxPolicy, MailboxRules, Place, Record, mailbox_context,
    solve_work,
};
use peerage_dht::topic::Ad;
use peerage_dht::{Class, Operation, Outcome};
use peerage_identity::{DialAddress, NodeKey, PeerId, inlined_public_key, open_sealed, seal_to};

use super::DhtCore;
use super::handle::{Dht, DhtCall, DhtError, DhtReport, stored};
use crate::environment::seed;

/// How many numbers are tried at most for a message's proof of work: some seconds of one processor.
const MOST_WORK: u64 = 1 << 26;

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

/// A member of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Who.
    pub peer: PeerId,
    /// What it says about itself.
    pub ad: Ad,
}

/// A message from a mailbox, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Letter {
    /// Who signed it.
    pub from: PeerId,
    /// The content.
    pub body: Bytes,
    /// Names it, for [`Dht::clear_mailbox`].
    pub id: EntryId,
}

impl Dht {
    /// Publishes where this node can be reached, under its peer ID, so that others can connect to it by its ID alone.
    pub fn publish(&self) -> DhtCall<DhtReport> {
        let (shared, me) = (&self.shared, self.shared.me);
        let body = EndpointBody {
            addresses: shared.listening.here().addresses.clone(),
            mailbox: None,
            protocols: Vec::new(),
        };
        self.store(|_| Ok((Place::Endpoint { peer: me }, body.encode())))
    }

    /// Where a peer says that it can be reached: its own signed word, unlike [`Dht::find_peer`].
    pub fn endpoint(&self, peer: PeerId) -> DhtCall<(Vec<DialAddress>, DhtReport)> {
        self.fetch(&Place::Endpoint { peer }, move |record, report| {
            let body = record.body().ok_or(DhtError::NotFound { report })?;
            let endpoint =
                EndpointBody::decode(&peer, body).map_err(|fault| DhtError::Record(fault.to_string()))?;
            Ok((endpoint.addresses, report))
        })
    }

    /// Keeps a value under this node's own name, where only this node can change it. `name` has up to 64 bytes, the value up to 4 KiB.
    pub fn put(&self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> DhtCall<DhtReport> {
        let (publisher, salt, value) = (self.shared.me, name.into(), value.into());
        self.store(|_| Ok((Place::Value { publisher, salt }, value)))
    }

    /// The value that a node keeps under its own name.
    pub fn get(&self, publisher: PeerId, name: impl Into<Bytes>) -> DhtCall<(Value, DhtReport)> {
        self.fetch(&Place::Value { publisher, salt: name.into() }, value)
    }

    /// Takes a value away: what is left says that there is none any more.
    pub fn remove(&self, name: impl Into<Bytes>) -> DhtCall<DhtReport> {
        self.put(name, Bytes::new())
    }

    /// Keeps content of up to 8 KiB under its own hash, which is returned: whoever has that can fetch it, and nobody can change it.
    pub fn put_immutable(&self, content: impl Into<Bytes>) -> ([u8; 32], DhtCall<DhtReport>) {
        let content = content.into();
        let place = Place::of_content(&content);
        let hash = match &place {
            Place::Immutable { hash } => *hash,
            _ => [0; 32],
        };
        (hash, self.store(|_| Ok((place, content))))
    }

    /// The content with this hash.
    pub fn get_immutable(&self, hash: [u8; 32]) -> DhtCall<(Bytes, DhtReport)> {
        self.fetch(&Place::Immutable { hash }, |record, report| {
            let body = record.body().ok_or(DhtError::NotFound { report })?;
            Ok((body.clone(), report))
        })
    }

    /// Joins a topic for an hour: others who ask for it find this node and what it says about itself.
    pub fn announce(&self, ad: &Ad) -> DhtCall<DhtReport> {
        self.store(|_| Ok((Place::of_topic(&ad.topic, 0), ad.encode())))
    }

    /// Who is in a topic, up to `wanted` of them.
    pub fn topic(&self, topic: &str, wanted: usize) -> DhtCall<(Vec<Member>, DhtReport)> {
        let read = |core: &DhtCore, outcome: &Outcome| {
            let records =
                outcome.values.iter().filter_map(|found| Record::open(&core.network, &found.value).ok());
            let member = |record: Record| {
                let ad = Ad::decode(record.body().filter(|body| !body.is_empty())?).ok()?;
                Some(Member { peer: record.publisher(), ad })
            };
            records.filter_map(member).collect()
        };
        self.collect(&Place::of_topic(topic, 0), wanted, read)
    }

    /// Leaves a message of up to some 4,000 bytes for a node that may be away: sealed, so that it alone can read it, and signed by this one. It is kept for a
    /// week. A stranger's message costs the sender a proof of work, for which this call takes its time.
    pub fn mail(&self, to: PeerId, message: impl AsRef<[u8]>) -> DhtCall<DhtReport> {
        let (shared, place) = (&self.shared, Place::Mailbox { recipient: to, slot: 0 });
        let sealed = self.core().cloned().and_then(|core| {
            let key = inlined_public_key(&to).ok_or_else(|| {
                DhtError::Record(format!("{to} does not hold its key, so nothing can be sealed to it"))
            })?;
            let entropy = seed(shared.environment.as_ref())
                .map_err(|error| DhtError::Record(format!("there is no randomness: {error}")))?;
            let context = mailbox_context(&core.network, &shared.me, &to);
            let sealed = seal_to(&key, &context, message.as_ref(), &entropy);
            sealed.map_err(|error| DhtError::Record(error.to_string()))
        });
        self.store(|_| Ok((place, sealed?)))
    }

    /// The messages in this node's mailbox, those that open, by sender. What cannot be opened was sealed to somebody else and is passed over.
    pub fn mailbox(&self) -> DhtCall<(Vec<Letter>, DhtReport)> {
        let (me, key) = (self.shared.me, self.shared.key.clone());
        let read = move |core: &DhtCore, outcome: &Outcome| {
            let records =
                outcome.values.iter().filter_map(|found| Record::open(&core.network, &found.value).ok());
            records
                .filter(|record| record.publisher() != me)
                .filter_map(|record| letter(core, &key, &record))
                .collect()
        };
        let wanted = self.shared.dht.as_ref().map_or(0, |dht| dht.records.mailbox_messages);
        self.collect(&Place::Mailbox { recipient: me, slot: 0 }, wanted, read)
    }

    /// Tells the holders of this node's mailbox which messages were read, so that they drop them, and who may write: whoever does the work, only contacts with
    /// a token, or nobody.
    pub fn clear_mailbox(&self, read: Vec<EntryId>, policy: MailboxPolicy) -> DhtCall<DhtReport> {
        let place = Place::Mailbox { recipient: self.shared.me, slot: 0 };
        self.store(|_| Ok((place, MailboxRules { policy, cleared: read }.encode())))
    }

    /// The leading zero bits of work that a stranger's message needs by default; 0 without a DHT.
    pub fn mailbox_work_bits(&self) -> u32 {
        self.shared.dht.as_ref().map_or(0, |dht| dht.records.mailbox_work_bits)
    }

    /// Signs what `make` gives and stores it at as many nodes as its kind asks for.
    fn store(&self, make: impl FnOnce(&DhtCore) -> Result<(Place, Bytes), DhtError>) -> DhtCall<DhtReport> {
        let wanted = self.core().cloned().and_then(|core| {
            let (place, body) = make(&core)?;
            // A message is kept for a week and then it is old; content that never changes is published again by whoever wants it kept.
            let kind = place.kind();
            let renew = (kind != Kind::Mailbox).then(|| core.records.of(kind).default_ttl);
            let record = Box::new(self.sign(&core, place, body)?);
            Ok(Operation::Publish { record, renew })
        });
        self.call(wanted, stored)
    }

    fn sign(&self, core: &DhtCore, place: Place, body: Bytes) -> Result<Record, DhtError> {
        let unix = self.shared.clock.now().unix;
        let kind = place.kind();
        let limits = core.records.of(kind);
        if body.len() > limits.max_body_bytes {
            let most = limits.max_body_bytes;
            return Err(DhtError::Record(format!("it has {} bytes: at most {most} are kept", body.len())));
        }
        let seq = if kind == Kind::Immutable { 0 } else { core.next_seq(unix) };
        let not_after = (unix + limits.default_ttl).as_secs();
        let mut draft = Draft::new(place, seq, not_after, body);
        if let Place::Mailbox { recipient, .. } = &draft.place
            && *recipient != self.shared.me
        {
            let (me, bits) = (self.shared.me, core.records.mailbox_work_bits);
            let work = solve_work(&core.network, &draft.place, &me, seq, &draft.body, bits, MOST_WORK);
            draft.work =
                work.ok_or_else(|| DhtError::Record(format!("no proof of {bits} bits of work was found")))?;
        }
        Record::sign(&self.shared.key, &core.network, draft)
            .map_err(|fault| DhtError::Record(fault.to_string()))
    }

    /// Looks up the record at a place that holds one.
    fn fetch<T: 'static>(
        &self,
        place: &Place,
        read: impl FnOnce(&Record, DhtReport) -> Result<T, DhtError> + Send + 'static,
    ) -> DhtCall<T> {
        let core = self.core().cloned();
        let network = core.as_ref().ok().map(|core| core.network.clone());
        let wanted = core.and_then(|core| {
            let target = place.target(&core.network);
            target
                .map(|target| Operation::Get { target })
                .ok_or_else(|| DhtError::Record("its name is too long".into()))
        });
        self.call(wanted, move |outcome| {
            let report = DhtReport::of(outcome);
            let found = outcome.values.first().zip(network.as_ref());
            let (found, network) = found.ok_or(DhtError::NotFound { report })?;
            let record = Record::open(network, &found.value);
            read(&record.map_err(|fault| DhtError::Record(fault.to_string()))?, report)
        })
    }

    /// Looks up all records at a place that holds several.
    fn collect<T: 'static>(
        &self,
        place: &Place,
        wanted: usize,
        read: impl FnOnce(&DhtCore, &Outcome) -> Vec<T> + Send + 'static,
    ) -> DhtCall<(Vec<T>, DhtReport)> {
        let core = self.core().cloned();
        let of = core.clone();
        let wanted = core.and_then(|core| {
            let target = place.target(&core.network);
            let wanted = target.map(|target| Operation::Collect { target, wanted });
            wanted.ok_or_else(|| DhtError::Record("its name is too long".into()))
        });
        self.call(wanted, move |outcome| Ok((read(&*of?, outcome), DhtReport::of(outcome))))
    }
}

/// Where a peer can be dialled, by its own word where there is one, else by that of the nodes near it. Each address names the peer, so that nobody else is taken
/// for it.
pub(crate) async fn addresses_of(dht: &Dht, peer: PeerId) -> Vec<DialAddress> {
    let named = |addresses: Vec<DialAddress>| -> Vec<DialAddress> {
        addresses.into_iter().filter_map(|address| address.with_peer_id(peer).ok()).collect()
    };
    if let Ok((addresses, _)) = dht.endpoint(peer).await
        && !addresses.is_empty()
    {
        return named(addresses);
    }
    let found = dht.find_peer(peer).await;
    found.map(|(contact, _)| named(contact.addresses())).unwrap_or_default()
}

/// Publishes where this node can be reached, at once and whenever that changes, and again before the record expires.
pub(crate) async fn keep_published(shared: std::sync::Arc<crate::shared::Shared>) {
    let mut changes = shared.listening.changes();
    let dht = Dht { shared: shared.clone() };
    let every = shared.dht.as_ref().map_or(RETRY_PUBLISH, |core| core.records.endpoint.default_ttl / 3);
    loop {
        changes.borrow_and_update();
        let reachable = !shared.listening.here().addresses.is_empty();
        let wait = match reachable {
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
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn value(record: &Record, report: DhtReport) -> Result<(Value, DhtReport), DhtError> {
    // A tombstone says that there is nothing any more.
    let body = record.body().filter(|_| !record.is_tombstone()).ok_or(DhtError::NotFound { report })?;
    let version = record.version();
    let not_after = Duration::from_secs(version.not_after);
    let value = Value { body: body.clone(), publisher: record.publisher(), seq: version.seq, not_after };
    Ok((value, report))
}

fn letter(core: &DhtCore, key: &NodeKey, record: &Record) -> Option<Letter> {
    let (from, me) = (record.publisher(), key.peer_id());
    let context = mailbox_context(&core.network, &from, &me);
    let opened = open_sealed(key, &context, record.body()?).ok()?;
    Some(Letter { from, body: Bytes::copy_from_slice(&opened), id: record.id() })
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
            let record = dht.sign(core, place, Bytes::from_static(b"body")).unwrap();
            let life = record.version().not_after - now;
            assert!((60 * minutes..60 * minutes + 5).contains(&life), "{kind:?}: {life} s");
        }
        node.close().await;
    }
}
