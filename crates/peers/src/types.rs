//! What goes into the peer manager and what comes out of it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::{AddressScope, DialAddress, PeerId, SignedPeerRecord};

use crate::bans::{Ban, BanTarget};
use crate::cause::{Cause, Failure, Fault, RejectReason};
use crate::class::PeerClass;
use crate::dial_queue::Target;
use crate::door::Door;
use crate::penalty::Penalty;
use crate::record::{BookChange, StoredPeer};
use crate::standing::Standing;
use crate::state::PeerState;

/// One connection, as the driver numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// One dial under way, as the peer manager numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// One explicit request to connect, as the driver numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The other side did.
    Inbound,
    /// We did.
    Outbound,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        })
    }
}

/// Why we want to know an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A contact for the first dial.
    Seed,
    /// Always wanted: redialled for ever, outside the limits. Needs a peer ID.
    Persistent,
    /// One that the user knows of.
    Known,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The user names an address.
    Add {
        /// Where.
        address: DialAddress,
        /// Why.
        role: Role,
    },
    /// The user gives a peer a class, or takes it away.
    SetClass {
        /// Whose.
        peer: PeerId,
        /// Which.
        class: PeerClass,
        /// Given or taken.
        on: bool,
    },
    /// The user wants a connection now, whatever backoff or limits say.
    Connect {
        /// Comes back in [`Output::Connected`].
        ticket: Ticket,
        /// Whom.
        target: Target,
    },
    /// The user wants a connection to a peer now, whatever backoff or limits say, and third parties have said where it is. These addresses are tried before those that the book has, and
    /// take no place in it.
    Reach {
        /// Comes back in [`Output::Connected`].
        ticket: Ticket,
        /// Whom.
        peer: PeerId,
        /// Where third parties say that it is. Those that are not credible from `told_from` are left out.
        addresses: Vec<DialAddress>,
        /// From where whoever named these addresses was reached.
        told_from: AddressScope,
    },
    /// Something wants to ask a peer, as a lookup in the DHT does, and needs a connection for that long. Answered at once when there is one.
    Visit {
        /// Comes back in [`Output::Connected`].
        ticket: Ticket,
        /// Whom.
        peer: PeerId,
        /// Where third parties say that it is. Those that are not credible from `told_from` are left out; the rest is tried behind what the book has.
        addresses: Vec<DialAddress>,
        /// From where whoever named these addresses was reached; `None` when that was the user.
        told_from: Option<AddressScope>,
    },
    /// Nobody waits any more for these visits. One that has no dial yet gets none, and no answer.
    CancelVisits {
        /// Which.
        tickets: Vec<Ticket>,
    },
    /// A peer was asked something, or asked us something: a connection to it that is a visit lasts on.
    Used {
        /// Who.
        peer: PeerId,
    },
    /// The user wants a connection to end and not to come back by itself.
    Disconnect {
        /// Whose.
        peer: PeerId,
    },
    /// A dial ended without a connection.
    DialFailed {
        /// Which.
        attempt: AttemptId,
        /// Why.
        failure: Failure,
    },
    /// What became of each address of a dial, right before its [`Input::Handshaken`] or [`Input::DialFailed`]. Without it, the address that led to the
    /// remote end was reached, or all have failed alike.
    Raced {
        /// Which.
        attempt: AttemptId,
        /// One for each address, in the order of [`Output::Dial`].
        courses: Vec<Course>,
    },
    /// A TLS handshake is done, so the peer ID is proved.
    Handshaken {
        /// A number never used before.
        conn: ConnId,
        /// Whose key it is.
        peer: PeerId,
        /// Who opened it.
        direction: Direction,
        /// The other end of the path.
        remote: SocketAddr,
        /// The dial that it came from, for an outbound one.
        attempt: Option<AttemptId>,
    },
    /// The peer's hello was read.
    Hello {
        /// On which connection.
        conn: ConnId,
        /// What it said.
        hello: HelloFacts,
    },
    /// The peer does not speak the hello: a node of another libp2p implementation.
    Foreign {
        /// On which connection.
        conn: ConnId,
    },
    /// The peer's answer to our hello was read.
    Answered {
        /// On which connection.
        conn: ConnId,
        /// What it said.
        answer: PeerAnswer,
    },
    /// A connection has ended.
    Closed {
        /// Which.
        conn: ConnId,
        /// Why.
        failure: Failure,
        /// An application's message passed over it.
        useful: bool,
    },
    /// A peer answered [`Output::Ask`]. The records' signatures have been verified.
    Learned {
        /// On which connection.
        conn: ConnId,
        /// The records.
        records: Vec<SignedPeerRecord>,
    },
    /// A peer's own record changed. Its signature has been verified.
    Renewed {
        /// Over which connection it said so.
        conn: ConnId,
        /// The record.
        record: SignedPeerRecord,
    },
    /// Our address on an inbound connection went away, so that its peer can't reach us there and we can't answer. The peer is dialled, outside the
    /// limits, and the new connection takes the place of this one.
    LocalAddressChanged {
        /// Which connection.
        conn: ConnId,
    },
    /// From now on, only these peers are dialled and admitted; all are when there is no list.
    SetAllowed {
        /// Who.
        peers: Option<BTreeSet<PeerId>>,
    },
    /// One more peer is allowed. Without an allow-list all are already.
    Allow {
        /// Who.
        peer: PeerId,
    },
    /// A peer is no longer allowed. Without an allow-list nothing changes.
    Disallow {
        /// Who.
        peer: PeerId,
    },
    /// Where the node says that it can be reached. Others who claim to be there are not dialled.
    Announced {
        /// The addresses.
        addresses: Vec<DialAddress>,
    },
    /// A peer said at which address it sees us, other than in its hello.
    Observed {
        /// On which connection.
        conn: ConnId,
        /// The address.
        address: SocketAddr,
    },
    /// A peer did what no honest node does.
    Penalise {
        /// Who.
        peer: PeerId,
        /// What.
        penalty: Penalty,
    },
    /// Bans that were stored, back from the store; given before [`Input::Load`], so that nobody who is banned is dialled.
    Bans {
        /// The bans.
        bans: Vec<Ban>,
    },
    /// The round trip over a connection was measured.
    Measured {
        /// Which.
        conn: ConnId,
        /// How long.
        rtt: Duration,
    },
    /// What an earlier run has stored; given once, at the start. From then on [`Output::Save`] says what to store.
    Load {
        /// The entries of the address book.
        peers: Vec<StoredPeer>,
    },
    /// What the user said of peers in earlier runs; given last at the start, after what is said in this one. From then on what the user says of
    /// classes and the allow-list is stored too.
    Standings {
        /// What was stored.
        standings: Vec<Standing>,
    },
    /// The user brings entries of an exported address book.
    Import {
        /// The entries.
        peers: Vec<StoredPeer>,
    },
    /// The node is shutting down: no more dials, no more admissions.
    ShutDown,
}

/// What the driver read in a hello.
#[derive(Debug, Clone)]
pub struct HelloFacts {
    /// The peer's boot nonce.
    pub boot_nonce: u64,
    /// The number of this statement, among all that the peer made.
    pub order: u64,
    /// The peer's own record; its signature has been verified.
    pub record: Option<SignedPeerRecord>,
    /// The address at which it sees us.
    pub observed: Option<SocketAddr>,
    /// It dialled for a while only.
    pub visit: bool,
    /// What speaks against admission, found by comparing the hello with ours.
    pub problem: Option<(RejectReason, String)>,
}

/// The peer's answer to our hello.
#[derive(Debug, Clone)]
pub enum PeerAnswer {
    /// We are admitted there.
    Accept {
        /// The number of this statement.
        order: u64,
        /// What our hello called a visit is an ordinary connection there.
        stay: bool,
    },
    /// We are not.
    Reject {
        /// Why.
        reason: RejectReason,
        /// More words on it.
        detail: String,
        /// When to come back.
        retry_after: Option<Duration>,
        /// Others to try; their signatures have been verified.
        alternatives: Vec<SignedPeerRecord>,
    },
}

/// Our answer to the peer's hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It may stay.
    Accept {
        /// The number of this statement.
        order: u64,
        /// What its hello called a visit is an ordinary connection here: this node was about to connect to it.
        stay: bool,
    },
    /// It may not. The driver closes the connection once the answer was read or a second has passed.
    Reject {
        /// Why.
        reason: RejectReason,
        /// More words on it.
        detail: String,
        /// When to come back.
        retry_after: Option<Duration>,
        /// Records of others to try, as they were signed.
        alternatives: Vec<Bytes>,
    },
}

/// Why the peer manager ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// Another connection to the same peer is kept.
    Duplicate,
    /// The peer has opened a newer one.
    Replaced,
    /// The peer refused us.
    Refused,
    /// The user said so.
    Disconnect,
    /// The node is shutting down.
    ShuttingDown,
    /// Too many inbound connections have not said hello yet, and this one has waited longest.
    Overloaded,
    /// The peer is not on the allow-list, or is foreign and not wanted.
    NotAdmitted,
    /// No place is free for a foreign node, which knows no refusal with a reason.
    Full,
    /// The peer, or where it is, is banned.
    Banned,
    /// Its place goes to another peer, to keep the overlay fresh.
    Rotated,
    /// We visited the peer and need it no longer, or need the place for another visit. What is under way on it may end first.
    VisitOver,
    /// The peer visited us, and its place goes to another visitor. What is under way on it may end first.
    VisitTrimmed,
}

/// One of the addresses of a dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where.
    pub address: DialAddress,
    /// From where whoever told us of the address was reached: a name may lead to no address that is not credible from there
    /// ([`AddressScope::is_credible_from`]). `None` when the user named it.
    pub told_from: Option<AddressScope>,
    /// Nobody but third parties vouches for it: of a name, only a few places are tried.
    pub unproved: bool,
}

/// What became of one address of a dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Course {
    /// Another one was reached before its turn.
    NotBegun,
    /// Another one was reached while it was tried.
    Cancelled,
    /// It came to nothing.
    Failed(Failure),
    /// The connection leads there.
    Reached,
}

/// What to do, in order.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "they leave the queue at once, and most are events")]
pub enum Output {
    /// Open one connection. Each address is tried when the one before it has failed or was silent for a while; the first that is reached ends the others.
    Dial {
        /// Comes back in [`Input::Handshaken`] or [`Input::DialFailed`].
        attempt: AttemptId,
        /// Where, the best first; never empty.
        routes: Vec<Route>,
        /// Who must be there.
        expected: Option<PeerId>,
    },
    /// Send our hello.
    SayHello {
        /// On which connection.
        conn: ConnId,
        /// The number to put into it.
        order: u64,
        /// Say that we dialled for a while only.
        visit: bool,
    },
    /// Answer the peer's hello.
    Answer {
        /// On which connection.
        conn: ConnId,
        /// What to say.
        answer: Answer,
    },
    /// Let applications use it.
    Admit {
        /// Which.
        conn: ConnId,
        /// Whose.
        peer: PeerId,
        /// It does not speak our hello.
        foreign: bool,
    },
    /// Open nothing on it any more; close it when what runs on it has ended. Its peer has a newer connection.
    Drain {
        /// Which.
        conn: ConnId,
    },
    /// Close it now.
    Close {
        /// Which.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
    /// Ask a connected peer whom it knows, and feed the answer back as [`Input::Learned`].
    Ask {
        /// Over which connection.
        conn: ConnId,
        /// How many records to ask for, and to take at most.
        most: usize,
    },
    /// An explicit connect has ended.
    Connected {
        /// Which.
        ticket: Ticket,
        /// The peer, or why it failed.
        result: Result<PeerId, Failure>,
    },
    /// Whom the transport may hear has changed.
    Door(Door),
    /// The addresses at which others see us have changed: announce them beside those that are listened on.
    Observed {
        /// All that enough peers agree on.
        addresses: Vec<SocketAddr>,
    },
    /// Store these changes of the address book and the bans.
    Save {
        /// One for each peer or ban that changed.
        changes: Vec<BookChange>,
    },
    /// Something that users want to know.
    Event(PeerEvent),
}

/// A change that users can watch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerEvent {
    /// What a peer is to us has changed. Every change is told, in order: whoever starts from [`PeerManager::states`] and applies these
    /// knows the state of every peer.
    ///
    /// [`PeerManager::states`]: crate::PeerManager::states
    Changed {
        /// Whose.
        peer: PeerId,
        /// What it was; `None` when nothing was known of it.
        from: Option<PeerState>,
        /// What it is; `None` when nothing more is known of it.
        to: Option<PeerState>,
        /// Why.
        cause: Cause,
    },
    /// A peer was admitted, and it admitted us.
    Connected {
        /// Who.
        peer: PeerId,
        /// Who opened the connection.
        direction: Direction,
        /// The other end of the path.
        address: SocketAddr,
        /// A node of another libp2p implementation.
        foreign: bool,
    },
    /// An admitted peer is gone.
    Disconnected {
        /// Who.
        peer: PeerId,
        /// Why, in one sentence.
        cause: String,
        /// The same in one word.
        fault: Fault,
        /// When it will be dialled again, if it will be.
        redial_in: Option<Duration>,
    },
    /// A dial, or the handshake after it, failed.
    DialFailed {
        /// Where.
        address: DialAddress,
        /// Who was expected there.
        peer: Option<PeerId>,
        /// Why, in one sentence.
        cause: String,
        /// The same in one word.
        fault: Fault,
        /// When it will be tried again, if it will be.
        retry_in: Option<Duration>,
    },
    /// We turned a peer away.
    Refused {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: RejectReason,
    },
    /// A peer turned us away. Not said when it keeps another connection to us.
    RefusedByPeer {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: RejectReason,
        /// Whom it named to be tried instead. Each is dialled before anything is believed of it.
        alternatives: Vec<PeerId>,
    },
    /// Another node runs with our key. Said once for each such node.
    CloneSeen {
        /// Where it was seen, or where the one is who says so.
        address: SocketAddr,
        /// The peer that refused us because the other node has our place there; `None` when we met the other node ourselves.
        told_by: Option<PeerId>,
    },
    /// Two nodes run with a peer's key. The later one has its place here. Said once for each such peer.
    PeerCloned {
        /// Whose key.
        peer: PeerId,
        /// Where the one is that was refused.
        address: SocketAddr,
    },
    /// A peer did what no honest node does.
    Penalised {
        /// Who.
        peer: PeerId,
        /// What.
        penalty: Penalty,
        /// It was one too many.
        banned: bool,
    },
    /// A ban is in force from now on.
    Banned {
        /// Whom it keeps out, why and until when.
        ban: Ban,
    },
    /// A ban was lifted, or its time is over.
    Unbanned {
        /// Whom it kept out.
        target: BanTarget,
    },
}
