//! What goes into the machine and what comes out of it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::PeerId;

use crate::lookup::{Judged, Step};
use crate::record::Record;
use crate::store::{Batch, Equivocation};
use crate::{Answer, Contact, Family, Query, Target};

/// A request of ours, named by the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A query that somebody asked us, named by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u64);

/// An operation that a caller started, named by the driver. An ID is used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub u64);

/// What can happen to a node of the DHT.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// A connection to a peer is up and admitted, whoever dialled.
    Connected {
        /// The peer with the addresses that it says it has: those of its signed record, or of identify.
        contact: Contact,
        /// Where it is seen.
        remote: IpAddr,
        /// The connection's round trip time, when it is known already.
        rtt: Option<Duration>,
    },
    /// The last connection to a peer is gone.
    Disconnected {
        /// Who it was.
        peer: PeerId,
    },
    /// Whether a connected peer advertises the protocol (hello or identify). Nobody is entered in the table who doesn't.
    Supports {
        /// The peer.
        peer: PeerId,
        /// Whether it serves.
        serves: bool,
    },
    /// A request of ours was answered. An answer that comes after [`Output::CancelAsk`] may be handed in all the same, as long as the driver has it.
    Answered {
        /// Which one.
        request: RequestId,
        /// From the sent query to the answer, without what a dial, the hello and the negotiation took.
        rtt: Duration,
        /// Where the peer was, as the connection shows it.
        remote: IpAddr,
        /// What it says.
        answer: Answer,
    },
    /// A request of ours came to nothing.
    Failed {
        /// Which one.
        request: RequestId,
        /// Why.
        why: Failure,
    },
    /// Somebody asks us. It is answered by [`Output::Reply`], always; one with a [`crate::Wait`] maybe later.
    Asked {
        /// The driver's name for it.
        query: QueryId,
        /// Who asks, as the connection proves it.
        from: PeerId,
        /// Where it is.
        remote: IpAddr,
        /// What it asks.
        ask: Query,
        /// Whether it understands what Peerage nodes add to libp2p's messages. To others a record that is stored is sent back: that is libp2p's acknowledgement.
        extended: bool,
    },
    /// Whoever asked us this doesn't wait for the answer any more. Unknown ones, and those that are answered, are left alone.
    Withdrawn {
        /// Which one.
        query: QueryId,
    },
    /// A caller wants something. It ends with [`Output::Done`], always and once.
    Start {
        /// The driver's name for it.
        operation: OperationId,
        /// What is wanted.
        wanted: Operation,
        /// How.
        options: Options,
    },
    /// The caller doesn't want it any more: everything it holds is freed, and [`Output::Done`] says what was found so far.
    Cancel {
        /// Which one; unknown ones are left alone.
        operation: OperationId,
    },
    /// Peers to begin with.
    Known {
        /// Who they are.
        contacts: Vec<Contact>,
        /// From where they are known.
        source: Source,
    },
    /// The machine's network has changed: what failed just before was our own fault, and who was given up is tried again.
    NetworkChanged,
    /// Whether we serve from now on. Client or server: the driver advertises the protocol, or doesn't, accordingly.
    Mode(Mode),
    /// What became of an [`Output::Write`].
    Written {
        /// The batch's number.
        number: u64,
        /// Whether it is written.
        ok: bool,
    },
}

/// From where contacts are known that nobody has verified yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The user named them to begin with.
    Bootstrap,
    /// The address book, or what an earlier run kept ([`crate::Dht::keep`]).
    Book,
}

/// Whether a node serves the DHT or only uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Mode {
    /// It answers queries and may stand in others' tables.
    #[default]
    Server,
    /// It asks and publishes, refuses all queries, and advertises nothing.
    Client,
}

/// Why a request came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// The peer, or the machine at its address, says no: connection refused, not admitted, stream reset.
    Refused,
    /// No address of it could be reached.
    Unreachable,
    /// It was reached, or should have been, and said nothing in time.
    Timeout,
    /// What it answered is not an answer.
    Broken,
    /// It doesn't speak the protocol.
    Unsupported,
    /// Our own fault, such as a spent dial budget or a missing network: the peer is not blamed.
    Local,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "not let in",
            Self::Unreachable => "not reached",
            Self::Timeout => "silent",
            Self::Broken => "not understood",
            Self::Unsupported => "without a DHT",
            Self::Local => "not asked, for a fault of our own",
        })
    }
}

/// How urgent something is. It decides how many requests a lookup starts at once and how soon it starts the next (dht.md B.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Class {
    /// Somebody waits for it.
    Interactive,
    /// A program waits for it.
    #[default]
    Normal,
    /// Nobody waits for it: maintenance, repair.
    Frugal,
}

/// What a caller can want.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// The addresses of a peer: ends when it answers itself, or when as many distinct address groups name one of them as [`Options::quorum`] says, two by default. What fewer
    /// have named is told when nobody is left to ask, or when time is up.
    FindPeer {
        /// Who.
        peer: PeerId,
    },
    /// The peers closest to a place, those that answer.
    Closest {
        /// The place.
        target: Target,
    },
    /// A value: the best of as many valid ones from distinct address groups as [`Options::quorum`] says.
    Get {
        /// Its key.
        target: Target,
    },
    /// Waits until a value is newer than the one that the caller has, for [`crate::LookupConfig::watch_deadline`] unless [`Options::deadline`] says otherwise; ends with
    /// [`Ended::Found`] then. For keys with one value. Half of [`crate::LookupConfig::max_operations`] may be of this kind; further ones end with [`Ended::TooMany`].
    Changed {
        /// Its key.
        target: Target,
        /// What the caller's is worth, as the judge says; `None` for nothing, so that any value ends the wait.
        known: Option<Judged>,
    },
    /// All values that the holders of a key have, page by page: a topic's members, a mailbox.
    Collect {
        /// The key.
        target: Target,
        /// Enough is enough: the lookup ends when so many different ones are there.
        wanted: usize,
    },
    /// Who provides something.
    Providers {
        /// What.
        target: Target,
        /// Enough is enough.
        wanted: usize,
    },
    /// Store a value at the peers closest to its key.
    Put {
        /// Its key.
        target: Target,
        /// The value, already signed and sealed where its kind asks for that.
        value: Bytes,
        /// At how many peers.
        replicas: usize,
    },
    /// Store a record that this node has signed, and look after it: publish it again where too few have it, renew it if that is wanted. Needs [`crate::Dht::with_records`].
    Publish {
        /// The record.
        record: Box<Record>,
        /// Renewed for so long each time, at a third of that, until [`crate::Dht::forget`]; `None` to let it expire. A tombstone is never renewed: when it expires, so
        /// has what it hides.
        renew: Option<Duration>,
    },
    /// Tell the peers closest to the target that we provide it.
    Provide {
        /// What.
        target: Target,
        /// We, with the addresses at which we can be reached.
        provider: Contact,
        /// How many peers are told.
        replicas: usize,
        /// Told again before they forget it, until [`crate::Dht::stop_providing`]. Needs [`crate::Dht::with_records`].
        renew: bool,
    },
}

/// How an operation is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How urgent it is.
    pub class: Class,
    /// For [`Operation::Get`]: so many valid answers from distinct address groups; zero for two, or for all of the closest where more peers stand than an honest network has there
    /// ([`crate::LookupConfig::crowded`]). Content under its hash needs one. For [`Operation::Put`] and
    /// [`Operation::Provide`]: the caller is told after so many acknowledgements; zero for half of the replicas, or of the peers where there are fewer.
    pub quorum: usize,
    /// After so long whatever is there is returned, an hour at most; `None` for the class's own: [`crate::LookupConfig::deadline`].
    pub deadline: Option<Duration>,
    /// Over how many disjoint paths, 1 to 8; zero for the kind's own: 2 for stores, 1 for all else until an answer looks implausible.
    pub paths: usize,
    /// At most so many requests in flight, in each lookup of the operation and as many copies beside it: from [`crate::LookupConfig::LEAST_ALPHA`], as which less is taken, to
    /// [`crate::LookupConfig::alpha`], as which more is. Zero for the class's own.
    pub alpha: usize,
    /// Whether each step is reported as [`Output::Step`].
    pub watch: bool,
}

impl Options {
    /// No operation takes longer, whatever its caller says.
    pub const MOST_DEADLINE: Duration = Duration::from_secs(3600);

    /// The requests in flight that the caller permits, from the least on; zero where it doesn't say.
    pub(super) fn permitted(&self) -> usize {
        if self.alpha == 0 { 0 } else { self.alpha.max(crate::LookupConfig::LEAST_ALPHA) }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { class: Class::Interactive, quorum: 0, deadline: None, paths: 0, alpha: 0, watch: false }
    }
}

/// What the machine wants done or wants known.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Output {
    /// Send a query over the peer's connection, or dial the peer for it. [`Input::Answered`] or [`Input::Failed`] says what became of it; after
    /// `deadline` the machine has given it up itself, and nothing need be said.
    Ask {
        /// Its name.
        request: RequestId,
        /// Whom.
        contact: Contact,
        /// What.
        query: Query,
        /// How urgent it is.
        class: Class,
        /// When it is given up, as [`peerage_machine::Now::mono`].
        deadline: Duration,
    },
    /// An answer isn't needed any more. What was not sent yet should not be; a dial for it alone may be given up.
    CancelAsk {
        /// Which one.
        request: RequestId,
        /// The answer to a question that was sent already is of use for so long, as what it holds may be newer than all that was found. Zero where it isn't.
        listen: Duration,
    },
    /// The answer to an [`Input::Asked`].
    Reply {
        /// Which one.
        query: QueryId,
        /// The answer, of less than [`crate::MAX_ANSWER_BYTES`].
        answer: Answer,
    },
    /// A step of an operation that is watched. A [`crate::StepKind::Later`] may come after [`Output::Done`].
    Step {
        /// Which one.
        operation: OperationId,
        /// What happened.
        step: Step,
    },
    /// A watched operation has no more steps although [`crate::Dht::is_listening`] said so at its end.
    Listened {
        /// Which one.
        operation: OperationId,
    },
    /// An operation has ended for its caller.
    Done {
        /// Which one.
        operation: OperationId,
        /// What came of it.
        outcome: Box<Outcome>,
    },
    /// A store that returned early has reached everybody whom it should: the final counts. After [`Output::Done`], at most once, and only for stores.
    Settled {
        /// Which one.
        operation: OperationId,
        /// Who stored and who didn't, and the counts.
        outcome: Box<Outcome>,
    },
    /// Write this to the disk, then hand in [`Input::Written`]. One batch at a time.
    Write(Batch),
    /// There is nobody to ask: dial whoever the user named to begin with, and hand in [`Input::Connected`] or [`Input::Known`].
    WantContacts,
    /// Something that an operator may want to know.
    Event(Event),
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Why it ended.
    pub ended: Ended,
    /// The peers closest to the target that answered, the closest first.
    pub closest: Vec<Contact>,
    /// The peer that was looked for.
    pub found: Option<Contact>,
    /// The values: of [`Operation::Get`] at most one, the best.
    pub values: Vec<Found>,
    /// Who provides it.
    pub providers: Vec<Contact>,
    /// Who has stored it. A refused copy is not among them.
    pub stored: Vec<Contact>,
    /// Who was asked to store it and didn't.
    pub not_stored: Vec<(Contact, NotStored)>,
    /// The way of the first value, or of the closest peer: so many answers stand before it, one after another.
    pub hops: u32,
    /// From the start to the end.
    pub took: Duration,
    /// How often what happened.
    pub counts: Counts,
    /// Whether the neighbourhood of the target looks too dense to be honest (dht.md B.6).
    pub dense: bool,
    /// Copies are still on the way: [`Output::Settled`] follows with the final counts.
    pub unsettled: bool,
    /// For [`Operation::Publish`]: the record is looked after from now on, whether or not enough have stored it. It isn't when the operation was cancelled, or had nobody
    /// to go to, before anybody stored it; nor when most holders have a newer one, or were told that this one was read.
    pub looked_after: bool,
    /// For a store: most of the holders that answered have shown something newer that stands there, or say of a message that its recipient has read it. Nobody needs it from us
    /// then.
    pub superseded: bool,
    /// A publisher was found to have signed two bodies under one sequence number: the first such proof among the values that holders answered with.
    pub equivocation: Option<Box<Equivocation>>,
}

impl Outcome {
    /// Nothing was found, for this reason.
    pub fn empty(ended: Ended) -> Self {
        Self {
            ended,
            closest: Vec::new(),
            found: None,
            values: Vec::new(),
            providers: Vec::new(),
            stored: Vec::new(),
            not_stored: Vec::new(),
            hops: 0,
            took: Duration::ZERO,
            counts: Counts::default(),
            dense: false,
            unsettled: false,
            looked_after: false,
            superseded: false,
            equivocation: None,
        }
    }
}

/// A value and how many said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The value, as it was stored.
    pub value: Bytes,
    /// How many peers answered with it.
    pub holders: usize,
    /// Whether peers of two networks did, by where they were met; on loopback, of two peers.
    pub borne_out: bool,
    /// The first who did.
    pub from: PeerId,
}

/// Why a copy was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotStored {
    /// The holder said no.
    Refused(crate::Refusal),
    /// The holder is full, or asked too often.
    Busy,
    /// The holder has a newer one.
    Stale,
    /// The holder was not reached, or did not answer.
    Failed(Failure),
}

impl fmt::Display for NotStored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Busy => f.write_str("busy"),
            Self::Stale => f.write_str("with a newer one"),
            Self::Failed(why) => why.fmt(f),
        }
    }
}

/// How often what happened in an operation. `asked` = `answered` + `failed` + `cancelled` when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requests sent, those included that were cancelled.
    pub asked: u32,
    /// Answers.
    pub answered: u32,
    /// Requests that came to nothing.
    pub failed: u32,
    /// Requests that an answer, the end or the caller made needless.
    pub cancelled: u32,
    /// Requests that took longer than expected, whatever became of them.
    pub suspected: u32,
    /// Answers among `answered` that came after their request was suspected.
    pub late: u32,
    /// Copies acknowledged.
    pub stored: u32,
    /// Copies refused, for whatever reason.
    pub refused: u32,
    /// Invalid values.
    pub invalid: u32,
    /// Requests among `asked` that went over a connection that stood.
    pub warm: u32,
    /// Requests beside `asked`: those of lookups of the neighbourhood, which a place that looks too dense sets off (dht.md B.6).
    pub around: u32,
}

/// What several operations cost together.
impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.suspected += other.suspected;
        self.stored += other.stored;
        self.refused += other.refused;
        self.late += other.late;
        self.invalid += other.invalid;
        self.warm += other.warm;
        self.around += other.around;
    }
}

/// Why an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Ended {
    /// What was looked for is there: the peer, the quorum of values, as many as were wanted.
    Found,
    /// Everybody close to the target has answered; nothing more is to be found.
    Complete,
    /// As many have stored it as the caller asked for.
    Stored,
    /// Everybody was asked and fewer have stored it.
    TooFewStored,
    /// The time was up: what there is, is partial.
    Deadline,
    /// The caller cancelled it: what there is, is partial.
    Cancelled,
    /// As many requests were sent as one lookup may: [`crate::LookupConfig::max_requests`]. What there is, is partial.
    Exhausted,
    /// Nobody is known who could be asked.
    NoContacts,
    /// Too many operations are under way: [`crate::LookupConfig::max_operations`].
    TooMany,
    /// As many of our own are looked after as may be: records ([`crate::replication::ReplicationConfig::max_sets`]), or things that we provide
    /// ([`crate::replication::ReplicationConfig::max_provided`]).
    TooManyKept,
    /// What is wanted is not served by this version, or makes no sense.
    Refused(crate::Refusal),
}

/// What an operator may want to know.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The node has found its place: the lookup for itself is done.
    Joined {
        /// Entries of the table.
        peers: usize,
        /// Since the first contact was known.
        took: Duration,
    },
    /// Nobody in the table can be asked, or all are silent: the node begins anew.
    Alone,
    /// Most of what we ask fails: our own network is suspected, and nobody is blamed until it is back.
    OutageSuspected {
        /// Of one version of IP alone; `None` for all.
        family: Option<Family>,
    },
    /// Answers come again.
    OutageOver {
        /// As it was suspected.
        family: Option<Family>,
    },
    /// The peers around a target are denser than an honest network of this size has them: somebody may be hiding what lies there.
    Dense {
        /// The target.
        target: Target,
        /// The size of the network times the distance of the k-th closest: about k in an honest one.
        score: f64,
    },
    /// A publisher has signed two bodies under one sequence number: the proof.
    Equivocation(Box<Equivocation>),
    /// Our clock is too far from the neighbours', or is right again.
    Clock {
        /// The neighbours' median is so many seconds ahead of ours.
        ahead: i64,
        /// Whether that is too far: then records are not refused for their times.
        wrong: bool,
    },
    /// Networks seen through different first contacts differ in size: one of them may be a trap (dht.md B.7).
    SizesDisagree {
        /// The smallest estimate.
        least: f64,
        /// The largest estimate.
        most: f64,
    },
}
