//! The rules: whether a value may stand under a key, for holders and for readers alike.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use peerage_identity::PeerId;
use peerage_machine::Now;

use super::{
    EndpointBody, Keeping, Kind, KindLimits, MailboxPolicy, MailboxRules, MailboxToken, Named, Network,
    Place, Record, RecordFault, RecordsConfig, Unverified, meets_work,
};
use crate::store::Equivocation;
use crate::topic::Ad;
use crate::{Invalid, Judge, Judged, Target};

/// Says which values of a namespace are valid, and which of two is the better one: what libp2p calls a validator, with its `select`.
///
/// It must be a pure function of what it is given.
pub trait Validator: Send + Sync {
    /// What `value` is worth under the key that `name` names, in full.
    ///
    /// # Errors
    /// [`Invalid`] when it must not stand there.
    fn validate(&self, now: Now, name: &[u8], value: &Bytes) -> Result<Judged, Invalid>;
}

/// Says which publishers are allowed, beyond the rule that nobody publishes under another peer's name.
pub trait Authority: Send + Sync {
    /// Whether `publisher` may publish at `place`.
    ///
    /// # Errors
    /// In a few words why not.
    fn allows(&self, now: Now, place: &Place, publisher: &PeerId) -> Result<(), &'static str>;
}

/// Everybody may publish.
#[derive(Debug, Clone, Copy, Default)]
pub struct Everybody;

impl Authority for Everybody {
    fn allows(&self, _: Now, _: &Place, _: &PeerId) -> Result<(), &'static str> {
        Ok(())
    }
}

/// The rules of one network, for one node. Clones share all of it: one judges in lookups, another in the store.
#[derive(Clone)]
pub struct Records {
    network: Network,
    config: Arc<RecordsConfig>,
    authority: Arc<dyn Authority>,
    validators: BTreeMap<String, Arc<dyn Validator>>,
    times_count: Arc<AtomicBool>,
}

/// A value that may stand where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// A record of ours.
    Record(Box<Record>),
    /// A value of the application's namespaces.
    Foreign(Judged),
}

impl Records {
    /// The rules of `network`, where everybody may publish and no other namespace is known.
    pub fn new(network: Network, config: impl Into<Arc<RecordsConfig>>) -> Self {
        let times_count = Arc::new(AtomicBool::new(true));
        Self {
            network,
            config: config.into(),
            authority: Arc::new(Everybody),
            validators: BTreeMap::new(),
            times_count,
        }
    }

    /// With a policy on who may publish.
    #[must_use]
    pub fn with_authority(mut self, authority: Arc<dyn Authority>) -> Self {
        self.authority = authority;
        self
    }

    /// With a validator for `/<namespace>/…` and `/<network>/<namespace>/…`. A kind of ours cannot be replaced: such a validator is never asked.
    #[must_use]
    pub fn with_validator(mut self, namespace: &str, validator: Arc<dyn Validator>) -> Self {
        self.validators.insert(namespace.to_owned(), validator);
        self
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The limits.
    pub fn config(&self) -> &RecordsConfig {
        &self.config
    }

    /// Whether records are refused for their times: not while our own clock is known to be wrong.
    pub fn count_times(&self, count: bool) {
        self.times_count.store(count, Ordering::Relaxed);
    }

    /// Whether records are refused for their times.
    pub fn times_count(&self) -> bool {
        self.times_count.load(Ordering::Relaxed)
    }

    /// Whether any namespace has a validator: only then values of such are kept.
    pub(crate) fn has_validators(&self) -> bool {
        !self.validators.is_empty()
    }

    /// How what stands under a key is kept; `None` where nothing may stand.
    pub fn keeping(&self, name: &[u8]) -> Option<Keeping> {
        match Place::parse(&self.network, name) {
            Named::Ours(place) => Some(self.config.of(place.kind()).keeping()),
            Named::Foreign(namespace) => {
                self.validators.contains_key(&namespace).then(|| self.config.foreign.keeping())
            }
            Named::Malformed => None,
        }
    }

    /// Reads a record that stands under `target` and checks everything but its signature, its mailbox's rules and whether it has a body.
    ///
    /// # Errors
    /// [`RecordFault`].
    pub fn read(&self, now: Now, target: &Target, value: &Bytes) -> Result<Unverified, RecordFault> {
        self.read_if(now, target, value, true)
    }

    /// The same of a record that was taken in before, as the disk gives it back: how long it is kept was settled then, perhaps by another clock.
    pub(crate) fn read_again(
        &self,
        now: Now,
        target: &Target,
        value: &Bytes,
    ) -> Result<Unverified, RecordFault> {
        self.read_if(now, target, value, false)
    }

    fn read_if(
        &self,
        now: Now,
        target: &Target,
        value: &Bytes,
        in_time: bool,
    ) -> Result<Unverified, RecordFault> {
        let unverified = Unverified::read(&self.network, value)?;
        let claim = unverified.claim();
        if claim.target() != target {
            return Err(RecordFault::OtherKey);
        }
        let limits = self.config.of(claim.place().kind());
        let bytes = claim.body().map_or(0, Bytes::len);
        if bytes > limits.max_body_bytes {
            return Err(RecordFault::TooLarge { bytes });
        }
        if in_time {
            self.check_times(now, claim.version().not_after, limits)?;
        }
        self.check_body(claim)?;
        self.authority.allows(now, claim.place(), &claim.publisher()).map_err(RecordFault::Policy)?;
        Ok(unverified)
    }

    /// Checks a value completely: what stands under `target`, with its body.
    ///
    /// # Errors
    /// [`RecordFault`].
    pub fn check(&self, now: Now, target: &Target, value: &Bytes) -> Result<Checked, RecordFault> {
        match Place::parse(&self.network, target.name()) {
            Named::Ours(_) => {
                let unverified = self.read(now, target, value)?;
                if unverified.claim().body().is_none() {
                    return Err(RecordFault::NoBody);
                }
                Ok(Checked::Record(Box::new(unverified.verify()?)))
            }
            Named::Foreign(namespace) => {
                let validator = self.validators.get(&namespace).ok_or(RecordFault::UnknownNamespace)?;
                let bytes = value.len();
                if bytes > self.config.foreign.max_body_bytes {
                    return Err(RecordFault::TooLarge { bytes });
                }
                let judged = validator.validate(now, target.name(), value);
                judged.map(Checked::Foreign).map_err(|invalid| RecordFault::Policy(invalid.why))
            }
            Named::Malformed => Err(RecordFault::Key),
        }
    }

    /// Whether the owner of a mailbox takes a message, by the rules in it that are known. Says so too whether the sender is a stranger, who has no token.
    ///
    /// # Errors
    /// [`RecordFault::NotWelcome`].
    pub fn check_welcome(
        &self,
        now: Now,
        message: &super::Claim,
        rules: Option<&MailboxRules>,
    ) -> Result<Welcome, RecordFault> {
        let Place::Mailbox { recipient, .. } = message.place() else { return Ok(Welcome::Known) };
        if *recipient == message.publisher() {
            return Ok(Welcome::Known);
        }
        let policy = rules
            .map_or(MailboxPolicy::Open { work_bits: self.config.mailbox_work_bits }, |rules| rules.policy);
        if policy == MailboxPolicy::Closed {
            return Err(RecordFault::NotWelcome);
        }
        let unix = if self.times_count() { now.unix.as_secs() } else { 0 };
        let token = message.token();
        if !token.is_empty() && MailboxToken::admits(token, recipient, &message.publisher(), unix) {
            return Ok(Welcome::Known);
        }
        match policy {
            MailboxPolicy::Open { work_bits } if meets_work(message, work_bits) => Ok(Welcome::Stranger),
            _ => Err(RecordFault::NotWelcome),
        }
    }

    /// AL-36: no zero tolerance for clocks that differ.
    fn check_times(&self, now: Now, not_after: u64, limits: &KindLimits) -> Result<(), RecordFault> {
        if !self.times_count() {
            return Ok(());
        }
        let unix = now.unix.as_secs();
        let latest = unix.saturating_add((limits.max_ttl + self.config.clock_tolerance).as_secs());
        match not_after {
            expired if expired <= unix => Err(RecordFault::Expired),
            far if far > latest => Err(RecordFault::TooFarAhead),
            _ => Ok(()),
        }
    }

    fn check_body(&self, claim: &super::Claim) -> Result<(), RecordFault> {
        let Some(body) = claim.body().filter(|body| !body.is_empty()) else { return Ok(()) };
        match claim.place() {
            Place::Endpoint { peer } => EndpointBody::decode(peer, body).map(drop),
            Place::Topic { topic, .. } => {
                let ad = Ad::decode(body)?;
                (super::topic_hash(&ad.topic) == *topic).then_some(()).ok_or(RecordFault::Body)
            }
            Place::Mailbox { recipient, .. } if *recipient == claim.publisher() => {
                MailboxRules::decode(body).map(drop)
            }
            Place::Mailbox { .. } | Place::Value { .. } | Place::Immutable { .. } => Ok(()),
        }
    }
}

/// How a message comes to a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Welcome {
    /// From the owner, or from somebody with a token.
    Known,
    /// From somebody who has done the work.
    Stranger,
}

impl Judge for Records {
    fn judge(&self, now: Now, target: &Target, value: &Bytes) -> Result<Judged, Invalid> {
        match self.check(now, target, value)? {
            Checked::Record(record) => Ok(Judged {
                slot: record.slot(),
                rank: Bytes::copy_from_slice(&record.version().to_bytes()),
                is_final: record.place().kind() == Kind::Immutable,
            }),
            Checked::Foreign(judged) => Ok(judged),
        }
    }

    fn contradiction(&self, target: &Target, values: [&Bytes; 2]) -> Option<Equivocation> {
        let [first, second] = values.map(|value| Unverified::read(&self.network, value).ok());
        let (first, second) = (first?, second?);
        let (one, other) = (first.claim(), second.claim());
        let same = one.publisher() == other.publisher() && one.slot() == other.slot();
        (same && one.version().equivocates(other.version())).then(|| Equivocation {
            publisher: one.publisher(),
            target: target.clone(),
            values: values.map(Bytes::clone),
        })
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespaces: Vec<_> = self.validators.keys().collect();
        f.debug_struct("Records").field("network", &self.network).field("validators", &namespaces).finish()
    }
}

#[cfg(test)]
mod tests;
