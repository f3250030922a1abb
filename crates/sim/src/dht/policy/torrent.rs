//! P3: libtorrent's rule. Five at a time; a peer silent for a second gives up its slot and holds up nothing any more; it ends when the 20 closest of the others have
//! answered. As long as one of those is outstanding, free slots go on to candidates farther away.

use super::super::queue::{Micros, SECOND};
use super::super::still::K;
use super::candidates::{Candidates, State};
use super::{Policy, Reply, Step};

const BRANCH: usize = 5;
const SHORT_TIMEOUT: Micros = SECOND;
const FULL_TIMEOUT: Micros = 2 * SECOND;

/// A lookup of libtorrent.
#[derive(Debug, Default)]
pub struct Torrent {
    candidates: Candidates,
}

impl Torrent {
    /// Moves on who has been silent too long. How many hold a slot, how many are outstanding at all, and when the next timeout is.
    fn time_out(&mut self, now: Micros) -> (usize, usize, Option<Micros>) {
        let (mut in_slots, mut outstanding, mut due) = (0, 0, None::<Micros>);
        for candidate in self.candidates.iter_mut() {
            if let State::Asked(at) = candidate.state
                && now >= at + SHORT_TIMEOUT
            {
                candidate.state = State::Slow(at);
            }
            if let State::Slow(at) = candidate.state
                && now >= at + FULL_TIMEOUT
            {
                candidate.state = State::Failed;
            }
            let end = match candidate.state {
                State::Asked(at) => at + SHORT_TIMEOUT,
                State::Slow(at) => at + FULL_TIMEOUT,
                _ => continue,
            };
            outstanding += 1;
            in_slots += usize::from(matches!(candidate.state, State::Asked(_)));
            due = Some(due.map_or(end, |due| due.min(end)));
        }
        (in_slots, outstanding, due)
    }
}

impl Policy for Torrent {
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
        let (in_slots, outstanding, due) = self.time_out(now);
        let (mut answered, mut held_up) = (0, false);
        for candidate in self.candidates.iter_mut() {
            if answered == K && !held_up {
                return Step::Done;
            }
            match candidate.state {
                State::Answered => answered = (answered + 1).min(K),
                State::Asked(_) => held_up |= answered < K,
                State::New if in_slots < BRANCH => {
                    candidate.state = State::Asked(now);
                    return Step::Ask(candidate.peer);
                }
                State::New | State::Slow(_) | State::Failed => {}
            }
        }
        let ended = (answered == K && !held_up) || outstanding == 0;
        if ended { Step::Done } else { Step::Wait(due) }
    }

    fn closest(&self) -> Vec<u32> {
        self.candidates.answered(K)
    }
}
