//! Rotation: from time to time a few outbound peers are replaced by others, drawn at random, so that the overlay keeps mixing and an
//! old crowd cannot shut newcomers out.
//!
//! A round first dials replacements; each one that is admitted takes the place of one peer, so the number of outbound peers neither
//! falls by a round nor exceeds its cap. Seeds give way first, because others need them more. Persistent, unconditional and private peers
//! stay, and so does whoever was connected for less than
//! [`PeersConfig::rotation_min_age`](crate::PeersConfig::rotation_min_age). A node whose outbound places are not all taken has no rounds, and neither has one with an
//! allow-list: it knows whom it wants.

use std::time::Duration;

use peerage_machine::Now;

use crate::cause::{Failure, Fault};
use crate::manager::{Conn, ConnState, PeerManager};
use crate::types::{CloseReason, ConnId, Direction, Output};

/// Where the rounds stand.
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    /// When the next round begins, or this one ends; `None` while places are free.
    pub(crate) due: Option<Duration>,
    /// A round is under way.
    running: bool,
    /// Replacements that may still be dialled in this round, beyond the cap.
    pub(crate) open: usize,
}

/// How long a round may take to find replacements.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

impl PeerManager {
    /// Begins or ends a round when it is time, and keeps the timer only while all outbound places are taken.
    pub(crate) fn rotate(&mut self, now: Now) {
        let interval = self.config.rotation_interval;
        let full =
            self.outbound_admitted().count() >= self.config.max_outbound && self.config.max_outbound > 0;
        // Whoever has a list of peers has chosen them.
        let chosen = self.allowed.is_some();
        if chosen || interval.is_zero() || self.config.rotation_drops == 0 || !full {
            self.rotation = Rotation::default();
            return;
        }
        let Some(due) = self.rotation.due else {
            self.rotation.due = Some(now.mono + self.pause());
            return;
        };
        if due > now.mono {
            return;
        }
        let fresh = !self.rotation.running && self.candidates.next_due().is_some_and(|due| due <= now.mono);
        let can_go = self.outbound_admitted().filter(|(_, conn)| self.may_go(now, conn)).count();
        if fresh && can_go > 0 {
            let open = self.config.rotation_drops.min(can_go);
            self.rotations += 1;
            self.rotation = Rotation { due: Some(now.mono + PATIENCE), running: true, open };
        } else {
            self.rotation = Rotation { due: Some(now.mono + self.pause()), ..Rotation::default() };
        }
    }

    /// An outbound connection is about to be admitted: where all places are taken, an older peer makes room. False when none can.
    pub(crate) fn make_room_for(&mut self, now: Now, id: ConnId) -> bool {
        if !self.make_room_for_visit(now, id) {
            return false;
        }
        let takes_place = self
            .conns
            .get(&id)
            .is_some_and(|conn| conn.place == Direction::Outbound && !conn.visit && self.counts(conn));
        let others = || self.outbound_admitted().filter(|(other, _)| *other != id).count();
        if !takes_place || others() < self.config.max_outbound {
            return true;
        }
        let is_seed = |conn: &Conn| self.book.get(&conn.peer).is_some_and(|known| known.seed);
        let may_go: Vec<_> = self
            .outbound_admitted()
            .filter(|(other, conn)| *other != id && self.may_go(now, conn))
            .map(|(other, conn)| (other, is_seed(conn)))
            .collect();
        let seeds: Vec<_> = may_go.iter().filter(|(_, seed)| *seed).copied().collect();
        let drawn_from = if seeds.is_empty() { may_go } else { seeds };
        let Some((gone, _)) = drawn_from.get(self.random.index(drawn_from.len())).copied() else {
            return false;
        };
        self.rotation.open = self.rotation.open.saturating_sub(1);
        self.outputs.push_back(Output::Close { conn: gone, reason: CloseReason::Rotated });
        self.ended(now, gone, Failure::from(Fault::Rotated), true);
        true
    }

    /// Outbound connections that are admitted and that the cap counts.
    fn outbound_admitted(&self) -> impl Iterator<Item = (ConnId, &Conn)> + '_ {
        let admitted = |conn: &Conn| {
            conn.place == Direction::Outbound
                && !conn.visit
                && matches!(conn.state, ConnState::Admitted | ConnState::Foreign)
                && self.counts(conn)
        };
        self.conns.iter().filter(move |(_, conn)| admitted(conn)).map(|(id, conn)| (*id, conn))
    }

    fn may_go(&self, now: Now, conn: &Conn) -> bool {
        let old = now.mono.saturating_sub(conn.since) >= self.config.rotation_min_age;
        old && !self.book.classes.is_named(&conn.peer)
    }

    /// Between three quarters of the interval and five, so that nodes that started together don't rotate together.
    fn pause(&mut self) -> Duration {
        let interval = self.config.rotation_interval;
        interval - interval / 4 + self.random.up_to(interval / 2)
    }
}
