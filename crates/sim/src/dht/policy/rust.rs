//! P1: rust-libp2p's rule. Three at a time, up to 20 once three answers in a row brought nothing closer; 10 s for each peer; it ends when the 20 closest
//! that are not given up have answered, so that one outstanding peer among them holds up the end.

use super::super::queue::{Micros, SECOND};
use super::super::still::K;
use super::candidates::{Candidates, State};
use super::{Policy, Reply, Step};

const PARALLELISM: usize = 3;
const TIMEOUT: Micros = 10 * SECOND;

/// A lookup of rust-libp2p.
#[derive(Debug, Default)]
pub struct Rust {
    candidates: Candidates,
    waiting: usize,
    /// Answers in a row that brought nothing closer.
    fruitless: usize,
    stalled: bool,
}

impl Policy for Rust {
    fn start(&mut self, _: Micros, seeds: &[(u64, u32)]) {
        for (distance, peer) in seeds {
            self.candidates.add(*distance, *peer);
        }
    }

    fn answered(&mut self, _: Micros, reply: &Reply<'_>) {
        let Some(candidate) = self.candidates.get_mut(reply.peer) else { return };
        if matches!(candidate.state, State::Asked(_)) {
            self.waiting -= 1;
        }
        candidate.state = State::Answered;
        let few = self.candidates.len() < K;
        let mut progress = few;
        for (distance, peer) in reply.closer {
            let added = self.candidates.add(*distance, *peer);
            progress |= added && self.candidates.nearest() == Some(*distance);
        }
        if progress {
            (self.stalled, self.fruitless) = (false, 0);
        } else if !self.stalled {
            self.fruitless += 1;
            self.stalled = self.fruitless >= PARALLELISM;
        }
    }

    fn next(&mut self, now: Micros) -> Step {
        let capacity = if self.stalled { K } else { PARALLELISM };
        let mut full = self.waiting >= capacity;
        // Answers counted from the closest on, for as long as nobody closer is outstanding.
        let mut answered = Some(0);
        let mut due = None::<Micros>;
        for candidate in self.candidates.iter_mut() {
            match candidate.state {
                State::Asked(at) if now >= at + TIMEOUT => {
                    candidate.state = State::Failed;
                    self.waiting -= 1;
                    full = self.waiting >= capacity;
                }
                State::Asked(at) => {
                    due = Some(due.map_or(at + TIMEOUT, |due| due.min(at + TIMEOUT)));
                    answered = None;
                }
                State::Answered => {
                    if let Some(count) = &mut answered {
                        *count += 1;
                        if *count >= K {
                            return Step::Done;
                        }
                    }
                }
                State::New if !full => {
                    candidate.state = State::Asked(now);
                    self.waiting += 1;
                    return Step::Ask(candidate.peer);
                }
                // One that is not asked yet blocks the end as well.
                State::New => answered = None,
                State::Slow(_) | State::Failed => {}
            }
        }
        if self.waiting > 0 { Step::Wait(due) } else { Step::Done }
    }

    fn closest(&self) -> Vec<u32> {
        self.candidates.answered(K)
    }
}
