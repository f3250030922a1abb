//! What the micro-benchmarks in `benches/` share: an overlay as one peer manager sees it. `CONTRIBUTING.md` says how they are run.

use std::net::SocketAddr;
use std::time::Duration;

use peerage_identity::{DialAddress, NodeKey, PeerId, SignedPeerRecord};
use peerage_machine::{Machine, Now, Random};
use peerage_peers::{
    Answer, ConnId, Direction, Failure, Fault, HelloFacts, Input, Output, PeerAnswer, PeerEvent, PeerManager,
    PeersConfig,
};

/// A peer manager with peers that have come to it, and somebody who comes and goes.
pub struct Overlay {
    manager: PeerManager,
    now: Duration,
    /// The last number given to a connection or to a statement.
    last: u64,
    conns: Vec<ConnId>,
    newcomer: Peer,
}

/// Somebody who dials the manager's node.
#[derive(Clone)]
struct Peer {
    id: PeerId,
    address: SocketAddr,
    record: SignedPeerRecord,
}

impl Overlay {
    /// With so many peers, each in a subnet of its own.
    ///
    /// # Panics
    /// When the manager refuses one of them.
    pub fn new(peers: usize) -> Self {
        // It dials nobody: what a dial comes to is decided elsewhere.
        let config = PeersConfig { max_inbound: peers + 1, max_outbound: 0, ..PeersConfig::default() };
        let me = NodeKey::from_seed([7; 32]).peer_id();
        let manager = PeerManager::new(config, me, 1, Random::from_number(1));
        let newcomer = Peer::numbered(peers);
        let mut overlay = Self { manager, now: Duration::ZERO, last: 0, conns: Vec::new(), newcomer };
        for number in 0..peers {
            let conn = overlay.arrive(&Peer::numbered(number));
            overlay.conns.push(conn);
        }
        assert_eq!(overlay.manager.connected().count(), peers, "not all were admitted");
        overlay
    }

    /// One more peer shakes hands, says hello, is admitted, and leaves: four events, and the timer before them.
    ///
    /// # Panics
    /// When it is not admitted, or nobody is told that it has left.
    pub fn come_and_go(&mut self) {
        let newcomer = self.newcomer.clone();
        let conn = self.arrive(&newcomer);
        let failure = Failure::from(Fault::ClosedByPeer);
        self.handle(Input::Closed { conn, failure, useful: true });
        let left = |output: &Output| matches!(output, Output::Event(PeerEvent::Disconnected { .. }));
        assert!(self.outputs().filter(left).count() == 1, "nobody is told");
    }

    /// A round trip to one of the peers was measured, as for each of them again and again. How many outputs that had.
    pub fn measured(&mut self, number: usize) -> usize {
        let conn = self.conns[number % self.conns.len()];
        let rtt = Duration::from_millis(10 + number as u64 % 7);
        self.handle(Input::Measured { conn, rtt });
        self.outputs().count()
    }

    /// A tenth of a second later, what is due is done, and the next time is asked for.
    pub fn timeout(&mut self) -> (usize, Option<Duration>) {
        self.now += Duration::from_millis(100);
        self.manager.handle_timeout(self.time());
        (self.outputs().count(), self.manager.poll_timeout())
    }

    /// From the handshake to admission.
    fn arrive(&mut self, peer: &Peer) -> ConnId {
        // Nobody comes so fast that a limit of rates is touched.
        self.now += Duration::from_secs(2);
        self.manager.handle_timeout(self.time());
        self.outputs().for_each(drop);
        let conn = ConnId(self.next());
        let (direction, remote) = (Direction::Inbound, peer.address);
        self.handle(Input::Handshaken { conn, peer: peer.id, direction, remote, attempt: None });
        self.expect("a hello", |output| matches!(output, Output::SayHello { .. }));
        let record = Some(peer.record.clone());
        let order = self.next();
        let hello = HelloFacts { boot_nonce: 1, order, record, observed: None, problem: None, visit: false };
        self.handle(Input::Hello { conn, hello });
        let accepts =
            |output: &Output| matches!(output, Output::Answer { answer: Answer::Accept { .. }, .. });
        self.expect("an acceptance", accepts);
        let order = self.next();
        self.handle(Input::Answered { conn, answer: PeerAnswer::Accept { order, stay: false } });
        self.expect("an admission", |output| matches!(output, Output::Admit { .. }));
        conn
    }

    /// Takes all outputs; one of them must be what is awaited.
    fn expect(&mut self, what: &str, awaited: impl Fn(&Output) -> bool) {
        let found = self.outputs().filter(awaited).count();
        assert_eq!(found, 1, "{what} is missing");
    }

    fn handle(&mut self, input: Input) {
        let now = self.time();
        self.manager.handle(now, input);
    }

    fn outputs(&mut self) -> impl Iterator<Item = Output> + '_ {
        std::iter::from_fn(|| self.manager.poll_output())
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn time(&self) -> Now {
        Now { mono: self.now, unix: Duration::from_secs(1_700_000_000) + self.now }
    }
}

impl Peer {
    fn numbered(number: usize) -> Self {
        let mut seed = [1; 32];
        seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let key = NodeKey::from_seed(seed);
        let address = SocketAddr::from(([20, (number / 250) as u8, (number % 250) as u8, 1], 4000));
        let dial = DialAddress::from_socket_addr(address).expect("a global address and a port");
        let record = SignedPeerRecord::sign(&key, 1, &[dial]).expect("one address is within the bounds");
        Self { id: key.peer_id(), address, record }
    }
}
