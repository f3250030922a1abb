//! P2: go-libp2p's rule. Ten at a time; 5 s until a dial is given up; it ends when the three closest that are not given up have answered. A search for the closest
//! peers then asks the rest of the best 20 once, without learning from their answers.

use super::super::queue::{Micros, SECOND};
use super::super::still::K;
use super::candidates::{Candidates, State};
use super::{Goal, Policy, Reply, Step};

const ALPHA: usize = 10;
const BETA: usize = 3;
const DIAL_TIMEOUT: Micros = 5 * SECOND;

/// A lookup of go-libp2p.
#[derive(Debug)]
pub struct Go {
    goal: Goal,
    candidates: Candidates,
    waiting: usize,
    /// The best 20 at the end of the walk: who is still to be heard in the round after it.
    follow_up: Option<Vec<u32>>,
}

impl Go {
    /// For this goal.
    pub fn new(goal: Goal) -> Self {
        Self { goal, candidates: Candidates::default(), waiting: 0, follow_up: None }
    }

    /// The best 20 that are not given up, as the library keeps them: asked or not.
    fn best(&self) -> Vec<u32> {
        self.candidates.iter().filter(|one| one.state != State::Failed).map(|one| one.peer).take(K).collect()
    }

    fn give_up(&mut self, now: Micros) -> Option<Micros> {
        let mut due = None::<Micros>;
        for candidate in self.candidates.iter_mut() {
            if let State::Asked(at) = candidate.state {
                let end = at + DIAL_TIMEOUT;
                if now >= end {
                    candidate.state = State::Failed;
                    self.waiting -= 1;
                } else {
                    due = Some(due.map_or(end, |due| due.min(end)));
                }
            }
        }
        due
    }

    fn walk(&mut self, now: Micros, due: Option<Micros>) -> Step {
        let next = self.candidates.iter_mut().find(|one| one.state == State::New);
        match next {
            Some(candidate) if self.waiting < ALPHA => {
                candidate.state = State::Asked(now);
                self.waiting += 1;
                Step::Ask(candidate.peer)
            }
            None if self.waiting == 0 => Step::Done,
            _ => Step::Wait(due),
        }
    }

    fn walk_has_ended(&self) -> bool {
        let mut best = self.candidates.iter().filter(|one| one.state != State::Failed).take(BETA);
        best.all(|one| one.state == State::Answered)
    }
}

impl Policy for Go {
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
        if self.follow_up.is_none() {
            for (distance, peer) in reply.closer {
                self.candidates.add(*distance, *peer);
            }
        }
    }

    fn next(&mut self, now: Micros) -> Step {
        let due = self.give_up(now);
        if self.follow_up.is_none() {
            if !self.walk_has_ended() {
                return self.walk(now, due);
            }
            if self.goal == Goal::Value {
                return Step::Done;
            }
            self.follow_up = Some(self.best());
        }
        let best = self.follow_up.clone().unwrap_or_default();
        let mut outstanding = false;
        for peer in best {
            let Some(candidate) = self.candidates.get_mut(peer) else { continue };
            match candidate.state {
                State::New => {
                    candidate.state = State::Asked(now);
                    self.waiting += 1;
                    return Step::Ask(peer);
                }
                State::Asked(_) => outstanding = true,
                _ => {}
            }
        }
        if outstanding { Step::Wait(due) } else { Step::Done }
    }

    fn closest(&self) -> Vec<u32> {
        self.candidates.answered(K)
    }
}
