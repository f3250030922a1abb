//! The DHT as applications use it.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerage_dht::record::Kind;
use peerage_dht::{
    Class, Contact, Ended, Event, Health, Input, Operation, Options, Outcome, Standing, Step, Target,
};
use peerage_identity::PeerId;
use peerage_machine::Now;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;

use super::DhtCore;
use super::driver::{Caller, DhtMessage, MAX_STEPS_BEHIND};
use super::report::{DhtReport, Settled};
use crate::shared::Shared;

/// An operation of a node that knows nobody waits so long for somebody, and then says so.
pub(crate) const CONTACT_PATIENCE: Duration = Duration::from_secs(2);

/// Why an operation of the DHT failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DhtError {
    /// The node was started without.
    #[error("this node runs without a DHT: start it with NodeBuilder::dht, or `peerage node --dht`")]
    Off,
    /// The node has been shut down.
    #[error("the node has been shut down")]
    Closed,
    /// A key or a topic that is none.
    #[error("a key or topic of {length} bytes: give 1 to {most}")]
    Key {
        /// Its length.
        length: usize,
        /// The longest.
        most: usize,
    },
    /// A name under which nothing is kept.
    #[error("a name of {length} bytes: give at most {most}")]
    Name {
        /// Its length.
        length: usize,
        /// The longest.
        most: usize,
    },
    /// Nobody could be asked.
    #[error("no node of the DHT is known: connect to one, or name one as a seed")]
    NoContacts,
    /// Too many operations are under way.
    #[error(
        "too many operations of the DHT are under way: wait for some, or raise dht.lookup.max_operations"
    )]
    TooMany,
    /// As many records of this node, or things that it provides, are looked after as may be.
    #[error(
        "this node looks after as much as it may: take something back (forget, leave, stop_providing), or raise {limit}"
    )]
    TooManyKept {
        /// The limit.
        limit: &'static str,
    },
    /// A mailbox takes no message of this node's.
    #[error("{peer} does not take this message: {why}")]
    NotWelcome {
        /// Whose it is.
        peer: PeerId,
        /// The reason, and what can be done.
        why: String,
    },
    /// It was not found.
    #[error("not found: {report}")]
    NotFound {
        /// How it went.
        report: Box<DhtReport>,
    },
    /// It was stored at fewer nodes than were asked for. Where the report says that it is looked after, the node tries on by itself.
    #[error("stored at too few nodes{}: {report}", if report.looked_after { ", the node tries on" } else { "" })]
    TooFewStored {
        /// How it went.
        report: Box<DhtReport>,
    },
    /// A record cannot be what it should be, and why.
    #[error("this cannot be published: {0}")]
    Record(String),
    /// What is wanted makes no sense, and why.
    #[error("the DHT refused it: {why}")]
    Refused {
        /// The reason.
        why: String,
    },
}

/// The DHT of a node: [`Node::dht`](crate::Node::dht). Clones are handles to the same.
#[derive(Clone)]
pub struct Dht {
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for Dht {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dht").field("on", &self.shared.dht.is_some()).finish_non_exhaustive()
    }
}

impl Dht {
    /// Where a peer can be reached, by its ID alone: as soon as it answers itself or two networks name one address of it; with a [`DhtCall::quorum`] of one, as soon as anybody
    /// names it. First come the addresses that are proved, then those that most networks name.
    pub fn find_peer(&self, peer: PeerId) -> DhtCall<(Contact, DhtReport)> {
        let read = |outcome: &Outcome| match outcome.found.clone() {
            Some(contact) => Ok((contact, DhtReport::of(outcome))),
            None => Err(not_found(DhtReport::of(outcome))),
        };
        self.call(Ok(Operation::FindPeer { peer }), read)
    }

    /// The nodes closest to a place, those that answer, the closest first. `target` is hashed, as libp2p does with keys.
    pub fn closest(&self, target: impl AsRef<[u8]>) -> DhtCall<(Vec<Contact>, DhtReport)> {
        let wanted = key(target.as_ref()).map(|target| Operation::Closest { target });
        self.call(wanted, |outcome| Ok((outcome.closest.clone(), DhtReport::of(outcome))))
    }

    /// Tells the nodes closest to `key`, at most 80 bytes and a multihash for other libp2p nodes, that this node provides what it names, with the addresses at which it listens. Holders keep that for
    /// two days ([`dht.store.provider_ttl`](peerage_dht::store::StoreConfig::provider_ttl)); the node tells them again after half of that, and when its addresses change, until
    /// [`Dht::stop_providing`]. With [`DhtCall::once`] it does not.
    pub fn provide(&self, target: impl AsRef<[u8]>) -> DhtCall<DhtReport> {
        let addresses = self.shared.listening.here().addresses.clone();
        let provider = Contact::new(self.shared.me, &addresses);
        let replicas = self.replicas(Kind::Value);
        let target = provider_key(target.as_ref());
        let make = move |_: Options, terms: Terms| async move {
            Ok(Operation::Provide { target: target?, provider, replicas, renew: !terms.once })
        };
        self.make(make, stored)
    }

    /// Who provides what `key` names, up to `wanted` of them.
    pub fn providers(&self, target: impl AsRef<[u8]>, wanted: usize) -> DhtCall<(Vec<Contact>, DhtReport)> {
        let wanted = provider_key(target.as_ref()).map(|target| Operation::Providers { target, wanted });
        self.call(wanted, |outcome| Ok((outcome.providers.clone(), DhtReport::of(outcome))))
    }

    /// Stores a value as it is under a key as it is, as libp2p's PUT_VALUE does: for namespaces that this node and the others have a validator for.
    /// Nobody looks after it: its holders keep it for two days, and whoever wants it for longer puts it again.
    pub fn put_raw(&self, target: impl AsRef<[u8]>, value: impl Into<Bytes>) -> DhtCall<DhtReport> {
        let (value, replicas) = (value.into(), self.replicas(Kind::Value));
        let wanted = key(target.as_ref()).map(|target| Operation::Put { target, value, replicas });
        self.call(wanted, stored)
    }

    /// The value that is stored under a key as it is, as libp2p's GET_VALUE does.
    pub fn get_raw(&self, target: impl AsRef<[u8]>) -> DhtCall<(Bytes, DhtReport)> {
        let wanted = key(target.as_ref()).map(|target| Operation::Get { target });
        self.call(wanted, |outcome| match outcome.values.first() {
            Some(found) => Ok((found.value.clone(), DhtReport::of_value(outcome))),
            None => Err(not_found(DhtReport::of(outcome))),
        })
    }

    /// How the node stands in the DHT: whom it knows, how large the network seems, what it has asked and served.
    ///
    /// # Errors
    /// [`DhtError::Off`], [`DhtError::Closed`].
    pub async fn standing(&self) -> Result<Standing, DhtError> {
        self.of_machine(|now, machine| machine.standing(now)).await
    }

    /// The routing table: every peer in it, with its health.
    ///
    /// # Errors
    /// [`DhtError::Off`], [`DhtError::Closed`].
    pub async fn table(&self) -> Result<Vec<(Contact, Health)>, DhtError> {
        let all = |_, machine: &mut peerage_dht::Dht| {
            machine.table().peers().map(|(contact, health)| (contact.clone(), health)).collect()
        };
        self.of_machine(all).await
    }

    /// Runs on the machine, between two inputs.
    pub(super) async fn of_machine<T: Send + 'static>(
        &self,
        run: impl FnOnce(Now, &mut peerage_dht::Dht) -> T + Send + 'static,
    ) -> Result<T, DhtError> {
        let (reply, answer) = oneshot::channel();
        let call = DhtMessage::Machine(Box::new(move |now, machine| {
            // Whoever asked may be gone.
            let _ = reply.send(run(now, machine));
        }));
        self.core()?.to_driver.send(call).await.map_err(|_| DhtError::Closed)?;
        answer.await.map_err(|_| DhtError::Closed)
    }

    /// What happens to the DHT as a whole: joined, alone, an attack suspected. Events that nobody reads in time are left out.
    ///
    /// # Errors
    /// [`DhtError::Off`].
    pub fn events(&self) -> Result<broadcast::Receiver<Event>, DhtError> {
        Ok(self.core()?.events.subscribe())
    }

    /// At how many nodes a kind of record is to be kept; at all of them where there are fewer. Zero without a DHT.
    pub fn replicas(&self, kind: Kind) -> usize {
        self.shared.dht.as_ref().map_or(0, |dht| dht.records.of(kind).replicas)
    }

    pub(super) fn core(&self) -> Result<&Arc<DhtCore>, DhtError> {
        self.shared.dht.as_ref().ok_or(DhtError::Off)
    }

    pub(super) fn call<T: Send + 'static>(
        &self,
        wanted: Result<Operation, DhtError>,
        read: impl FnOnce(&Outcome) -> Result<T, DhtError> + Send + 'static,
    ) -> DhtCall<T> {
        self.call_then(wanted, move |outcome, _| std::future::ready(read(&outcome)))
    }

    /// An operation after which `then` goes on, under the same options: what comes of that is the result.
    pub(super) fn call_then<T, F>(
        &self,
        wanted: Result<Operation, DhtError>,
        then: impl FnOnce(Outcome, Options) -> F + Send + 'static,
    ) -> DhtCall<T>
    where
        F: Future<Output = Result<T, DhtError>> + Send + 'static,
    {
        let core = self.core().cloned();
        let wanted = core.and_then(|core| Ok((core, Wanted::Known(wanted?))));
        DhtCall::new(wanted, Box::new(move |outcome, options| Box::pin(then(outcome, options))))
    }

    /// An operation that is only made when the call is awaited, by what its options say then.
    pub(super) fn make<T: Send + 'static, F>(
        &self,
        make: impl FnOnce(Options, Terms) -> F + Send + 'static,
        read: impl FnOnce(&Outcome) -> Result<T, DhtError> + Send + 'static,
    ) -> DhtCall<T>
    where
        F: Future<Output = Result<Operation, DhtError>> + Send + 'static,
    {
        let make: Make = Box::new(move |options, terms| Box::pin(make(options, terms)));
        let wanted = self.core().cloned().map(|core| (core, Wanted::Made(make)));
        DhtCall::new(wanted, Box::new(move |outcome, _| Box::pin(std::future::ready(read(&outcome)))))
    }
}

pub(super) fn key(bytes: &[u8]) -> Result<Target, DhtError> {
    let most = peerage_dht::MAX_TARGET_BYTES;
    Target::new(bytes).ok_or(DhtError::Key { length: bytes.len(), most })
}

/// Holders take no longer ones.
fn provider_key(bytes: &[u8]) -> Result<Target, DhtError> {
    let most = peerage_dht::store::MAX_PROVIDER_KEY;
    if !(1..=most).contains(&bytes.len()) {
        return Err(DhtError::Key { length: bytes.len(), most });
    }
    key(bytes)
}

pub(super) fn stored(outcome: &Outcome) -> Result<DhtReport, DhtError> {
    let report = DhtReport::of(outcome);
    match outcome.ended {
        Ended::Stored => Ok(report),
        _ => Err(DhtError::TooFewStored { report: Box::new(report) }),
    }
}

pub(super) fn not_found(report: DhtReport) -> DhtError {
    DhtError::NotFound { report: Box::new(report) }
}

type Reading<T> = Pin<Box<dyn Future<Output = Result<T, DhtError>> + Send>>;
type ReadOutcome<T> = Box<dyn FnOnce(Outcome, Options) -> Reading<T> + Send>;
type Making = Pin<Box<dyn Future<Output = Result<Operation, DhtError>> + Send>>;
type Make = Box<dyn FnOnce(Options, Terms) -> Making + Send>;

/// What a call wants.
enum Wanted {
    Known(Operation),
    Made(Make),
}

/// What the caller of a store says of what it stores.
#[derive(Debug, Clone, Default)]
pub(super) struct Terms {
    /// How long it lasts.
    pub(super) lasts: Option<Duration>,
    /// It is not renewed.
    pub(super) once: bool,
    /// Shown to the recipient's holders.
    pub(super) token: Bytes,
}

/// An operation of the DHT that is about to start: await it. Dropping what awaits it cancels it, with every request that it has under way.
#[must_use = "nothing happens before it is awaited"]
pub struct DhtCall<T> {
    wanted: Result<(Arc<DhtCore>, Wanted), DhtError>,
    options: Options,
    terms: Terms,
    steps: Option<mpsc::Sender<Step>>,
    settled: Option<mpsc::Sender<Outcome>>,
    read: ReadOutcome<T>,
}

impl<T> DhtCall<T> {
    fn new(wanted: Result<(Arc<DhtCore>, Wanted), DhtError>, read: ReadOutcome<T>) -> Self {
        Self {
            wanted,
            options: Options::default(),
            terms: Terms::default(),
            steps: None,
            settled: None,
            read,
        }
    }

    /// The same call with another result.
    pub(super) fn map<U: 'static>(self, map: impl FnOnce(T) -> U + Send + 'static) -> DhtCall<U>
    where
        T: 'static,
    {
        let Self { wanted, options, terms, steps, settled, read } = self;
        let read: ReadOutcome<U> = Box::new(move |outcome, options| {
            let reading = read(outcome, options);
            Box::pin(async move { reading.await.map(map) })
        });
        DhtCall { wanted, options, terms, steps, settled, read }
    }

    /// The same call under the options of another one.
    pub(super) fn under(mut self, options: Options) -> Self {
        self.options = Options { watch: false, ..options };
        self
    }

    /// How urgent it is: how many requests are under way at once, and how soon the next one starts. Default: interactive.
    pub fn class(mut self, class: Class) -> Self {
        self.options.class = class;
        self
    }

    /// For a value: so many valid answers from different networks, of which the best is taken. For a store: the call returns after so many nodes have stored
    /// it, and the rest is asked on ([`DhtCall::settled`]). Default: two for a value that may change, or all of the closest where more nodes stand than an honest network has there, one for content that never does;
    /// half of the replicas for a store. Twenty hear out all of the closest: whoever sits among them with an older version misleads nobody then, for two to three times the requests.
    pub fn quorum(mut self, quorum: usize) -> Self {
        self.options.quorum = quorum;
        self
    }

    /// After so long whatever is there is returned. Default: 10 s for [`Class::Interactive`], 30 s for the other classes (`dht.lookup.interactive_deadline`,
    /// `dht.lookup.background_deadline`).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// Over how many disjoint paths it goes, 1 to 8: more than one find what a dishonest node on one of them would hide.
    pub fn paths(mut self, paths: usize) -> Self {
        self.options.paths = paths;
        self
    }

    /// At most so many requests under way at once in each lookup of the call, and as many copies beside it: from 3 to what `dht.lookup.alpha` is, 3 to 16; fewer are taken as 3, more as
    /// that many. Zero, as by default, is the class's own number.
    pub fn alpha(mut self, alpha: usize) -> Self {
        self.options.alpha = alpha;
        self
    }

    /// Lets each step be watched, while the call is awaited; of a value also answers that come up to 2.5 s after the end with something newer. A watcher that falls
    /// behind by thousands misses some.
    pub fn watch(mut self) -> (Self, Steps) {
        let (steps, receiver) = mpsc::channel(MAX_STEPS_BEHIND);
        self.steps = Some(steps);
        self.options.watch = true;
        (self, Steps(receiver))
    }
}

impl DhtCall<DhtReport> {
    /// How long what is published lasts, a minute or more, unless it is renewed; and for how long it is renewed each time. Default: what is configured for its kind, such as
    /// `dht.records.value.default_ttl`; at most its `max_ttl`. What is stored as it is and what is provided lasts for as long as holders keep it.
    pub fn lasts(mut self, lasts: Duration) -> Self {
        self.terms.lasts = Some(lasts);
        self
    }

    /// Lets it expire: it is not renewed. Without this, what is published and what is provided is renewed while the node runs. Messages are not.
    pub fn once(mut self) -> Self {
        self.terms.once = true;
        self
    }

    /// The same call under the options and terms of another one.
    pub(super) fn on(self, options: Options, terms: &Terms) -> Self {
        Self { terms: terms.clone(), ..self.under(options) }
    }

    /// For a message: the recipient's leave, as [`Dht::mailbox_token`] gives it there. With it no work is done.
    pub fn token(mut self, token: impl Into<Bytes>) -> Self {
        self.terms.token = token.into();
        self
    }

    /// Lets the final counts be awaited: a store returns when enough nodes have stored, and goes on to the others.
    ///
    /// ```no_run
    /// # async fn example(dht: peerage::Dht) -> Result<(), peerage::DhtError> {
    /// let (storing, mut settled) = dht.put("colour", "blue").settled();
    /// println!("enough have it: {}", storing.await?);
    /// if let Some(last) = settled.report().await {
    ///     println!("all were asked: {last}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn settled(mut self) -> (Self, Settled) {
        let (settled, receiver) = mpsc::channel(1);
        self.settled = Some(settled);
        (self, Settled(receiver))
    }
}

/// The steps of a watched operation, in their order.
#[derive(Debug)]
pub struct Steps(mpsc::Receiver<Step>);

impl Steps {
    /// The next one; `None` when the operation is over. Cancel-safe.
    pub async fn next(&mut self) -> Option<Step> {
        self.0.recv().await
    }
}

impl<T> fmt::Debug for DhtCall<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = self.wanted.as_ref().map(|(_, wanted)| match wanted {
            Wanted::Known(operation) => Some(operation),
            Wanted::Made(_) => None,
        });
        f.debug_struct("DhtCall")
            .field("wanted", &wanted)
            .field("options", &self.options)
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}

impl<T: 'static> IntoFuture for DhtCall<T> {
    type Output = Result<T, DhtError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { wanted, mut options, terms, steps, settled, read } = self;
        Box::pin(async move {
            let (core, wanted) = wanted?;
            let wanted = match wanted {
                Wanted::Known(operation) => operation,
                Wanted::Made(make) => {
                    let start = Instant::now();
                    let wanted = make(options, terms).await?;
                    options.deadline =
                        options.deadline.map(|deadline| deadline.saturating_sub(start.elapsed()));
                    wanted
                }
            };
            let limit = limit_of(&wanted);
            let mut events = core.events.subscribe();
            let begun = Instant::now();
            let mut outcome = run(&core, wanted.clone(), options, steps.clone(), settled.clone()).await?;
            if outcome.ended == Ended::NoContacts {
                // A node that has just been started, or has just been connected to, is about to know somebody.
                let joined = async {
                    while !matches!(events.recv().await, Ok(Event::Joined { .. }) | Err(RecvError::Closed)) {}
                };
                let patience =
                    options.deadline.map_or(CONTACT_PATIENCE, |deadline| deadline.min(CONTACT_PATIENCE));
                let _ = tokio::time::timeout(patience, joined).await;
                options.deadline = options.deadline.map(|deadline| deadline.saturating_sub(begun.elapsed()));
                outcome = run(&core, wanted, options, steps, settled.clone()).await?;
            }
            options.deadline = options.deadline.map(|deadline| deadline.saturating_sub(outcome.took));
            match outcome.ended {
                Ended::NoContacts => Err(DhtError::NoContacts),
                Ended::TooMany => Err(DhtError::TooMany),
                Ended::TooManyKept => Err(DhtError::TooManyKept { limit }),
                Ended::Refused(why) => Err(DhtError::Refused { why: why.to_string() }),
                _ => {
                    if let Some(settled) = settled.filter(|_| !outcome.unsettled) {
                        // Whoever waited for the end may be gone.
                        let _ = settled.try_send(outcome.clone());
                    }
                    read(outcome, options).await
                }
            }
        })
    }
}

/// The limit that a publisher of so much is up against.
fn limit_of(wanted: &Operation) -> &'static str {
    match wanted {
        Operation::Provide { .. } => "dht.replication.max_provided",
        _ => "dht.replication.max_sets",
    }
}

async fn run(
    core: &Arc<DhtCore>,
    wanted: Operation,
    options: Options,
    steps: Option<mpsc::Sender<Step>>,
    settled: Option<mpsc::Sender<Outcome>>,
) -> Result<Outcome, DhtError> {
    let operation = core.next_operation();
    let (done, outcome) = oneshot::channel();
    let caller = Caller { done, settled, steps };
    let start = DhtMessage::Start { operation, wanted, options, caller };
    core.to_driver.send(start).await.map_err(|_| DhtError::Closed)?;
    let waiting = core.waiting(Input::Cancel { operation });
    let outcome = outcome.await.map_err(|_| DhtError::Closed);
    waiting.answered();
    outcome
}

#[cfg(test)]
mod tests {
    use peerage_dht::StepKind;

    use super::*;

    /// X-29: a watcher that does not look keeps so many steps, and no more.
    #[tokio::test]
    async fn a_watcher_of_a_lookup_may_be_four_thousand_steps_behind() {
        let call = DhtCall::new(Err(DhtError::Off), Box::new(|_, _| Box::pin(async { Ok(()) })));
        let (call, mut steps) = call.watch();
        assert!(call.options.watch);
        let sender = call.steps.unwrap();
        let step = |at| Step { at: Duration::from_millis(at), what: StepKind::Ended(Ended::Complete) };
        let taken = (0..5000).filter(|at| sender.try_send(step(*at)).is_ok()).count();
        assert_eq!(taken, 4096);
        assert_eq!(steps.next().await, Some(step(0)));
    }
}
