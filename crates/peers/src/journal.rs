//! What happened to each peer and why, as far back as there is room.
//!
//! The journal is bounded for each peer and in all; the oldest entries give way. Nobody can push out what happened to others by making up peers: of
//! three ranks ([`Rank`]) each keeps a quarter of the journal whatever happens in the others, and the lowest gives way first. Something that happens again and again, such as a dial
//! that times out, takes one entry that counts.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use peerage_identity::PeerId;
use peerage_machine::Now;
use serde::{Serialize, Serializer};

use crate::bans::Ban;
use crate::cause::{Cause, Fault};
use crate::manager::PeerManager;
use crate::state::PeerState;

/// Everything that is known about why a peer is what it is. Printed, it is a text for people; serialised, data for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Story {
    /// Whose.
    #[serde(serialize_with = "as_text")]
    pub peer: PeerId,
    /// What it is now; `None` when nothing is known of it.
    #[serde(serialize_with = "state_as_text")]
    pub state: Option<PeerState>,
    /// What makes it so now.
    #[serde(serialize_with = "cause_as_name")]
    pub cause: Cause,
    /// What went wrong last, since it was last admitted.
    #[serde(serialize_with = "fault_as_name")]
    pub fault: Option<Fault>,
    /// All of it in one sentence.
    pub summary: String,
    /// When it was told, in milliseconds since 1970.
    pub told_unix_ms: u64,
    /// What happened, oldest first.
    pub history: Vec<Entry>,
}

/// One thing that happened to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When, in milliseconds since 1970; the last time when it happened often.
    pub unix_ms: u64,
    /// Why.
    #[serde(serialize_with = "cause_as_name")]
    pub cause: Cause,
    /// More words on it; often empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What the peer was afterwards; `None` when nothing more was known of it.
    pub state: Option<&'static str>,
    /// How often.
    pub times: u32,
}

/// The entries of all peers.
#[derive(Debug)]
pub(crate) struct Journal {
    peers: BTreeMap<PeerId, VecDeque<(u64, Entry)>>,
    /// The peer of each entry, by age, for each rank.
    by_age: [BTreeMap<u64, PeerId>; 3],
    next: u64,
    max_per_peer: usize,
    max_entries: usize,
}

/// Whose entries stay longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Nothing else is kept of the peer.
    Stranger,
    /// It stands in the address book.
    Known,
    /// The user has named it.
    Named,
}

/// The longest detail that is kept, in bytes.
pub(crate) const MAX_DETAIL: usize = 256;
/// An entry is counted once more when the same happened so few entries ago: a dial and its failure take turns.
const LOOK_BACK: usize = 3;

impl Journal {
    pub(crate) fn new(max_per_peer: usize, max_entries: usize) -> Self {
        Self { peers: BTreeMap::new(), by_age: Default::default(), next: 0, max_per_peer, max_entries }
    }

    pub(crate) fn add(
        &mut self,
        now: Now,
        peer: PeerId,
        rank: Rank,
        (cause, detail): (Cause, &str),
        state: Option<&'static str>,
    ) {
        if self.max_per_peer == 0 || self.max_entries == 0 {
            return;
        }
        let detail = detail[..detail.floor_char_boundary(MAX_DETAIL)].to_owned();
        let entries = self.peers.entry(peer).or_default();
        let mut times = 1;
        let again = |(_, entry): &(u64, Entry)| entry.cause == cause && entry.state == state;
        let first = entries.len().saturating_sub(LOOK_BACK);
        if let Some(index) = (first..entries.len()).rev().find(|index| again(&entries[*index]))
            && let Some((number, entry)) = entries.remove(index)
        {
            forget(&mut self.by_age, number);
            times = entry.times.saturating_add(1);
        }
        self.next += 1;
        // Of most peers there is little to tell.
        entries.reserve_exact(1);
        entries.push_back((self.next, Entry { unix_ms: now.unix_millis(), cause, detail, state, times }));
        self.by_age[rank as usize].insert(self.next, peer);
        if entries.len() > self.max_per_peer
            && let Some((old, _)) = entries.pop_front()
        {
            forget(&mut self.by_age, old);
        }
        while self.len() > self.max_entries {
            self.drop_oldest();
        }
    }

    pub(crate) fn of(&self, peer: &PeerId) -> impl DoubleEndedIterator<Item = &Entry> {
        self.peers.get(peer).into_iter().flatten().map(|(_, entry)| entry)
    }

    /// Whether at least half of the journal is free: room for what happened to peers of whom nothing is kept, so that somebody who makes
    /// up peers pushes out nothing else.
    pub(crate) fn has_room(&self) -> bool {
        self.len() < self.max_entries / 2
    }

    fn len(&self) -> usize {
        self.by_age.iter().map(BTreeMap::len).sum()
    }

    fn drop_oldest(&mut self) {
        // Three quarters are less than all: one of the ranks has more than its own.
        let share = self.max_entries / 4;
        let Some(rank) = self.by_age.iter_mut().find(|rank| rank.len() > share) else { return };
        let Some((number, peer)) = rank.pop_first() else { return };
        let Some(entries) = self.peers.get_mut(&peer) else { return };
        entries.retain(|(entry, _)| *entry != number);
        if entries.is_empty() {
            self.peers.remove(&peer);
        }
    }
}

fn forget(by_age: &mut [BTreeMap<u64, PeerId>], number: u64) {
    for rank in by_age {
        rank.remove(&number);
    }
}

impl PeerManager {
    /// Why a peer is what it is at this moment: connected or not, and what led to it.
    pub fn why(&self, now: Now, peer: &PeerId) -> Story {
        let state = self.state(peer);
        let history: Vec<Entry> = self.journal.of(peer).cloned().collect();
        let since_admitted =
            history.iter().rev().take_while(|entry| entry.cause != Cause::Admitted).find_map(|entry| {
                match entry.cause {
                    Cause::Failed(fault) => Some((fault, entry.detail.clone())),
                    _ => None,
                }
            });
        let cause = self.holding(now, peer, state.as_ref(), &history);
        let connected = matches!(state, Some(PeerState::Connected { .. }));
        let (fault, said) = since_admitted.filter(|_| !connected).unzip();
        let said = said.unwrap_or_default();
        let mut summary = match &state {
            Some(state) => format!("{peer} is {}", state.in_words(now)),
            None => format!("{peer} is not known here"),
        };
        match cause {
            // The state says as much.
            Cause::Admitted | Cause::Held | Cause::Backoff => {}
            Cause::Failed(Fault::Banned) => {
                let reason = self.ban_on_any(peer).map_or(said.as_str(), |ban| ban.reason.as_str());
                summary.push_str(&format!(": {}", in_words(cause, reason)));
            }
            Cause::Failed(_) if cause.fault() == fault => {
                summary.push_str(&format!(": {}", in_words(cause, &said)));
            }
            other => summary.push_str(&format!(": {other}")),
        }
        if let Some(fault) = fault.filter(|fault| cause.fault() != Some(*fault)) {
            let last = in_words(Cause::Failed(fault), &said);
            summary.push_str(&format!("; what went wrong last: {last}"));
        }
        Story { peer: *peer, state, cause, fault, summary, told_unix_ms: now.unix_millis(), history }
    }

    /// What keeps a peer in its state now.
    fn holding(&self, now: Now, peer: &PeerId, state: Option<&PeerState>, history: &[Entry]) -> Cause {
        let last = history.last().map_or(Cause::Unknown, |entry| entry.cause);
        match state {
            // Whatever became of other connections and dials to it meanwhile.
            Some(PeerState::Connected { visit: true, .. }) => Cause::Visit,
            Some(PeerState::Connected { .. }) => Cause::Admitted,
            Some(PeerState::Held) => Cause::Held,
            Some(PeerState::Banned) => Cause::Failed(Fault::Banned),
            Some(PeerState::Dialling { .. } | PeerState::Greeting { .. }) => last,
            _ if !self.is_allowed(peer) => Cause::Failed(Fault::NotAllowed),
            None => last,
            Some(PeerState::Known | PeerState::Waiting { .. }) if self.shutting_down => {
                Cause::Failed(Fault::ThisNodeCloses)
            }
            Some(PeerState::Known | PeerState::Waiting { .. }) if self.ban_on_any(peer).is_some() => {
                Cause::Failed(Fault::Banned)
            }
            Some(PeerState::Known) => match self.book.get(peer) {
                Some(known) if known.addresses.is_empty() => Cause::Failed(Fault::NoAddress),
                _ => last,
            },
            Some(PeerState::Waiting { due, failures }) if *due > now.mono => match last {
                Cause::DialBudget => Cause::DialBudget,
                // Overload and bad luck of ours wait too, without a count.
                Cause::Failed(_) => Cause::Backoff,
                _ if *failures > 0 => Cause::Backoff,
                other => other,
            },
            Some(PeerState::Waiting { .. }) if self.is_short_of_places(peer) => Cause::NoPlace,
            Some(PeerState::Waiting { .. }) => Cause::DialBudget,
        }
    }

    /// The ban on a peer, or on the address at which it would be dialled.
    fn ban_on_any(&self, peer: &PeerId) -> Option<&Ban> {
        let best = self.book.get(peer).and_then(|known| known.best_address());
        let ip = best.and_then(|best| best.address.socket_addr()).map(|socket| socket.ip());
        self.ban_on(peer, ip)
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary)?;
        for Entry { unix_ms, cause, detail, state, times } in &self.history {
            let ago = Duration::from_millis(self.told_unix_ms.saturating_sub(*unix_ms));
            write!(f, "  {:>13} ago  {}", span(ago), in_words(*cause, detail))?;
            if *times > 1 {
                write!(f, " ({times} times)")?;
            }
            writeln!(f, " → {}", state.unwrap_or("not known"))?;
        }
        Ok(())
    }
}

/// A cause and the words on it, without saying anything twice: a detail that says all that the cause does stands alone.
fn in_words(cause: Cause, detail: &str) -> String {
    let whole = cause.to_string();
    let core = match cause {
        Cause::Failed(Fault::RefusedByPeer(reason)) => reason.to_string(),
        Cause::Failed(Fault::RefusedByUs(reason)) => reason.as_we_say(),
        _ => whole.clone(),
    };
    let core = core.trim_start_matches("it is ").trim_start_matches("that is ");
    match detail {
        "" => whole,
        detail if detail.contains(core) => detail.to_owned(),
        detail => format!("{whole}: {detail}"),
    }
}

/// A time in the two units that matter.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn as_text<S: Serializer>(peer: &PeerId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(peer)
}

fn state_as_text<S: Serializer>(state: &Option<PeerState>, serializer: S) -> Result<S::Ok, S::Error> {
    match state {
        Some(state) => serializer.serialize_some(state.name()),
        None => serializer.serialize_none(),
    }
}

fn cause_as_name<S: Serializer>(cause: &Cause, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&cause.name())
}

fn fault_as_name<S: Serializer>(fault: &Option<Fault>, serializer: S) -> Result<S::Ok, S::Error> {
    match fault {
        Some(fault) => serializer.serialize_some(&fault.name()),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::RejectReason;
    use peerage_identity::NodeKey;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_journal_stays_within_both_of_its_bounds_and_keeps_the_latest(
            steps in prop::collection::vec((0u8..8, 0u8..5), 1..200)
        ) {
            let peers: Vec<_> = (0..8).map(|n| NodeKey::from_seed([n + 1; 32]).peer_id()).collect();
            let causes = [Cause::Named, Cause::Due, Cause::Told, Cause::Held, Cause::Failed(Fault::Timeout)];
            let ranks = [Rank::Stranger, Rank::Known, Rank::Named];
            let mut journal = Journal::new(4, 12);
            for (time, (peer, cause)) in steps.into_iter().enumerate() {
                let (peer, cause) = (peers[usize::from(peer)], causes[usize::from(cause)]);
                let now = Now::ZERO.after(Duration::from_secs(time as u64));
                journal.add(now, peer, ranks[time % 3], (cause, "because"), None);
                prop_assert!(journal.of(&peer).any(|entry| entry.cause == cause && entry.unix_ms == time as u64 * 1000));
                let count = |peer| journal.of(peer).count();
                prop_assert!(peers.iter().all(|peer| count(peer) <= 4));
                let all = peers.iter().map(count).sum::<usize>();
                prop_assert!(all <= 12);
                prop_assert_eq!(all, journal.len());
            }
        }
    }

    #[test]
    fn nothing_is_said_twice() {
        let full = RejectReason::Full;
        for (cause, detail, text) in [
            (Cause::Due, "", "its turn in the dial queue came"),
            (Cause::Failed(Fault::Timeout), "nothing answered", "nothing answered"),
            (Cause::Failed(Fault::Timeout), "5 s passed", "nothing answered: 5 s passed"),
            (Cause::Failed(Fault::Banned), "it sold us spam", "it is banned here: it sold us spam"),
            (
                Cause::Failed(Fault::RefusedByPeer(full)),
                "it refused us: it has no place free (all 3 are taken)",
                "it refused us: it has no place free (all 3 are taken)",
            ),
            (
                Cause::Failed(Fault::RefusedByUs(full)),
                "all 3 are taken",
                "we refused the peer because no place is free here: all 3 are taken",
            ),
        ] {
            assert_eq!(in_words(cause, detail), text);
        }
        let spans = [5, 90, 7300, 900_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(spans, ["5.0 s", "1 min 30 s", "2 h 1 min", "10 days"]);
    }

    #[test]
    fn what_happens_again_and_again_is_counted() {
        let peer = NodeKey::from_seed([1; 32]).peer_id();
        let mut journal = Journal::new(8, 100);
        for time in 0..50 {
            let now = Now::ZERO.after(Duration::from_secs(time));
            journal.add(now, peer, Rank::Known, (Cause::Due, ""), Some("dialling"));
            let failed = (Cause::Failed(Fault::Timeout), "silence");
            journal.add(now, peer, Rank::Known, failed, Some("waiting"));
        }
        let entries: Vec<_> = journal.of(&peer).map(|entry| (entry.cause, entry.times)).collect();
        assert_eq!(entries, [(Cause::Due, 50), (Cause::Failed(Fault::Timeout), 50)]);
    }
}
