//! `why` names the right cause of each fault, in text and as data, and is content again once the fault is gone.

mod case;
mod course;
mod keys;
mod limits;
mod lists;

use std::time::Duration;

use peerage_identity::PeerId;
use peerage_peers::{
    BanTarget, Cause, ConnId, Failure, Fault, HelloFacts, Input, PeerAnswer, PeerState, PeersConfig,
    RejectReason, Role, Story, Target, Ticket,
};

use crate::support::{World, secs};

/// Node `a` is asked why `peer` is what it is; as a rule that is node `b`.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) a: usize,
    pub(crate) b: usize,
    pub(crate) peer: PeerId,
}

impl Stage {
    pub(crate) fn new(config: PeersConfig) -> Self {
        Self::with_peer(config, passive())
    }

    pub(crate) fn with_peer(of_a: PeersConfig, of_b: PeersConfig) -> Self {
        let mut world = World::new(7);
        let (a, b) = (world.add(of_a), world.add(of_b));
        let peer = world.id(b);
        Self { world, a, b, peer }
    }

    pub(crate) fn give(&mut self, input: Input) {
        self.world.give(self.a, input);
    }

    pub(crate) fn name_b(&mut self) {
        self.world.seed_with(self.a, self.b, Role::Known);
    }

    pub(crate) fn why(&self) -> Story {
        self.world.nodes[self.a].manager.why(self.world.now(), &self.peer)
    }

    pub(crate) fn state(&self) -> Option<PeerState> {
        self.world.nodes[self.a].manager.state(&self.peer)
    }

    /// Lets time pass in small steps until `reached`.
    pub(crate) fn until(&mut self, reached: impl Fn(&Self) -> bool) {
        for _ in 0..4_000_000 {
            if reached(self) {
                return;
            }
            self.world.run_for(Duration::from_millis(1));
        }
        panic!("never reached: {}", self.why());
    }

    pub(crate) fn until_waiting(&mut self) {
        self.until(|stage| matches!(stage.state(), Some(PeerState::Waiting { .. })));
    }

    /// A dial to `b` is under way, and fails.
    pub(crate) fn dial_fails(&mut self, failure: Failure) {
        self.world.crash(self.b);
        self.name_b();
        let Some(PeerState::Dialling { attempt, .. }) = self.state() else { panic!("{}", self.why()) };
        self.give(Input::DialFailed { attempt, failure });
    }

    /// The connection to `b` whose hellos are under way.
    pub(crate) fn greet(&mut self) -> ConnId {
        self.name_b();
        self.until(|stage| matches!(stage.state(), Some(PeerState::Greeting { .. })));
        let Some(PeerState::Greeting { conn, .. }) = self.state() else { panic!("{}", self.why()) };
        conn
    }

    pub(crate) fn connect(&mut self) -> ConnId {
        self.name_b();
        self.world.run_for(secs(2));
        self.world.conn_between(self.a, self.b).unwrap()
    }

    pub(crate) fn ban(&mut self, target: BanTarget) {
        let now = self.world.now();
        self.world.nodes[self.a].manager.ban(now, target, "sold us spam", None).unwrap();
        self.world.carry_out(self.a);
    }

    pub(crate) fn lift_all_bans(&mut self) {
        let now = self.world.now();
        let manager = &mut self.world.nodes[self.a].manager;
        for target in manager.bans().map(|ban| ban.target).collect::<Vec<_>>() {
            assert!(manager.unban(now, target));
        }
        self.world.carry_out(self.a);
    }

    /// One more node, to which `from` connects.
    pub(crate) fn third(&mut self, from: Option<usize>, to: Option<usize>) -> usize {
        let node = self.world.add(passive());
        let (from, to) = (from.unwrap_or(node), to.unwrap_or(node));
        let address = self.world.address(to);
        self.world.give(from, Input::Connect { ticket: Ticket(70), target: Target::Address(address) });
        self.world.run_for(secs(2));
        assert!(self.world.conn_between(from, to).is_some());
        node
    }

    pub(crate) fn goes(&mut self, node: usize) {
        self.world.crash(node);
        self.world.notice(node, secs(1));
    }
}

/// A node that dials nobody by itself.
pub(crate) fn passive() -> PeersConfig {
    PeersConfig { max_outbound: 0, ..Default::default() }
}

/// Rotation has a case of its own.
pub(crate) fn calm() -> PeersConfig {
    PeersConfig { rotation_interval: Duration::ZERO, ..Default::default() }
}

/// `why` says so, in every form.
#[track_caller]
pub(crate) fn check(
    case: &str,
    story: &Story,
    cause: (Cause, &str),
    fault: Option<(Fault, &str)>,
    says: &str,
) {
    assert_eq!((story.cause, story.fault), (cause.0, fault.map(|fault| fault.0)), "{case}: {story}");
    let data = serde_json::to_value(story).unwrap();
    assert_eq!(data["cause"], cause.1, "{case}");
    assert_eq!(data["fault"].as_str(), fault.map(|fault| fault.1), "{case}");
    assert_eq!(data["peer"], story.peer.to_string(), "{case}");
    assert_eq!(data["state"].as_str(), story.state.as_ref().map(PeerState::name), "{case}");
    let text = story.to_string();
    let first = text.lines().next().unwrap();
    assert_eq!(data["summary"], first, "{case}");
    assert!(first.contains(says), "{case}: {text}");
    assert_no_words_twice(&text);
    assert_eq!(text.matches(&story.peer.to_string()).count(), 1, "{case}: {text}");
    assert_eq!(text.lines().count(), 1 + story.history.len(), "{case}: {text}");
    if let Some((fault, name)) = fault {
        let refusal = matches!(fault, Fault::RefusedByPeer(_) | Fault::RefusedByUs(_));
        assert!(refusal || first.contains(&fault.to_string()), "{case}: {text}");
        let history = data["history"].as_array().unwrap();
        assert!(history.iter().any(|entry| entry["cause"] == name), "{case}: {text}");
    }
}

/// In no line do three words stand twice in the same order, nor the peer's ID behind the summary's beginning.
#[track_caller]
fn assert_no_words_twice(text: &str) {
    for line in text.lines() {
        let letters = |c: char| c.is_alphabetic() || c == ' ';
        let plain: String = line.chars().map(|c| if letters(c) { c } else { ' ' }).collect();
        let words: Vec<&str> = plain.split_whitespace().filter(|word| word.len() > 1).collect();
        let threes: Vec<_> = words.windows(3).collect();
        for (index, three) in threes.iter().enumerate() {
            assert!(!threes[index + 1..].contains(three), "{three:?} twice in {line:?}");
        }
    }
}

/// Within the longest backoff, and a little, the peer is back.
#[track_caller]
pub(crate) fn check_recovery(case: &str, stage: &mut Stage) {
    for _ in 0..130 {
        stage.world.run_for(secs(10));
        if matches!(stage.state(), Some(PeerState::Connected { .. })) {
            break;
        }
    }
    check(case, &stage.why(), (Cause::Admitted, "admitted"), None, "is connected for ");
}

/// Where a fault comes in.
#[derive(Debug, Clone, Copy)]
enum By {
    /// The dial fails.
    Dial,
    /// The peer closes, or is lost, before it is admitted.
    Greeting,
    /// The same afterwards.
    Connected,
}

#[test]
fn a_dial_or_a_connection_that_fails_is_told_by_its_fault() {
    let refused = |reason| Fault::RefusedByPeer(reason);
    for (by, fault, name) in [
        (By::Dial, Fault::Timeout, "timeout"),
        (By::Dial, Fault::Refused, "refused"),
        (By::Dial, Fault::WrongKey, "wrong-key"),
        (By::Dial, Fault::BadCertificate, "bad-certificate"),
        (By::Dial, Fault::TlsRefused, "tls-refused"),
        (By::Dial, Fault::NothingInCommon, "nothing-in-common"),
        (By::Dial, Fault::BadAddress, "bad-address"),
        (By::Dial, Fault::Unresolved, "unresolved"),
        (By::Dial, Fault::OutOfScope, "out-of-scope"),
        (By::Dial, Fault::NoSocket, "no-socket"),
        (By::Dial, Fault::Broken, "broken"),
        (By::Greeting, Fault::HelloTimeout, "hello-timeout"),
        (By::Greeting, Fault::ClosedByPeer, "closed-by-peer"),
        (By::Greeting, refused(RejectReason::ForeignRefused), "refused-by-peer/foreign-refused"),
        (By::Greeting, Fault::Duplicate, "duplicate"),
        (By::Connected, Fault::Silent, "silent"),
        (By::Connected, Fault::Restarted, "restarted"),
        (By::Connected, Fault::RateLimited, "rate-limited"),
        (By::Connected, Fault::ResourceLimit, "resource-limit"),
        (By::Connected, Fault::Accused, "accused"),
        (By::Connected, Fault::Trimmed, "trimmed"),
        (By::Connected, refused(RejectReason::ShuttingDown), "refused-by-peer/shutting-down"),
    ] {
        let case = format!("{by:?} {name}");
        let mut stage = Stage::new(calm());
        let failure = Failure::new(fault, format!("as the {name} test says"));
        match by {
            By::Dial => stage.dial_fails(failure),
            By::Greeting | By::Connected => {
                let admitted = matches!(by, By::Connected);
                let conn = if admitted { stage.connect() } else { stage.greet() };
                stage.give(Input::Closed { conn, failure, useful: false });
            }
        }
        let says = format!("as the {name} test says");
        check(&case, &stage.why(), (Cause::Backoff, "backoff"), Some((fault, name)), &says);
        if matches!(by, By::Dial) {
            stage.world.restart(stage.b);
        }
        check_recovery(&case, &mut stage);
    }
}

#[test]
fn a_refusal_is_told_by_its_reason_whoever_refused() {
    use RejectReason as R;
    for reason in R::ALL {
        let case = format!("{reason:?} at the peer");
        let mut stage = Stage::new(calm());
        let conn = stage.greet();
        let answer = PeerAnswer::Reject {
            reason: *reason,
            detail: String::new(),
            retry_after: Some(secs(20)),
            alternatives: Vec::new(),
        };
        stage.give(Input::Answered { conn, answer });
        let name = format!("refused-by-peer/{}", reason.name());
        let fault = Some((Fault::RefusedByPeer(*reason), name.as_str()));
        check(&case, &stage.why(), (Cause::Backoff, "backoff"), fault, &reason.to_string());
        check_recovery(&case, &mut stage);
    }
    for (reason, name) in [
        (R::WrongNetwork, "refused-by-us/wrong-network"),
        (R::NoCommonVersion, "refused-by-us/no-common-version"),
        (R::NotProved, "refused-by-us/not-proved"),
        (R::InvalidHello, "refused-by-us/invalid-hello"),
    ] {
        let case = format!("{reason:?} here");
        let mut stage = Stage::new(calm());
        let conn = stage.greet();
        let problem = Some((reason, "as its hello says".to_owned()));
        let hello =
            HelloFacts { boot_nonce: 1, order: 1, record: None, observed: None, visit: false, problem };
        stage.give(Input::Hello { conn, hello });
        let fault = Some((Fault::RefusedByUs(reason), name));
        check(&case, &stage.why(), (Cause::Backoff, "backoff"), fault, "as its hello says");
        check_recovery(&case, &mut stage);
    }
}
