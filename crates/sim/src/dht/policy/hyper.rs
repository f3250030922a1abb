//! P4: dht-rpc's rule, as hyperdht has it. Ten at a time; a request that is not answered within a second is sent again, up to five times, and no longer holds a slot;
//! only peers closer than the 20th best answer are asked; it ends when nothing but slow requests is outstanding and 20 answers are in.

use super::super::queue::{Micros, SECOND};
use super::super::still::K;
use super::candidates::{Candidates, State};
use super::{Policy, Reply, Step};

const CONCURRENCY: usize = 10;
const TIMEOUT: Micros = SECOND;
const RETRIES: u64 = 5;

/// A lookup of dht-rpc. Retries count as requests; a peer of the simulated network that is silent once is silent again.
#[derive(Debug, Default)]
pub struct Hyper {
    candidates: Candidates,
    /// How often each slow peer was asked again.
    retries: std::collections::BTreeMap<u32, u64>,
}

impl Policy for Hyper {
    fn start(&mut self, _: Micros, seeds: &[(u64, u32)]) {
        for (distance, peer) in seeds {
            self.candidates.add(*distance, *peer);
        }
    }

    fn answered(&mut self, _: Micros, reply: &Reply<'_>) {
        let Some(candidate) = self.candidates.get_mut(reply.peer) else { return };
        candidate.state = State::Answered;
        for (distance, peer) in reply.closer {
            self.candidates.add(*distance, *peer);
        }
    }

    fn next(&mut self, now: Micros) -> Step {
        let mut due = None::<Micros>;
        let (mut quick, mut slow) = (0, 0);
        for candidate in self.candidates.iter_mut() {
            let (State::Asked(at) | State::Slow(at)) = candidate.state else { continue };
            let sent = self.retries.get(&candidate.peer).copied().unwrap_or_default();
            let end = at + (sent + 1) * TIMEOUT;
            if now >= end && sent >= RETRIES {
                candidate.state = State::Failed;
                continue;
            }
            if now >= end {
                candidate.state = State::Slow(at);
                self.retries.insert(candidate.peer, sent + 1);
                return Step::Ask(candidate.peer);
            }
            due = Some(due.map_or(end, |due| due.min(end)));
            match candidate.state {
                State::Slow(_) => slow += 1,
                _ => quick += 1,
            }
        }
        // A peer is worth asking if fewer than 20 that are closer have answered.
        let mut answers = 0;
        for candidate in self.candidates.iter_mut() {
            match candidate.state {
                State::Answered => answers += 1,
                State::New if answers < K && quick < CONCURRENCY => {
                    candidate.state = State::Asked(now);
                    return Step::Ask(candidate.peer);
                }
                _ => {}
            }
        }
        let ended = quick == 0 && (slow == 0 || answers >= K);
        if ended { Step::Done } else { Step::Wait(due) }
    }

    fn closest(&self) -> Vec<u32> {
        self.candidates.answered(K)
    }
}
