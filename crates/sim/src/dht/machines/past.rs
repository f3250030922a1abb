//! Queries that go past a node's machine: a scenario sends them in its name and takes the answers itself, as lookups by other rules than ours do.

use std::time::Duration;

use peerage_dht::{Answer, Class, Query, RequestId};

use super::{Happened, Pending, World};

/// Such queries are numbered from here on.
const PAST: u64 = 1 << 41;

impl World {
    /// Sends a query whose answer comes as [`Happened::Answered`] with this number, and says whether a connection stood for it.
    pub fn query(&mut self, node: u32, to: u32, query: Query) -> (RequestId, bool) {
        self.last += 1;
        let request = RequestId(PAST + self.last);
        let stood = self.setting.cold == 0.0 || self.nodes[node as usize].links.contains_key(&to);
        let contact = self.nodes[to as usize].contact.clone();
        self.ask(node, request, &contact, query, Class::Interactive);
        (request, stood)
    }

    /// From now on every contact counts as connected: no request waits for a dial. Machines still count with one where they have not asked lately, and wait a little
    /// longer for answers than they would have to.
    pub fn connect_all(&mut self) {
        self.setting.cold = 0.0;
    }

    /// Hands an answer to the scenario if it was the one that asked.
    pub(super) fn past(&mut self, from: &Pending, rtt: Duration, answer: Answer) -> Option<Answer> {
        if from.request.0 < PAST {
            return Some(answer);
        }
        let (request, rtt) = (from.request, rtt.as_micros() as u64);
        self.happened.push_back(Happened::Answered { request, rtt, answer: Box::new(answer) });
        None
    }
}
