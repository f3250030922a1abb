//! The machine: a whole node of the DHT.

mod types;

use std::collections::VecDeque;
use std::time::Duration;

use peerage_identity::PeerId;
use peerage_machine::{Machine, Now, Random};

use crate::{Answer, DhtConfig, Judge, Key, Refusal, Status};
pub use types::{
    Class, Counts, Ended, Event, Failure, Found, Input, Mode, NotStored, Operation, OperationId, Options,
    Outcome, Output, QueryId, RequestId, Source,
};

/// A node of the DHT.
pub struct Dht {
    #[expect(dead_code, reason = "what lookups and the table are made of")]
    config: DhtConfig,
    key: Key,
    peer: PeerId,
    #[expect(dead_code, reason = "lookups judge what they find")]
    judge: Box<dyn Judge + Send>,
    #[expect(dead_code, reason = "refreshes draw their places")]
    random: Random,
    outputs: VecDeque<Output>,
}

impl Dht {
    /// A node that knows nobody yet. `judge` says which values are worth anything; `random` decides what is left to chance.
    pub fn new(
        config: DhtConfig,
        peer: PeerId,
        mode: Mode,
        judge: Box<dyn Judge + Send>,
        random: Random,
        now: Now,
    ) -> Self {
        let _ = (mode, now);
        Self { config, key: Key::of_peer(&peer), peer, judge, random, outputs: VecDeque::new() }
    }

    /// Who we are.
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// Where we lie.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

impl Machine for Dht {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, _: Now, input: Input) {
        match input {
            Input::Asked { query, .. } => {
                let answer = Answer::status(Status::Refused(Refusal::NotServed));
                self.outputs.push_back(Output::Reply { query, answer });
            }
            Input::Start { operation, .. } => {
                let outcome = Box::new(Outcome::empty(Ended::NoContacts));
                self.outputs.push_back(Output::Done { operation, outcome });
            }
            _ => {}
        }
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Duration> {
        None
    }
}
