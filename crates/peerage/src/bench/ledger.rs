//! Who measures, and what that has cost: the runs, and the budget of all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use peerage_identity::PeerId;
use peerage_machine::{Now, TokenBucket};

use super::{BenchLimits, LEAST_CHARGE, MAX_LATE_BYTES};
use crate::clock::Clock;
use crate::request::ServeError;
use crate::shared::Shared;
use crate::watch;

const HOUR: Duration = Duration::from_secs(3600);

/// The runs of a node.
pub(crate) struct Ledger {
    pub(crate) limits: BenchLimits,
    clock: Clock,
    shared: Weak<Shared>,
    book: Mutex<Book>,
}

impl Ledger {
    pub(crate) fn new(limits: BenchLimits, shared: &Arc<Shared>) -> Arc<Self> {
        let book = Book::new(&limits, shared.clock.now());
        Arc::new(Self {
            limits,
            clock: shared.clock.clone(),
            shared: Arc::downgrade(shared),
            book: Mutex::new(book),
        })
    }

    /// Begins a run of the peer, or tells what is left of the one that it has.
    pub(crate) fn begin(&self, peer: PeerId) -> Result<Left, Refusal> {
        let shared = self.shared.upgrade();
        let is_here = |peer: &PeerId| shared.as_ref().is_some_and(|shared| shared.peer(peer).is_some());
        self.lock().begin(&self.limits, peer, self.clock.now(), is_here)
    }

    /// Charges the peer's run for so many messages, streams or requests, with so many bytes together.
    pub(crate) fn charge(&self, peer: PeerId, items: u64, bytes: u64) -> Result<(), Refusal> {
        self.lock().charge(&self.limits, peer, items, bytes, self.clock.now())
    }

    /// Messages have come for which there is no run any more. True when that is more than can have been on its way.
    pub(crate) fn is_too_late(&self, peer: PeerId, bytes: u64) -> bool {
        self.lock().is_too_late(peer, bytes, self.clock.now())
    }

    /// Counts messages of the peer's run.
    pub(crate) fn count(&self, peer: PeerId, messages: u64, bytes: u64) {
        if let Some(run) = self.lock().runs.get(&peer) {
            run.counted.send_modify(|count| *count = (count.0 + messages, count.1 + bytes));
        }
    }

    /// The messages of the peer's run and their bytes, as they are counted.
    pub(crate) fn counts(&self, peer: PeerId) -> Option<watch::Receiver<(u64, u64)>> {
        self.lock().runs.get(&peer).map(|run| run.counted.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What a run may still move, and how long it may still last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

/// Why there is no run, or none any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("ask for a run first")]
    NotBegun,
    #[error("peers that measure already: {runs}, as many as may at once (bench.max_runs of that node)")]
    Full { runs: usize, wait: Duration },
    #[error("the run has moved {bytes} bytes, as many as one may (bench.max_run_bytes of that node)")]
    Bytes { bytes: u64, wait: Duration },
    #[error("the run has lasted {time:?}, as long as one may (bench.max_run_time of that node)")]
    Time { time: Duration, wait: Duration },
    #[error("what may be moved in an hour is used up (bench.bytes_per_hour of that node)")]
    Hour { wait: Duration },
}

impl Refusal {
    fn wait(self) -> Option<Duration> {
        match self {
            Refusal::NotBegun => None,
            Refusal::Full { wait, .. }
            | Refusal::Bytes { wait, .. }
            | Refusal::Time { wait, .. }
            | Refusal::Hour { wait } => Some(wait),
        }
    }
}

impl From<Refusal> for ServeError {
    fn from(refusal: Refusal) -> Self {
        match refusal.wait() {
            None => ServeError::denied(refusal.to_string()),
            Some(wait) => ServeError::overloaded(refusal.to_string()).retry_after(wait),
        }
    }
}

/// One peer's run.
#[derive(Debug)]
struct Run {
    began: Duration,
    /// When anything was charged last.
    moved: Duration,
    bytes: u64,
    /// Why it takes no more.
    over: Option<Refusal>,
    /// What came on the channels since.
    late: u64,
    counted: watch::Sender<(u64, u64)>,
}

impl Run {
    fn new(now: Duration) -> Self {
        Self { began: now, moved: now, bytes: 0, over: None, late: 0, counted: watch::Sender::new((0, 0)) }
    }

    fn left(&self, limits: &BenchLimits, now: Duration) -> Left {
        Left {
            bytes: limits.max_run_bytes.saturating_sub(self.bytes),
            time: (self.began + limits.max_run_time).saturating_sub(now),
        }
    }
}

/// All that is known, without a clock.
#[derive(Debug)]
struct Book {
    /// Of connected peers, and of those that went since anybody asked last.
    runs: BTreeMap<PeerId, Run>,
    budget: TokenBucket,
}

impl Book {
    fn new(limits: &BenchLimits, now: Now) -> Self {
        let burst = limits.bytes_per_hour as f64;
        Self { runs: BTreeMap::new(), budget: TokenBucket::new(burst, burst / HOUR.as_secs_f64(), now) }
    }

    fn begin(
        &mut self,
        limits: &BenchLimits,
        peer: PeerId,
        now: Now,
        is_here: impl Fn(&PeerId) -> bool,
    ) -> Result<Left, Refusal> {
        let idle = limits.idle_timeout;
        self.runs.retain(|peer, run| is_here(peer) && now.mono.saturating_sub(run.moved) < idle);
        if let Some(run) = self.runs.get_mut(&peer).filter(|run| run.over != Some(Refusal::NotBegun)) {
            // What was refused for good is told again, and that moves nothing.
            return match run.over {
                Some(refusal) => Err(refusal),
                None => Ok(run.left(limits, now.mono)),
            };
        }
        let running = self.runs.values().filter(|run| run.over.is_none()).count();
        if running >= limits.max_runs {
            return Err(Refusal::Full { runs: running, wait: idle });
        }
        if let Some(wait) = self.budget.wait_for(LEAST_CHARGE as f64, now).filter(|wait| !wait.is_zero()) {
            return Err(Refusal::Hour { wait });
        }
        let run = Run::new(now.mono);
        let left = run.left(limits, now.mono);
        self.runs.insert(peer, run);
        Ok(left)
    }

    fn charge(
        &mut self,
        limits: &BenchLimits,
        peer: PeerId,
        items: u64,
        bytes: u64,
        now: Now,
    ) -> Result<(), Refusal> {
        let run = self.runs.get_mut(&peer).ok_or(Refusal::NotBegun)?;
        if let Some(refusal) = run.over {
            return Err(refusal);
        }
        let cost = bytes.max(items.saturating_mul(LEAST_CHARGE));
        let wait = limits.idle_timeout;
        let refusal = if run.bytes.saturating_add(cost) > limits.max_run_bytes {
            Refusal::Bytes { bytes: limits.max_run_bytes, wait }
        } else if now.mono.saturating_sub(run.began) >= limits.max_run_time {
            Refusal::Time { time: limits.max_run_time, wait }
        } else if !self.budget.take(cost as f64, now) {
            Refusal::Hour { wait: self.budget.wait_for(cost as f64, now).unwrap_or(HOUR).max(wait) }
        } else {
            (run.bytes, run.moved) = (run.bytes + cost, now.mono);
            return Ok(());
        };
        run.over = Some(refusal);
        Err(refusal)
    }

    fn is_too_late(&mut self, peer: PeerId, bytes: u64, now: Now) -> bool {
        let run = self
            .runs
            .entry(peer)
            .or_insert_with(|| Run { over: Some(Refusal::NotBegun), ..Run::new(now.mono) });
        run.late = run.late.saturating_add(bytes);
        run.late > MAX_LATE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerage_identity::NodeKey;

    const MIB: u64 = 1 << 20;

    fn peer(number: u8) -> PeerId {
        NodeKey::from_seed([number; 32]).peer_id()
    }

    fn at(seconds: u64) -> Now {
        Now::ZERO.after(Duration::from_secs(seconds))
    }

    fn limits() -> BenchLimits {
        BenchLimits {
            max_runs: 2,
            max_run_bytes: 4 * MIB,
            max_run_time: Duration::from_secs(100),
            idle_timeout: Duration::from_secs(10),
            bytes_per_hour: 36 * MIB,
        }
    }

    /// A book, and what is said to it by peers that are all there.
    struct Story(BenchLimits, Book);

    impl Story {
        fn new(limits: BenchLimits) -> Self {
            let book = Book::new(&limits, at(0));
            Self(limits, book)
        }

        fn begin(&mut self, number: u8, seconds: u64) -> Result<Left, Refusal> {
            self.1.begin(&self.0, peer(number), at(seconds), |_| true)
        }

        fn charge(&mut self, number: u8, items: u64, bytes: u64, seconds: u64) -> Result<(), Refusal> {
            self.1.charge(&self.0, peer(number), items, bytes, at(seconds))
        }
    }

    #[test]
    fn so_many_peers_measure_at_once_and_the_next_one_when_one_has_gone_or_is_idle() {
        let mut story = Story::new(limits());
        assert_eq!(story.begin(1, 0).unwrap().bytes, 4 * MIB);
        story.begin(2, 0).unwrap();
        let full = story.begin(3, 1).unwrap_err();
        assert!(matches!(full, Refusal::Full { runs: 2, .. }), "{full}");
        assert_eq!(story.charge(3, 1, 0, 1), Err(Refusal::NotBegun));
        // The second one goes.
        let without = |peer_id: &PeerId| *peer_id != peer(2);
        let book = &mut story.1;
        book.begin(&story.0, peer(3), at(1), without).unwrap();
        // The first one says nothing for ten seconds.
        story.charge(3, 1, 0, 9).unwrap();
        assert!(story.begin(2, 9).is_err());
        story.begin(2, 10).unwrap();
        assert_eq!(story.charge(1, 1, 0, 10), Err(Refusal::NotBegun));
    }

    #[test]
    fn a_run_moves_so_much_and_lasts_so_long_and_small_things_are_charged_as_larger_ones() {
        let mut story = Story::new(limits());
        story.begin(1, 0).unwrap();
        story.charge(1, 0, 3 * MIB, 1).unwrap();
        story.charge(1, 2048, 5, 2).unwrap();
        let left = story.begin(1, 2).unwrap();
        assert_eq!((left.bytes, left.time), (MIB / 2, Duration::from_secs(98)));
        assert!(
            matches!(story.charge(1, 0, MIB / 2 + 1, 3), Err(Refusal::Bytes { bytes, .. }) if bytes == 4 * MIB)
        );
        // It is over for good, and told so, until the peer was silent for a while.
        assert!(matches!(story.charge(1, 1, 1, 4), Err(Refusal::Bytes { .. })));
        assert!(matches!(story.begin(1, 11), Err(Refusal::Bytes { .. })));
        assert_eq!(story.begin(1, 12).unwrap().bytes, 4 * MIB);

        story.begin(2, 20).unwrap();
        (21..120).step_by(9).for_each(|second| story.charge(2, 1, 1, second).unwrap());
        assert!(matches!(story.charge(2, 1, 1, 120), Err(Refusal::Time { .. })));
        // Whose run is over holds no place.
        story.begin(3, 121).unwrap();
        story.begin(4, 121).unwrap();
    }

    #[test]
    fn all_runs_together_move_so_much_in_an_hour_whoever_asks() {
        let mut story = Story::new(limits());
        let mut moved = 0;
        for number in 1..=20 {
            let second = u64::from(number) * 20;
            if story.begin(number, second).is_ok() {
                moved += (0..4).filter(|_| story.charge(number, 0, MIB, second).is_ok()).count() as u64;
            }
        }
        // 36 MiB at once, and 400 s of what comes in.
        assert!((36..=40).contains(&moved), "{moved} MiB");
        let refusal =
            story.begin(21, 400).and_then(|_| story.charge(21, 0, MIB, 400).map(|()| unreachable!()));
        let Err(Refusal::Hour { wait }) = refusal else { panic!("{refusal:?}") };
        assert!(wait <= Duration::from_secs(120), "{wait:?}");
        story.begin(22, 3 * 3600).unwrap();
        story.charge(22, 0, 4 * MIB, 3 * 3600).unwrap();
    }

    #[test]
    fn what_comes_after_a_run_or_without_one_is_borne_for_sixteen_mebibytes() {
        let mut story = Story::new(limits());
        assert!(!story.1.is_too_late(peer(1), MAX_LATE_BYTES, at(0)));
        assert!(story.1.is_too_late(peer(1), 1, at(0)));
        // That is no run: it takes no place, and a run may begin.
        story.begin(2, 0).unwrap();
        story.begin(3, 0).unwrap();
        assert!(matches!(story.begin(1, 0), Err(Refusal::Full { .. })));
        story.begin(1, 10).unwrap();
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let wait = Duration::from_secs(7);
        let error = ServeError::from(Refusal::Full { runs: 4, wait });
        assert_eq!((error.code, error.retry_after), (ServeError::OVERLOADED, Some(wait)));
        assert!(error.text.contains("measure already: 4,"));
        assert_eq!(ServeError::from(Refusal::NotBegun).code, ServeError::DENIED);
    }
}
