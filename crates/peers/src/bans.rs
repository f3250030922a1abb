//! Who is kept out: peers by ID, and blocks of addresses, each with a reason and an end.
//!
//! The user bans whom they like. Peers that misbehave are banned automatically ([`crate::Penalty`]): by ID, because their neighbours behind one
//! NAT have done nothing; but when several IDs from one address were banned, the address is banned too, because a new ID costs nothing. A
//! persistent peer is never banned automatically, and a ban on a block does not touch persistent and unconditional peers in it.
//!
//! Bans end by the date, so that they outlast a restart: each change is handed out at once to be stored ([`crate::Output::Save`]), and
//! [`crate::Input::Bans`] takes them back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use peerage_identity::{AddressScope, IpPrefix, PeerId, parse_peer_id};
use peerage_machine::Now;

use crate::cause::{Cause, Failure, Fault};
use crate::manager::PeerManager;
use crate::penalty::Penalty;
use crate::record::{BanEntry, BookChange};
use crate::types::{CloseReason, Output, PeerEvent};

/// The longest reason that is kept, in bytes.
pub const MAX_BAN_REASON: usize = 256;

/// Who is kept out.
///
/// As text: a peer ID, an IP address (of an IPv6 one the whole /64), or a subnet as `192.0.2.0/24` or `2001:db8:1::/48`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BanTarget {
    /// One peer, wherever it comes from.
    Peer(PeerId),
    /// Everyone at these addresses, but for persistent and unconditional peers.
    Block(IpPrefix),
}

impl BanTarget {
    /// One address; of an IPv6 one the whole /64.
    pub fn address(ip: IpAddr) -> Self {
        Self::Block(IpPrefix::address_of(ip))
    }

    /// A subnet: an IPv4 /24 or an IPv6 /48.
    pub fn subnet(ip: IpAddr) -> Self {
        Self::Block(IpPrefix::subnet_of(ip))
    }
}

impl fmt::Display for BanTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BanTarget::Peer(peer) => peer.fmt(f),
            BanTarget::Block(block) => block.fmt(f),
        }
    }
}

/// The text names nobody who can be banned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} cannot be banned: give a peer ID, an IP address, or a subnet with /24 (IPv6: /48), such as 192.0.2.0/24"
)]
pub struct BanTargetError {
    /// What was given.
    pub text: String,
}

impl FromStr for BanTarget {
    type Err = BanTargetError;

    fn from_str(text: &str) -> Result<Self, BanTargetError> {
        let error = || BanTargetError { text: text.chars().take(80).collect() };
        let (ip, length) = match text.split_once('/') {
            Some((ip, length)) => (ip, Some(length.parse::<u8>().map_err(|_| error())?)),
            None => (text, None),
        };
        let Ok(ip) = ip.parse::<IpAddr>() else {
            return parse_peer_id(text).map(Self::Peer).map_err(|_| error());
        };
        match (ip.to_canonical(), length) {
            (_, None) | (IpAddr::V4(_), Some(32)) | (IpAddr::V6(_), Some(64)) => Ok(Self::address(ip)),
            (IpAddr::V4(_), Some(24)) | (IpAddr::V6(_), Some(48)) => Ok(Self::subnet(ip)),
            _ => Err(error()),
        }
    }
}

/// One ban, as it is listed and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub target: BanTarget,
    /// Why, for people. Not told to the one who is banned.
    pub reason: String,
    /// Since when, as [`Now::unix`].
    pub since: Duration,
    /// Until when, as [`Now::unix`]; `None` until it is lifted.
    pub until: Option<Duration>,
    /// What it was for, when it was not the user who banned.
    pub penalty: Option<Penalty>,
    /// Where a peer that was banned automatically came from.
    pub seen_at: Option<IpPrefix>,
}

/// Why a ban was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BanError {
    /// A node cannot ban itself.
    #[error("that is this node itself: it cannot be banned")]
    Own,
    /// As many bans as are kept, all of them by the user.
    #[error("{most} bans are as many as are kept: lift some first, or raise max_bans")]
    TooMany {
        /// The bound.
        most: usize,
    },
}

/// All bans in force.
#[derive(Debug, Default)]
pub(crate) struct Bans {
    bans: BTreeMap<BanTarget, Ban>,
    /// The banned blocks; a new value with each change, so that comparing is cheap.
    blocks: Arc<BTreeSet<IpPrefix>>,
}

impl Bans {
    fn insert(&mut self, ban: Ban) {
        self.bans.insert(ban.target, ban);
        self.note_blocks();
    }

    fn remove(&mut self, target: &BanTarget) -> Option<Ban> {
        let ban = self.bans.remove(target);
        self.note_blocks();
        ban
    }

    pub(crate) fn blocks(&self) -> &Arc<BTreeSet<IpPrefix>> {
        &self.blocks
    }

    fn of_peer(&self, peer: &PeerId) -> Option<&Ban> {
        self.bans.get(&BanTarget::Peer(*peer))
    }

    fn of_ip(&self, ip: IpAddr) -> Option<&Ban> {
        let of = |target| self.bans.get(&target);
        of(BanTarget::address(ip)).or_else(|| of(BanTarget::subnet(ip)))
    }

    /// When the first one ends, as [`Now::unix`].
    fn next_end(&self) -> Option<Duration> {
        self.bans.values().filter_map(|ban| ban.until).min()
    }

    fn note_blocks(&mut self) {
        let block = |target: &BanTarget| match target {
            BanTarget::Block(block) => Some(*block),
            BanTarget::Peer(_) => None,
        };
        let blocks: BTreeSet<_> = self.bans.keys().filter_map(block).collect();
        if blocks != *self.blocks {
            self.blocks = Arc::new(blocks);
        }
    }
}

impl PeerManager {
    /// Bans at the user's word: connections end, none is made or taken, until the ban ends or is lifted. `lasts` of `None` is for good.
    /// A ban of the same target is replaced.
    ///
    /// # Errors
    /// [`BanError`].
    pub fn ban(
        &mut self,
        now: Now,
        target: BanTarget,
        reason: &str,
        lasts: Option<Duration>,
    ) -> Result<(), BanError> {
        if target == BanTarget::Peer(self.me) {
            return Err(BanError::Own);
        }
        let reason = reason[..reason.floor_char_boundary(MAX_BAN_REASON)].to_owned();
        let until = lasts.map(|lasts| now.unix.saturating_add(lasts));
        let ban = Ban { target, reason, since: now.unix, until, penalty: None, seen_at: None };
        self.put_in_force(now, ban)?;
        self.after_input(now);
        Ok(())
    }

    /// Lifts a ban. False when there was none.
    pub fn unban(&mut self, now: Now, target: BanTarget) -> bool {
        let lifted = self.lift(now, &target);
        if !lifted {
            // It may be one that is stored and found no room here.
            self.store_ban(&target);
        }
        self.after_input(now);
        lifted
    }

    /// The bans in force, ordered by target.
    pub fn bans(&self) -> impl Iterator<Item = &Ban> {
        self.bans.bans.values()
    }

    /// Takes bans back from a store, the user's first. Those that have ended meanwhile are taken out of it; one in force for the same
    /// target stays.
    pub(crate) fn restore_bans(&mut self, now: Now, mut bans: Vec<Ban>) {
        bans.sort_by_key(|ban| (ban.penalty.is_some(), ban.target));
        for mut ban in bans {
            if self.bans.bans.contains_key(&ban.target) {
                continue;
            }
            let over = ban.until.is_some_and(|until| until <= now.unix);
            let spared = |peer| self.is_persistent(&peer) && ban.penalty.is_some();
            let over = over || matches!(ban.target, BanTarget::Peer(peer) if spared(peer));
            if over || ban.target == BanTarget::Peer(self.me) {
                self.store_ban(&ban.target);
                continue;
            }
            ban.reason.truncate(ban.reason.floor_char_boundary(MAX_BAN_REASON));
            if self.bans.bans.len() < self.config.max_bans {
                self.bans.insert(ban.clone());
                self.hang_up_on(now, &ban);
            }
        }
    }

    /// Bans a peer that misbehaved, and its address when it is not the first one there. A persistent peer is spared.
    pub(crate) fn ban_for(&mut self, now: Now, peer: PeerId, at: Option<IpAddr>, penalty: Penalty) {
        if self.is_persistent(&peer) {
            return;
        }
        let until = Some(now.unix.saturating_add(self.config.ban_time));
        let at = at.filter(|ip| !AddressScope::of(*ip).is_exempt_from_address_rules());
        let seen_at = at.map(IpPrefix::address_of);
        let ban = Ban {
            target: BanTarget::Peer(peer),
            reason: penalty.to_string(),
            since: now.unix,
            until,
            penalty: Some(penalty),
            seen_at,
        };
        // A table full of the user's own bans has no room for ours: the connection ends all the same.
        if self.put_in_force(now, ban).is_err() {
            let why = format!("it was to be banned: {penalty}");
            return self.hang_up(now, peer, CloseReason::Banned, &Failure::new(Fault::Banned, why));
        }
        let Some(block) = seen_at else { return };
        let others =
            self.bans().filter(|ban| ban.seen_at == Some(block) && ban.target != BanTarget::Block(block));
        let count = others.count();
        if count >= self.config.max_bans_per_address {
            let reason = format!("{count} peers were banned there");
            let target = BanTarget::Block(block);
            let ban = Ban { target, reason, since: now.unix, until, penalty: Some(penalty), seen_at };
            let _ = self.put_in_force(now, ban);
        }
    }

    /// The ban that keeps a connection out, if one does.
    pub(crate) fn ban_on(&self, peer: &PeerId, ip: Option<IpAddr>) -> Option<&Ban> {
        let of_ip = ip.filter(|_| !self.book.classes.is_exempt(peer)).and_then(|ip| self.bans.of_ip(ip));
        self.bans.of_peer(peer).or(of_ip)
    }

    /// How long a banned peer is told to stay away.
    pub(crate) fn ban_left(now: Now, ban: &Ban) -> Option<Duration> {
        ban.until.map(|until| until.saturating_sub(now.unix))
    }

    /// Lifts the bans whose time is over.
    pub(crate) fn end_bans(&mut self, now: Now) {
        while self.bans.next_end().is_some_and(|end| end <= now.unix) {
            let over = |ban: &&Ban| ban.until.is_some_and(|until| until <= now.unix);
            let Some(target) = self.bans().find(over).map(|ban| ban.target) else { return };
            self.lift(now, &target);
        }
        // The date may jump, so the timer is set anew each time.
        self.ban_timer =
            self.bans.next_end().map(|end| now.mono.saturating_add(end.saturating_sub(now.unix)));
    }

    /// A persistent peer is not banned automatically, whatever it did before it was one.
    pub(crate) fn lift_automatic(&mut self, now: Now, peer: PeerId) {
        if self.bans.of_peer(&peer).is_some_and(|ban| ban.penalty.is_some()) {
            self.lift(now, &BanTarget::Peer(peer));
        }
    }

    fn lift(&mut self, now: Now, target: &BanTarget) -> bool {
        let Some(ban) = self.bans.remove(target) else { return false };
        self.store_ban(target);
        self.event(PeerEvent::Unbanned { target: ban.target });
        // Those whom the ban took out of the queues come back.
        let back: Vec<PeerId> = match target {
            BanTarget::Peer(peer) => vec![*peer],
            BanTarget::Block(block) => self
                .book
                .iter()
                .filter(|(_, known)| {
                    let inside = |ip| block.contains(ip);
                    known.addresses.iter().any(|at| at.address.socket_addr().is_some_and(|a| inside(a.ip())))
                })
                .map(|(peer, _)| *peer)
                .collect(),
        };
        for peer in back {
            if self.due(&peer).is_none() {
                let spread = self.random.up_to(self.config.backoff_base);
                self.enqueue(peer, now.mono + spread);
            }
            self.note(now, peer, Cause::Unbanned, "");
        }
        true
    }

    fn put_in_force(&mut self, now: Now, ban: Ban) -> Result<(), BanError> {
        if !self.bans.bans.contains_key(&ban.target) && self.bans.bans.len() >= self.config.max_bans {
            // The automatic one that ends first gives way.
            let automatic = self.bans().filter(|ban| ban.penalty.is_some());
            let weakest = automatic.min_by_key(|ban| ban.until).map(|ban| ban.target);
            let Some(weakest) = weakest else {
                return Err(BanError::TooMany { most: self.config.max_bans });
            };
            self.bans.remove(&weakest);
            self.store_ban(&weakest);
        }
        self.bans.insert(ban.clone());
        self.store_ban(&ban.target);
        self.hang_up_on(now, &ban);
        self.event(PeerEvent::Banned { ban });
        Ok(())
    }

    /// Has a target stored as it is now: banned or not.
    fn store_ban(&mut self, target: &BanTarget) {
        let change = match self.bans.bans.get(target) {
            Some(ban) => BookChange::PutBan(Box::new(BanEntry::write(ban))),
            None => BookChange::RemoveBan(*target),
        };
        self.outputs.push_back(Output::Save { changes: vec![change] });
    }

    /// Ends what a ban does not allow.
    fn hang_up_on(&mut self, now: Now, ban: &Ban) {
        let failure = Failure::new(Fault::Banned, ban.reason.clone());
        let hit: BTreeSet<PeerId> = match ban.target {
            BanTarget::Peer(peer) => BTreeSet::from([peer]),
            BanTarget::Block(block) => {
                let inside = self.conns.values().filter(|conn| block.contains(conn.remote.ip()));
                inside.map(|conn| conn.peer).filter(|peer| !self.book.classes.is_exempt(peer)).collect()
            }
        };
        for peer in hit {
            self.dequeue(&peer);
            self.hang_up(now, peer, CloseReason::Banned, &failure);
            self.note_failure(now, peer, &failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_survives_its_text_and_other_texts_are_refused_with_the_remedy() {
        let id = peerage_identity::NodeKey::from_seed([1; 32]).peer_id().to_string();
        for (text, shown) in [
            (id.as_str(), id.as_str()),
            ("192.0.2.77", "192.0.2.77/32"),
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
            ("2001:db8:1:2:3::4/48", "2001:db8:1::/48"),
            ("::ffff:192.0.2.77", "192.0.2.77/32"),
        ] {
            let target: BanTarget = text.parse().unwrap();
            assert_eq!(target.to_string(), shown);
            assert_eq!(shown.parse::<BanTarget>(), Ok(target));
        }
        for text in ["", "x", "192.0.2.0/8", "192.0.2.0/x", "2001:db8::/24", "/", "1.2.3.4/24/24"] {
            let error = text.parse::<BanTarget>().unwrap_err();
            assert!(error.to_string().contains("give a peer ID"), "{text}");
        }
    }
}
