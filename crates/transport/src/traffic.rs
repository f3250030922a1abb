//! How many bytes each protocol has moved on a connection.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peerage_machine::Interner;

/// Protocol names that are counted by themselves on one connection. Bytes of more are counted together, under [`OTHER_PROTOCOLS`].
pub const MAX_COUNTED_PROTOCOLS: usize = 64;

/// The name under which bytes are counted once a connection has had [`MAX_COUNTED_PROTOCOLS`] names.
pub const OTHER_PROTOCOLS: &str = "(other)";

/// The bytes that one protocol has moved on one connection: what was written to and read from its streams, without the negotiation of the name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProtocolTraffic {
    /// The protocol's name.
    pub protocol: Arc<str>,
    /// Bytes that this side wrote. They may still be on their way.
    pub sent_bytes: u64,
    /// Bytes that this side read. More may lie unread.
    pub received_bytes: u64,
}

/// Sums over several connections, by protocol, in the order of the names. [`MAX_COUNTED_PROTOCOLS`] names are counted by themselves here too.
#[derive(Debug, Clone, Default)]
pub struct TrafficTotals(BTreeMap<Arc<str>, ProtocolTraffic>);

impl TrafficTotals {
    /// Adds what one connection has moved.
    pub fn add(&mut self, traffic: &[ProtocolTraffic]) {
        for one in traffic {
            let full = self.0.len() >= MAX_COUNTED_PROTOCOLS && !self.0.contains_key(&one.protocol);
            let name = if full { Arc::from(OTHER_PROTOCOLS) } else { one.protocol.clone() };
            let none = ProtocolTraffic { protocol: name.clone(), sent_bytes: 0, received_bytes: 0 };
            let sum = self.0.entry(name).or_insert(none);
            sum.sent_bytes = sum.sent_bytes.saturating_add(one.sent_bytes);
            sum.received_bytes = sum.received_bytes.saturating_add(one.received_bytes);
        }
    }

    /// The sums.
    pub fn list(&self) -> Vec<ProtocolTraffic> {
        self.0.values().cloned().collect()
    }
}

/// A protocol of a connection, shared by its streams: its name, and where their bytes are counted.
#[derive(Debug)]
pub(crate) struct Protocol {
    pub(crate) name: Arc<str>,
    counted: Counted,
}

#[derive(Debug)]
enum Counted {
    /// It is only proposed.
    Nowhere,
    Here(Counters),
    /// There are too many names.
    With(Arc<Protocol>),
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Protocol {
    /// A name of which nothing is counted.
    pub(crate) fn proposed(name: Arc<str>) -> Arc<Self> {
        Arc::new(Self { name, counted: Counted::Nowhere })
    }

    fn new(name: Arc<str>) -> Arc<Self> {
        Arc::new(Self { name, counted: Counted::Here(Counters::default()) })
    }

    pub(crate) fn sent(&self, bytes: usize) {
        if let Some(counters) = self.counters() {
            counters.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    pub(crate) fn received(&self, bytes: usize) {
        if let Some(counters) = self.counters() {
            counters.received.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    fn counters(&self) -> Option<&Counters> {
        match &self.counted {
            Counted::Nowhere => None,
            Counted::Here(counters) => Some(counters),
            Counted::With(others) => others.counters(),
        }
    }
}

/// Names of protocols, once for all connections of an endpoint. Of more than [`MAX_COUNTED_PROTOCOLS`], each connection has its own.
#[derive(Debug)]
pub(crate) struct Names(Mutex<Interner<str>>);

impl Default for Names {
    fn default() -> Self {
        Self(Mutex::new(Interner::new(MAX_COUNTED_PROTOCOLS)))
    }
}

impl Names {
    fn share(&self, name: &str) -> Arc<str> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).share(Arc::from(name))
    }
}

/// The counters of a connection. A handful of names: a list is smaller than a map and no slower.
#[derive(Debug, Default)]
pub(crate) struct Traffic(Mutex<Vec<Arc<Protocol>>>);

impl Traffic {
    /// The protocol of this name.
    pub(crate) fn of(&self, name: &str, names: &Names) -> Arc<Protocol> {
        let mut list = self.list();
        if let Some(known) = list.iter().find(|known| *known.name == *name) {
            return known.clone();
        }
        let name = names.share(name);
        if list.len() < MAX_COUNTED_PROTOCOLS {
            let new = Protocol::new(name);
            // Few more follow, and each connection has this list.
            list.reserve_exact(1);
            list.push(new.clone());
            return new;
        }
        if list.len() == MAX_COUNTED_PROTOCOLS {
            list.push(Protocol::new(Arc::from(OTHER_PROTOCOLS)));
        }
        let counted = list.last().cloned().map_or(Counted::Nowhere, Counted::With);
        Arc::new(Protocol { name, counted })
    }

    pub(crate) fn snapshot(&self) -> Vec<ProtocolTraffic> {
        let read = |one: &Arc<Protocol>| {
            let load = |of: fn(&Counters) -> &AtomicU64| {
                one.counters().map_or(0, |counters| of(counters).load(Ordering::Relaxed))
            };
            ProtocolTraffic {
                protocol: one.name.clone(),
                sent_bytes: load(|counters| &counters.sent),
                received_bytes: load(|counters| &counters.received),
            }
        };
        self.list().iter().map(read).collect()
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Protocol>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_connections_keep_their_names_and_stay_bounded() {
        let one = |number: usize| ProtocolTraffic {
            protocol: format!("/a/{number}").into(),
            sent_bytes: 1,
            received_bytes: 2,
        };
        let mut totals = TrafficTotals::default();
        for _ in 0..3 {
            totals.add(&(0..MAX_COUNTED_PROTOCOLS + 10).map(one).collect::<Vec<_>>());
        }
        let list = totals.list();
        assert_eq!(list.len(), MAX_COUNTED_PROTOCOLS + 1);
        let sum = |of: fn(&ProtocolTraffic) -> u64| list.iter().map(of).sum::<u64>();
        let all = 3 * (MAX_COUNTED_PROTOCOLS as u64 + 10);
        assert_eq!((sum(|one| one.sent_bytes), sum(|one| one.received_bytes)), (all, 2 * all));
        assert!(list.iter().any(|one| *one.protocol == *OTHER_PROTOCOLS && one.sent_bytes == 30));
    }

    #[test]
    fn the_connections_of_an_endpoint_share_their_names() {
        let (one, other, names) = (Traffic::default(), Traffic::default(), Names::default());
        let (here, there) = (one.of("/a/1", &names), other.of("/a/1", &names));
        assert!(Arc::ptr_eq(&here.name, &there.name) && !Arc::ptr_eq(&here, &there));
    }

    #[test]
    fn names_beyond_the_limit_are_counted_together() {
        let (traffic, names) = (Traffic::default(), Names::default());
        for number in 0..MAX_COUNTED_PROTOCOLS + 10 {
            let name = format!("/a/{number}");
            let known = traffic.of(&name, &names);
            assert_eq!(*known.name, *name);
            known.sent(1);
            traffic.of(&name, &names).received(2);
        }
        let counted = traffic.snapshot();
        assert_eq!(counted.len(), MAX_COUNTED_PROTOCOLS + 1);
        let other = counted.last().unwrap();
        assert_eq!((&*other.protocol, other.sent_bytes, other.received_bytes), (OTHER_PROTOCOLS, 10, 20));
        assert!(
            counted[..MAX_COUNTED_PROTOCOLS].iter().all(|one| one.sent_bytes == 1 && one.received_bytes == 2)
        );
    }
}
