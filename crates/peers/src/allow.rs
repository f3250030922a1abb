//! The allow-list: in a network that has one, only the peers on it are dialled and admitted.
//!
//! A peer that is not on it is turned away as soon as its key is proved, before it is told anything.

use std::collections::BTreeSet;
use std::time::Duration;

use peerage_identity::PeerId;
use peerage_machine::Now;

use crate::cause::{Cause, Failure, Fault, RejectReason};
use crate::manager::PeerManager;
use crate::types::{CloseReason, ConnId, Output, PeerEvent};

impl PeerManager {
    /// The peers on the allow-list; `None` where there is no list.
    pub fn allowed(&self) -> Option<&BTreeSet<PeerId>> {
        self.allowed.as_ref()
    }

    /// Whether a connection to `peer` may be, as far as the allow-list goes.
    pub(crate) fn is_allowed(&self, peer: &PeerId) -> bool {
        *peer == self.me || self.allowed.as_ref().is_none_or(|allowed| allowed.contains(peer))
    }

    /// Puts another list in the place of this one. Peers that were waited for are dialled; those who are no longer on it are let go.
    pub(crate) fn set_allowed(&mut self, now: Now, allowed: Option<BTreeSet<PeerId>>) {
        self.allowed = allowed;
        let gone: Vec<_> = self
            .conns
            .iter()
            .filter(|(_, conn)| !self.is_allowed(&conn.peer))
            .map(|(id, conn)| (*id, conn.peer))
            .collect();
        for (id, peer) in gone {
            self.turn_away(now, id, peer);
        }
        let known: Vec<_> = self.book.iter().map(|(peer, _)| *peer).collect();
        for peer in known {
            if self.is_allowed(&peer) {
                if self.due(&peer).is_none() {
                    self.requeue(now, peer, Duration::ZERO);
                    self.note(now, peer, Cause::Allowed, "");
                }
            } else {
                self.dequeue(&peer);
                self.note_failure(now, peer, &not_allowed(peer));
            }
        }
    }

    /// Adds a peer to the list. Without a list everyone is allowed already.
    pub(crate) fn allow(&mut self, now: Now, peer: PeerId) {
        let Some(mut allowed) = self.allowed.clone() else { return };
        if allowed.insert(peer) {
            self.set_allowed(now, Some(allowed));
        }
        self.remember_allowed(peer, true);
    }

    /// Takes a peer off the list. Without a list nothing changes.
    pub(crate) fn disallow(&mut self, now: Now, peer: PeerId) {
        let Some(mut allowed) = self.allowed.clone() else { return };
        if allowed.remove(&peer) {
            self.set_allowed(now, Some(allowed));
        }
        self.remember_allowed(peer, false);
    }

    /// Closes a connection to a peer that is not on the list.
    pub(crate) fn turn_away(&mut self, now: Now, id: ConnId, peer: PeerId) {
        self.outputs.push_back(Output::Close { conn: id, reason: CloseReason::NotAdmitted });
        self.event(PeerEvent::Refused { peer, reason: RejectReason::NotAllowed });
        self.ended(now, id, not_allowed(peer), false);
    }
}

/// Why a peer that is not on the list is not dialled.
pub(crate) fn not_allowed(peer: PeerId) -> Failure {
    Failure::new(
        Fault::NotAllowed,
        format!("{peer} is not on this node's allow-list (add it with --allow, or peers().allow)"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial_queue::Target;
    use crate::{Blame, Direction, Input, PeersConfig, Role};
    use peerage_identity::NodeKey;
    use peerage_machine::{Machine, Random};

    fn peer(seed: u8) -> PeerId {
        NodeKey::from_seed([seed; 32]).peer_id()
    }

    fn manager(allowed: &[PeerId]) -> PeerManager {
        let mut manager = PeerManager::new(PeersConfig::default(), peer(1), 1, Random::from_seed([1; 32]));
        manager.handle(Now::ZERO, Input::SetAllowed { peers: Some(allowed.iter().copied().collect()) });
        manager
    }

    fn outputs(manager: &mut PeerManager) -> Vec<Output> {
        let changed = |output: &Output| matches!(output, Output::Event(PeerEvent::Changed { .. }));
        std::iter::from_fn(|| manager.poll_output()).filter(|output| !changed(output)).collect()
    }

    fn comes(manager: &mut PeerManager, conn: u64, peer: PeerId) -> Vec<Output> {
        let (conn, direction) = (ConnId(conn), Direction::Inbound);
        let remote = ([127, 0, 0, 1], 4000).into();
        manager.handle(Now::ZERO, Input::Handshaken { conn, peer, direction, remote, attempt: None });
        outputs(manager)
    }

    fn dials(outputs: &[Output]) -> usize {
        outputs.iter().filter(|output| matches!(output, Output::Dial { .. })).count()
    }

    fn add(manager: &mut PeerManager, peer: PeerId, role: Role) -> Vec<Output> {
        let address = format!("/ip4/127.0.0.1/udp/4001/quic-v1/p2p/{peer}").parse().unwrap();
        manager.handle(Now::ZERO, Input::Add { address, role });
        outputs(manager)
    }

    #[test]
    fn who_is_not_on_the_list_is_turned_away_before_it_is_told_anything() {
        let mut manager = manager(&[peer(2)]);
        match &comes(&mut manager, 1, peer(3))[..] {
            [
                Output::Close { reason: CloseReason::NotAdmitted, .. },
                Output::Event(PeerEvent::Refused { reason: RejectReason::NotAllowed, .. }),
            ] => {}
            other => panic!("{other:?}"),
        }
        assert!(matches!(comes(&mut manager, 2, peer(2))[..], [Output::SayHello { .. }]));
    }

    #[test]
    fn who_is_not_on_the_list_is_not_dialled_before_it_is() {
        let mut manager = manager(&[]);
        assert_eq!(dials(&add(&mut manager, peer(2), Role::Persistent)), 0);
        assert_eq!(dials(&add(&mut manager, peer(3), Role::Known)), 0);
        let (ticket, target) = (crate::Ticket(1), Target::Peer(peer(2)));
        manager.handle(Now::ZERO, Input::Connect { ticket, target });
        match &outputs(&mut manager)[..] {
            [Output::Connected { result: Err(failure), .. }] => {
                assert!(
                    failure.blame() == Blame::Local && failure.detail.contains("allow-list"),
                    "{failure}"
                );
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(manager.poll_timeout(), None, "nothing is due");
        manager.handle(Now::ZERO, Input::Allow { peer: peer(2) });
        assert_eq!(dials(&outputs(&mut manager)), 1);
        manager.handle(Now::ZERO, Input::SetAllowed { peers: None });
        assert_eq!(dials(&outputs(&mut manager)), 1, "the other one, now that there is no list");
    }

    #[test]
    fn who_is_taken_off_the_list_is_let_go_at_once() {
        let mut manager = manager(&[peer(2), peer(3)]);
        for seed in [2, 3] {
            comes(&mut manager, seed.into(), peer(seed));
        }
        manager.handle(Now::ZERO, Input::Disallow { peer: peer(2) });
        let closed: Vec<_> = outputs(&mut manager)
            .into_iter()
            .filter_map(|output| match output {
                Output::Close { conn, .. } => Some(conn),
                _ => None,
            })
            .collect();
        assert_eq!(closed, [ConnId(2)]);
        assert_eq!(manager.allowed().map(|allowed| allowed.len()), Some(1));
    }
}
