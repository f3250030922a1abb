//! What must hold of the machine after every event (dht.md D.3, 1, 3 and 4), and what whoever carries its messages must know to hold it against what it says.

use std::time::Duration;

use peerage_machine::Now;

use super::operation::{Aim, Op};
use super::requests::Purpose;
use super::{Dht, OperationId, RequestId, Stats};

/// Timers of drivers have a grain: nothing is overdue before that.
const GRAIN: Duration = Duration::from_millis(1);

/// For which operation a request is.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errand {
    /// By the machine's own number.
    pub operation: u64,
    /// Who started it, if somebody did.
    pub caller: Option<OperationId>,
    /// Which of its lookups, counted from one: a wait for a change begins one after another. `None` for a copy that is stored, or a holder that is to tell of a change.
    pub lookup: Option<u32>,
}

impl Dht {
    /// What must hold after every event (dht.md D.3, 1, 3 and 4); the first thing that doesn't.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        self.table.check()?;
        for op in self.operations.values() {
            self.check_operation(op)?;
        }
        self.check_requests()?;
        self.check_callers()?;
        self.check_own()?;
        self.check_late()?;
        self.check_buckets()
    }

    /// The same, and that nothing is overdue: for drivers that keep time.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check_at(&self, now: Now) -> Result<(), String> {
        self.check()?;
        let overdue = |due: Duration| due.saturating_add(GRAIN) < now.mono;
        for (number, op) in &self.operations {
            let due = if op.walked.is_none() { op.lookup.deadline() } else { op.deadline };
            if overdue(due) {
                let (aim, late) = (op.aim, now.mono.saturating_sub(due));
                return Err(format!("operation {number}, {aim:?}, goes on {late:?} after its deadline"));
            }
        }
        if self.requests.first_deadline().is_some_and(overdue) {
            return Err("a request waits after its deadline".into());
        }
        if self.late.first_due().is_some_and(overdue) {
            return Err("a watcher still listens for what comes late".into());
        }
        Ok(())
    }

    /// For which operation a request is that is under way; `None` for those of the node itself, and when nobody waits for it any more.
    #[doc(hidden)]
    pub fn errand(&self, request: RequestId) -> Option<Errand> {
        let (operation, walks) = match self.requests.purpose(request)? {
            Purpose::Walk(operation) => (operation, true),
            Purpose::Store(operation) | Purpose::Change(operation) => (operation, false),
            Purpose::Probe | Purpose::Notice | Purpose::Records(_) => return None,
        };
        let op = self.operations.get(&operation)?;
        let caller = if let Aim::Caller(id) = op.aim { Some(id) } else { None };
        Some(Errand { operation, caller, lookup: walks.then_some(op.lookups) })
    }

    /// Whether a caller waits for a request: it is for an operation that one started, or for a look at the neighbourhood of its target. False for what the node does by itself; `None` when
    /// no operation waits for the request.
    #[doc(hidden)]
    pub fn serves_caller(&self, request: RequestId) -> Option<bool> {
        let mut op = self.operations.get(&self.errand(request)?.operation)?;
        if let Aim::Cover(parent) = op.aim {
            op = self.operations.get(&parent)?;
        }
        Some(matches!(op.aim, Aim::Caller(_)))
    }

    /// Whether an operation of this number is under way.
    #[doc(hidden)]
    pub fn runs(&self, operation: u64) -> bool {
        self.operations.contains_key(&operation)
    }

    /// What requests have come to, and how many are under way.
    #[doc(hidden)]
    pub fn account(&self) -> (Stats, usize) {
        (self.stats, self.requests.len())
    }

    fn check_operation(&self, op: &Op) -> Result<(), String> {
        op.lookup.check()?;
        let limits = &self.config.lookup;
        if let Some(store) = &op.store {
            store.check(op.lookup.most())?;
        }
        if let Some(change) = &op.change {
            change.check(limits.watch_holders)?;
        }
        let (aim, walk) = (op.aim, op.lookup.deadline());
        let wakes_by = if op.walked.is_none() { walk } else { op.deadline };
        if op.wake > wakes_by || walk > op.deadline {
            return Err(format!(
                "{aim:?} wakes at {:?}, and ends by {walk:?} and {:?}",
                op.wake, op.deadline
            ));
        }
        let allowed = limits.deadline(op.class);
        if !matches!(aim, Aim::Caller(_)) && walk > op.lookup.started() + allowed {
            return Err(format!("a lookup of our own, {aim:?}, may take more than {allowed:?}"));
        }
        if op.walked.is_some() && op.lookup.under_way().next().is_some() {
            return Err(format!("{aim:?} has ended its walk, and a request of it is under way"));
        }
        Ok(())
    }

    /// Sent = answered + failed + cancelled + under way, and whatever is under way is so for an operation that waits for it.
    fn check_requests(&self) -> Result<(), String> {
        let Stats { asked, answered, failed, cancelled, .. } = self.stats;
        if asked != answered + failed + cancelled + self.requests.len() as u64 {
            return Err(format!("{:?} with {} under way", self.stats, self.requests.len()));
        }
        self.requests.check()?;
        let (mut of_operations, mut waited_for) = (0, 0);
        for (request, purpose) in self.requests.purposes() {
            let op = |operation| self.operations.get(&operation);
            let waits = match purpose {
                Purpose::Walk(operation) => {
                    op(operation).is_some_and(|op| op.lookup.under_way().any(|other| other == request))
                }
                Purpose::Store(operation) => {
                    let store = op(operation).and_then(|op| op.store.as_ref());
                    store.is_some_and(|store| store.under_way().any(|other| other == request))
                }
                Purpose::Change(operation) => {
                    let change = op(operation).and_then(|op| op.change.as_ref());
                    change.is_some_and(|change| change.under_way().any(|other| other == request))
                }
                Purpose::Probe | Purpose::Notice | Purpose::Records(_) => continue,
            };
            if !waits {
                return Err(format!("{request:?} is under way for {purpose:?}, which does not wait for it"));
            }
            of_operations += 1;
        }
        for op in self.operations.values() {
            waited_for += op.lookup.under_way().count();
            waited_for += op.store.as_ref().map_or(0, |store| store.under_way().count());
            waited_for += op.change.as_ref().map_or(0, |change| change.under_way().count());
        }
        match of_operations == waited_for {
            true => Ok(()),
            false => Err(format!("operations wait for {waited_for} requests, {of_operations} are under way")),
        }
    }

    /// Each caller waits for an operation that is there, and each of a caller's operations has a caller who waits.
    fn check_callers(&self) -> Result<(), String> {
        if self.callers.values().any(|operation| !self.operations.contains_key(operation)) {
            return Err("a caller waits for an operation that is over".into());
        }
        let unknown = self.operations.iter().find(|(number, op)| match op.aim {
            Aim::Caller(id) => self.callers.get(&id) != Some(number),
            _ => false,
        });
        match unknown {
            Some((number, op)) => Err(format!("nobody waits for operation {number}, {:?}", op.aim)),
            None => Ok(()),
        }
    }

    /// Lookups for the node itself, and those for other operations, are counted by whoever waits for them.
    fn check_own(&self) -> Result<(), String> {
        let count = |aim: Aim| self.operations.values().filter(|op| op.aim == aim).count();
        self.upkeep.check_lookups(count(Aim::Join), count(Aim::Compare), |operation| {
            self.operations.get(&operation).is_some_and(|op| op.aim == Aim::Join)
        })?;
        for (number, op) in &self.operations {
            let covers = count(Aim::Cover(*number));
            if covers != op.covering {
                return Err(format!("operation {number} waits for {} lookups and has {covers}", op.covering));
            }
            if let Aim::Cover(parent) = op.aim
                && !self.operations.contains_key(&parent)
            {
                return Err(format!("operation {number} goes on for {parent}, which is over"));
            }
        }
        Ok(())
    }

    /// Of what has ended nothing is left but what is listened for, and nobody follows a place of the store without an operation or a question that does.
    fn check_late(&self) -> Result<(), String> {
        self.late.check(|operation| self.operations.contains_key(&operation))?;
        let wanted = self.watchers.len() + self.waiting();
        let followed = self.holder.as_ref().map(|holder| holder.store.followers());
        match followed.filter(|followed| *followed != wanted) {
            Some(followed) => Err(format!("places are followed {followed} times, for {wanted}")),
            None => Ok(()),
        }
    }

    /// No bucket of tokens owes more than it may.
    fn check_buckets(&self) -> Result<(), String> {
        self.upkeep.check_buckets()?;
        self.limiter.check()?;
        let Some(holder) = &self.holder else { return Ok(()) };
        holder.store.check_rates()?;
        holder.repair.check_credit(self.config.store.max_records)
    }
}
