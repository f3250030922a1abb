//! What is held against each machine by whoever carries its messages, and not by its own word (dht.md D.3, 3 and 4): each request that it sent ends once, nobody is asked the
//! same twice in one lookup, each operation ends by its deadline, and of one that has ended nothing is under way.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use peerage_dht::{
    Contact, Dht, Errand, Key, LookupConfig, Operation, OperationId, Options, Query, RequestId,
};
use peerage_machine::Now;

/// What one machine has done in its present life.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Requests that have neither been answered nor withdrawn.
    open: BTreeMap<RequestId, Open>,
    asked: u64,
    answered: u64,
    /// Those that were given up, for whatever reason.
    withdrawn: u64,
    /// Whom lookups under way have asked, and where it was said to be.
    questions: BTreeMap<Question, Vec<Contact>>,
    /// By when operations are to end.
    promised: BTreeMap<OperationId, Duration>,
}

#[derive(Debug)]
struct Open {
    errand: Option<Errand>,
    deadline: Duration,
}

/// An operation, which of its lookups, who is asked, and for which page.
type Question = (u64, u32, Key, Option<Bytes>);

/// The loop's time has microseconds, the machines' has nanoseconds.
const GRAIN: Duration = Duration::from_millis(1);

impl Ledger {
    /// An operation begins.
    pub(super) fn begun(
        &mut self,
        now: Now,
        id: OperationId,
        wanted: &Operation,
        options: &Options,
        limits: &LookupConfig,
    ) {
        let usual = match wanted {
            Operation::Changed { .. } => limits.watch_deadline,
            _ => limits.deadline(options.class),
        };
        let time = options.deadline.unwrap_or(usual).min(Options::MOST_DEADLINE);
        self.promised.insert(id, now.mono + time);
    }

    /// A caller is told of the end. `unsettled`: copies are still on the way, and have so much time more.
    pub(super) fn ended(
        &mut self,
        now: Now,
        id: OperationId,
        unsettled: Option<Duration>,
    ) -> Result<(), String> {
        let Some(by) = self.promised.remove(&id) else {
            return Err(format!("{id:?} ends, which was not under way"));
        };
        if by + GRAIN < now.mono {
            return Err(format!("{id:?} ends {:?} after its deadline", now.mono - by));
        }
        if let Some(more) = unsettled {
            self.promised.insert(id, by.max(now.mono + more));
            return Ok(());
        }
        let of_it = |open: &&Open| open.errand.is_some_and(|errand| errand.caller == Some(id));
        match self.open.values().filter(of_it).count() {
            0 => Ok(()),
            left => Err(format!("{id:?} has ended, and {left} requests of it are under way")),
        }
    }

    /// A request is sent.
    pub(super) fn asked(
        &mut self,
        request: RequestId,
        errand: Option<Errand>,
        deadline: Duration,
        contact: &Contact,
        query: &Query,
    ) -> Result<(), String> {
        self.asked += 1;
        if self.open.insert(request, Open { errand, deadline }).is_some() {
            return Err(format!("{request:?} is sent twice"));
        }
        let Some((operation, lookup)) = errand.and_then(|errand| Some((errand.operation, errand.lookup?)))
        else {
            return Ok(());
        };
        let page = match query {
            Query::GetValue { cursor, .. } | Query::GetProviders { cursor, .. } => cursor.clone(),
            _ => None,
        };
        let before = self.questions.entry((operation, lookup, *contact.key(), page)).or_default();
        // The peer that is looked for is asked again where others say that it is.
        if before.iter().any(|other| other.same(contact)) {
            return Err(format!("{} is asked twice in one lookup of operation {operation}", contact.peer()));
        }
        before.push(contact.clone());
        Ok(())
    }

    /// An answer is handed in. One to a request that was withdrawn counts nothing.
    pub(super) fn answered(&mut self, request: RequestId) {
        self.answered += u64::from(self.open.remove(&request).is_some());
    }

    /// The machine gives a request up.
    pub(super) fn withdrawn(&mut self, request: RequestId) -> Result<(), String> {
        self.withdrawn += 1;
        match self.open.remove(&request) {
            Some(_) => Ok(()),
            None => Err(format!("{request:?} is withdrawn, which is not under way")),
        }
    }

    /// Forgets what lookups have asked that are over.
    pub(super) fn forget(&mut self, dht: &Dht) {
        self.questions.retain(|(operation, ..), _| dht.runs(*operation));
    }

    /// What must hold at any time, by what the machine says of itself.
    pub(super) fn check(&self, now: Now, dht: &Dht) -> Result<(), String> {
        let (stats, under_way) = dht.account();
        let said = (stats.asked, stats.answered, stats.failed + stats.cancelled, under_way as u64);
        let seen = (self.asked, self.answered, self.withdrawn, self.open.len() as u64);
        if said != seen || seen.0 != seen.1 + seen.2 + seen.3 {
            return Err(format!(
                "requests sent, answered, given up, under way: it says {said:?}, not {seen:?}"
            ));
        }
        let overdue = |by: &Duration| *by + GRAIN < now.mono;
        if let Some((id, by)) = self.promised.iter().find(|(_, by)| overdue(by)) {
            return Err(format!("{id:?} goes on {:?} after its deadline", now.mono - *by));
        }
        match self.open.iter().find(|(_, open)| overdue(&open.deadline)) {
            Some((request, _)) => Err(format!("{request:?} is under way after its deadline")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use peerage_dht::Target;

    use super::super::super::still::{contact, peer_id};
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn at(seconds: u64) -> Now {
        Now::ZERO.after(S(seconds))
    }

    fn target() -> Target {
        Target::new(b"somewhere").unwrap()
    }

    fn somebody() -> Contact {
        contact(1, peer_id(1, 1))
    }

    fn of(operation: u64, lookup: u32) -> Option<Errand> {
        Some(Errand { operation, caller: Some(OperationId(operation)), lookup: Some(lookup) })
    }

    fn begun(options: Options) -> Ledger {
        let mut ledger = Ledger::default();
        let wanted = Operation::Closest { target: target() };
        ledger.begun(at(0), OperationId(1), &wanted, &options, &LookupConfig::default());
        ledger
    }

    /// D.3-3: each candidate is asked at most once, but for its pages, and where others say that it is elsewhere.
    #[test]
    fn whoever_is_asked_the_same_twice_in_one_lookup_is_told() {
        let mut ledger = Ledger::default();
        let mut number = 0;
        let mut ask = |errand, contact: &Contact, cursor: Option<&'static [u8]>| {
            number += 1;
            let cursor = cursor.map(Bytes::from_static);
            let query = Query::GetValue { target: target(), cursor, wait: None };
            ledger.asked(RequestId(number), errand, S(5), contact, &query)
        };
        assert_eq!(ask(of(1, 1), &somebody(), None), Ok(()));
        assert_eq!(ask(of(2, 1), &somebody(), None), Ok(()), "another operation");
        assert_eq!(ask(of(1, 2), &somebody(), None), Ok(()), "a further lookup of a wait");
        assert_eq!(ask(of(1, 1), &somebody(), Some(b"page 2")), Ok(()));
        assert_eq!(ask(of(1, 1), &contact(9, peer_id(1, 1)), None), Ok(()), "it is elsewhere");
        assert_eq!(ask(None, &somebody(), None), Ok(()), "a probe");
        assert!(ask(of(1, 1), &somebody(), None).unwrap_err().contains("asked twice"));
        assert!(ask(of(1, 1), &somebody(), Some(b"page 2")).unwrap_err().contains("asked twice"));
    }

    /// D.3-3: every operation ends by its deadline, as its class or its caller says, and nothing of it is left then.
    #[test]
    fn an_operation_that_ends_late_or_leaves_something_behind_is_told() {
        let interactive = Options::default();
        assert_eq!(begun(interactive).ended(at(10), OperationId(1), None), Ok(()));
        let late = begun(interactive).ended(at(11), OperationId(1), None);
        assert!(late.unwrap_err().contains("after its deadline"));
        let short = Options { deadline: Some(S(3)), ..interactive };
        assert!(begun(short).ended(at(4), OperationId(1), None).is_err());
        // What goes on after its caller was told has the time of what nobody waits for.
        let mut store = begun(interactive);
        assert_eq!(store.ended(at(9), OperationId(1), Some(S(30))), Ok(()));
        assert_eq!(store.ended(at(39), OperationId(1), None), Ok(()));
        assert!(store.ended(at(39), OperationId(1), None).unwrap_err().contains("not under way"));

        let mut ledger = begun(interactive);
        let query = Query::FindNode { target: target() };
        ledger.asked(RequestId(1), of(1, 1), S(5), &somebody(), &query).unwrap();
        assert!(ledger.ended(at(2), OperationId(1), None).unwrap_err().contains("are under way"));
    }

    /// D.3-4: what was never sent, or is over, is not given up once more.
    #[test]
    fn a_request_that_ends_twice_is_told() {
        let mut ledger = Ledger::default();
        let query = Query::FindNode { target: target() };
        for request in [1, 2] {
            ledger.asked(RequestId(request), None, S(5), &somebody(), &query).unwrap();
        }
        ledger.answered(RequestId(1));
        // A late answer is nobody's fault.
        ledger.answered(RequestId(1));
        assert_eq!((ledger.answered, ledger.withdrawn(RequestId(2))), (1, Ok(())));
        assert!(ledger.withdrawn(RequestId(2)).is_err() && ledger.withdrawn(RequestId(1)).is_err());
        assert!(ledger.asked(RequestId(3), None, S(5), &somebody(), &query).is_ok());
        assert!(ledger.asked(RequestId(3), None, S(5), &somebody(), &query).is_err());
    }
}
