//! The network: hosts with addresses, sockets on them, and the paths between.
//!
//! A packet is sent at once into the path's queue, where its fate is drawn, and waits with its time of arrival. One task delivers what is due. Whatever could go
//! one way or another is decided by the seed: each direction between two hosts has a generator of its own, so that the traffic of one doesn't change the luck of
//! another.

mod link;
mod nat;
mod socket;
mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerage::quinn::AsyncUdpSocket;
use peerage::quinn::udp::EcnCodepoint;
use peerage_machine::Random;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use link::{Bandwidth, Latency, Link};
pub use nat::{Nat, NatKind};
pub use trace::{Counters, DialSeen, Fate, Packet, peak_dials};

use link::{Passage, Pipe};
use nat::NatBox;
use socket::{Arrived, Inbox, SimSocket};
use trace::Trace;

/// One simulated machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub(crate) usize);

/// One NAT box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NatId(usize);

/// A network in memory. Clones are handles to the same one.
///
/// It must be made and used inside a current-thread tokio runtime whose clock is paused; [`crate::simulate`] makes one.
#[derive(Clone)]
pub struct SimNet {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    /// Told when a packet is due before the one that is waited for.
    earlier: Notify,
    start: Instant,
}

#[derive(Debug)]
struct State {
    random: Random,
    seed: u64,
    hosts: Vec<Host>,
    nats: Vec<NatBox>,
    /// Who has an address, within a realm: the Internet, or what lies behind one NAT box.
    addresses: BTreeMap<(Option<NatId>, IpAddr), Owner>,
    default_link: Link,
    links: BTreeMap<(HostId, HostId), Link>,
    pipes: BTreeMap<(HostId, Option<HostId>), Pipe>,
    groups: BTreeMap<HostId, usize>,
    blocked: BTreeSet<(HostId, HostId)>,
    flying: BTreeMap<(Duration, u64), Flight>,
    flights: u64,
    generations: u64,
    trace: Trace,
}

#[derive(Debug)]
struct Host {
    realm: Option<NatId>,
    ips: Vec<IpAddr>,
    sockets: BTreeMap<SocketAddr, Inbox>,
}

#[derive(Debug, Clone, Copy)]
enum Owner {
    Host(HostId),
    Nat(NatId),
}

/// A packet under way. `from` is what the receiver will see.
#[derive(Debug)]
struct Flight {
    sender: HostId,
    realm: Option<NatId>,
    from: SocketAddr,
    to: SocketAddr,
    ecn: Option<EcnCodepoint>,
    payload: Vec<u8>,
}

impl SimNet {
    /// An empty network, whose time begins now.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: Random::from_number(seed),
            seed,
            hosts: Vec::new(),
            nats: Vec::new(),
            addresses: BTreeMap::new(),
            default_link: Link::default(),
            links: BTreeMap::new(),
            pipes: BTreeMap::new(),
            groups: BTreeMap::new(),
            blocked: BTreeSet::new(),
            flying: BTreeMap::new(),
            flights: 0,
            generations: 0,
            trace: Trace::new(seed),
        };
        let inner =
            Arc::new(Inner { state: Mutex::new(state), earlier: Notify::new(), start: Instant::now() });
        tokio::spawn(deliver(inner.clone()));
        Self { inner }
    }

    /// Adds a host on the Internet, with a global address in a subnet of its own.
    pub fn host(&self) -> HostId {
        let mut state = self.state();
        let ip = global_address(state.hosts.len() + state.nats.len());
        state.add_host(None, vec![ip])
    }

    /// Adds a host on the Internet with these addresses. The first of each family is what packets leave from.
    ///
    /// # Panics
    /// When there is no address, or one is taken.
    pub fn host_at(&self, ips: &[IpAddr]) -> HostId {
        self.state().add_host(None, ips.to_vec())
    }

    /// Adds a NAT box with a global address of its own.
    pub fn nat(&self, nat: Nat) -> NatId {
        let mut state = self.state();
        let ip = global_address(state.hosts.len() + state.nats.len());
        let (id, random) = (NatId(state.nats.len()), state.random.fork());
        state.nats.push(NatBox::new(nat, ip, random));
        state.addresses.insert((None, ip), Owner::Nat(id));
        id
    }

    /// Adds a host behind a NAT box, with a private address. Hosts behind the same box reach each other directly.
    pub fn host_behind(&self, nat: NatId) -> HostId {
        let mut state = self.state();
        let neighbours = state.hosts.iter().filter(|host| host.realm == Some(nat)).count();
        let [high, low] = (neighbours as u16 + 2).to_be_bytes();
        state.add_host(Some(nat), vec![IpAddr::V4(Ipv4Addr::new(192, 168, high, low))])
    }

    /// The host's first address.
    pub fn ip(&self, host: HostId) -> IpAddr {
        self.state().hosts[host.0].ips[0]
    }

    /// All addresses of the host.
    pub fn ips(&self, host: HostId) -> Vec<IpAddr> {
        self.state().hosts[host.0].ips.clone()
    }

    /// Binds a UDP socket on a host. Port 0 becomes a free one; a wildcard stands for all addresses of its family.
    ///
    /// # Errors
    /// As the system's: `AddrNotAvailable`, `AddrInUse`.
    pub fn bind(&self, host: HostId, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let mut state = self.state();
        state.generations += 1;
        let generation = state.generations;
        let place = &mut state.hosts[host.0];
        if !place.has(address.ip()) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let address = match address.port() {
            0 => SocketAddr::new(address.ip(), place.free_port().ok_or(io::ErrorKind::AddrInUse)?),
            _ => address,
        };
        if place.sockets.keys().any(|other| collide(*other, address)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        place.sockets.insert(address, Inbox::new(generation, RECEIVE_BUFFER));
        drop(state);
        Ok(Arc::new(SimSocket::new(self.clone(), host, address, generation)))
    }

    /// What holds between hosts that no other link joins.
    pub fn default_link(&self, link: Link) {
        self.state().default_link = link;
    }

    /// Joins two hosts by a link of their own, both ways.
    pub fn link(&self, a: HostId, b: HostId, link: Link) {
        self.one_way_link(a, b, link);
        self.one_way_link(b, a, link);
    }

    /// As [`SimNet::link`], one way only.
    pub fn one_way_link(&self, from: HostId, to: HostId, link: Link) {
        self.state().links.insert((from, to), link);
    }

    /// Stops every packet between hosts of different groups, also those on their way. Hosts that are in no group form one more.
    pub fn partition(&self, groups: &[&[HostId]]) {
        let numbered = groups.iter().enumerate();
        self.state().groups =
            numbered.flat_map(|(number, group)| group.iter().map(move |host| (*host, number))).collect();
    }

    /// Stops every packet from one host to another; the other direction goes on.
    pub fn block(&self, from: HostId, to: HostId) {
        self.state().blocked.insert((from, to));
    }

    /// Ends the partition and all blocks.
    pub fn heal(&self) {
        let mut state = self.state();
        state.groups.clear();
        state.blocked.clear();
    }

    /// Pulls a host's plug: its sockets are dead from now on, sending and receiving nothing, whoever still holds them.
    pub fn unplug(&self, host: HostId) {
        self.state().hosts[host.0].sockets.clear();
    }

    /// Shows every packet that is sent to `tap`, which must not use the network itself.
    pub fn tap(&self, tap: impl FnMut(&Packet<'_>) + Send + 'static) {
        self.state().trace.tap(Box::new(tap));
    }

    /// Writes every packet and event down from now on, a line each, for a comparison of two runs.
    pub fn write_trace(&self, to: impl io::Write + Send + 'static) {
        self.state().trace.write_to(Box::new(to));
    }

    /// Adds what a node told to the hash.
    pub fn note(&self, host: HostId, what: &str) {
        let now = self.now();
        self.state().trace.event(now, host, what);
    }

    /// What became of packets so far.
    pub fn counters(&self) -> Counters {
        self.state().trace.counters
    }

    /// Every dial so far, in order. Told by the first packets of Peerage nodes.
    pub fn dials(&self) -> Vec<DialSeen> {
        self.state().trace.dials.clone()
    }

    /// The hash over all packets (time, from, to, length, fate) and what nodes told, so far, in hexadecimal.
    pub fn hash(&self) -> String {
        self.state().trace.hash()
    }

    /// The time since the network began.
    pub fn now(&self) -> Duration {
        self.inner.start.elapsed()
    }

    /// Sends a packet from a socket; a socket whose host was unplugged sends nothing.
    pub(crate) fn send(
        &self,
        sender: HostId,
        generation: u64,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
        ecn: Option<EcnCodepoint>,
    ) {
        let now = self.now();
        let mut state = self.state();
        if !state.hosts[sender.0].sockets.values().any(|inbox| inbox.generation == generation) {
            return;
        }
        let next = state.flying.keys().next().copied();
        state.send(now, sender, from, to, payload, ecn);
        let earlier = state.flying.keys().next().copied() != next;
        drop(state);
        if earlier {
            self.inner.earlier.notify_one();
        }
    }

    pub(crate) fn with_inbox<T>(
        &self,
        host: HostId,
        address: SocketAddr,
        generation: u64,
        act: impl FnOnce(Option<&mut Inbox>) -> T,
    ) -> T {
        let mut state = self.state();
        let inbox = state.hosts[host.0].sockets.get_mut(&address);
        act(inbox.filter(|inbox| inbox.generation == generation))
    }

    pub(crate) fn unbind(&self, host: HostId, address: SocketAddr, generation: u64) {
        let mut state = self.state();
        let sockets = &mut state.hosts[host.0].sockets;
        if sockets.get(&address).is_some_and(|inbox| inbox.generation == generation) {
            sockets.remove(&address);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNet").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl State {
    fn add_host(&mut self, realm: Option<NatId>, ips: Vec<IpAddr>) -> HostId {
        assert!(!ips.is_empty(), "a host needs an address");
        let id = HostId(self.hosts.len());
        for ip in &ips {
            let taken = self.addresses.insert((realm, *ip), Owner::Host(id));
            assert!(taken.is_none(), "{ip} is taken");
        }
        self.hosts.push(Host { realm, ips, sockets: BTreeMap::new() });
        id
    }

    fn send(
        &mut self,
        now: Duration,
        sender: HostId,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
        ecn: Option<EcnCodepoint>,
    ) {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let home = self.hosts[sender.0].realm;
        let inside = home.filter(|_| self.addresses.contains_key(&(home, to.ip())));
        let receiver = self.receiver(inside, to);
        let route = self.source(sender, from, to).ok_or(Fate::Unreachable).and_then(|from| match home {
            Some(nat) if inside.is_none() => {
                let outside = self.nats[nat.0].outbound(now, from, to).ok_or(Fate::NatFull)?;
                Ok((from, outside))
            }
            _ => Ok((from, from)),
        });
        let passage = route.and_then(|_| self.pass(now, sender, receiver, payload.len()));
        let fate = match passage {
            Err(fate) => fate,
            Ok((_, Some(_), _)) => Fate::Duplicated,
            Ok((_, None, true)) => Fate::Reordered,
            Ok((_, None, false)) => Fate::Sent,
        };
        let shown = route.map_or(from, |(shown, _)| shown);
        let packet = Packet { at: now, from_host: sender, from: shown, to, to_host: receiver, payload, fate };
        self.trace.packet(&packet);
        if let (Ok((_, seen)), Ok((at, again, _))) = (route, passage) {
            for at in [Some(at), again].into_iter().flatten() {
                let flight = Flight { sender, realm: inside, from: seen, to, ecn, payload: payload.to_vec() };
                self.flights += 1;
                self.flying.insert((at, self.flights), flight);
            }
        }
    }

    /// When a packet arrives, whether a copy follows, and whether it was held back.
    fn pass(
        &mut self,
        now: Duration,
        sender: HostId,
        receiver: Option<HostId>,
        bytes: usize,
    ) -> Result<(Duration, Option<Duration>, bool), Fate> {
        let link = receiver.and_then(|receiver| self.links.get(&(sender, receiver)));
        let link = *link.unwrap_or(&self.default_link);
        let seed = self.seed;
        let pipe = self.pipes.entry((sender, receiver)).or_insert_with(|| {
            let (from, to) = (sender.0 as u64, receiver.map_or(u64::MAX, |host| host.0 as u64));
            Pipe::new(mixed(seed, from, to), mixed(!seed, from.min(to), from.max(to)))
        });
        let passage = pipe.pass(now, bytes, &link);
        if receiver.is_some_and(|receiver| self.is_cut(sender, receiver)) {
            return Err(Fate::Cut);
        }
        match passage {
            Passage::Arrives { at, again, reordered } => Ok((at, again, reordered)),
            Passage::Lost => Err(Fate::Lost),
            Passage::Overflow => Err(Fate::Overflow),
            Passage::TooLarge => Err(Fate::TooLarge),
        }
    }

    /// The address that a packet leaves with; `None` when the host has none of that family.
    fn source(&self, sender: HostId, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let wildcard = from.ip().is_unspecified();
        let ip = match wildcard {
            true => *self.hosts[sender.0].ips.iter().find(|ip| ip.is_ipv4() == to.is_ipv4())?,
            false => from.ip(),
        };
        (ip.is_ipv4() == to.is_ipv4()).then_some(SocketAddr::new(ip, from.port()))
    }

    /// Who would get a packet to `to`, as things stand.
    fn receiver(&self, realm: Option<NatId>, to: SocketAddr) -> Option<HostId> {
        match self.addresses.get(&(realm, to.ip()))? {
            Owner::Host(host) => Some(*host),
            Owner::Nat(nat) => {
                let inside = self.nats[nat.0].behind(to.port())?;
                self.receiver(Some(*nat), inside)
            }
        }
    }

    fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.groups.get(&from) != self.groups.get(&to) || self.blocked.contains(&(from, to))
    }

    /// Delivers what is due, and tells when the next packet is.
    fn deliver(&mut self, now: Duration) -> Option<Duration> {
        loop {
            let next = self.flying.first_entry()?;
            let (at, _) = *next.key();
            if at > now {
                return Some(at);
            }
            let flight = next.remove();
            self.arrive(now, flight);
        }
    }

    fn arrive(&mut self, now: Duration, flight: Flight) {
        let Flight { sender, realm, from, to, ecn, payload } = flight;
        let counters = &mut self.trace.counters;
        let (host, to) = match self.addresses.get(&(realm, to.ip())) {
            Some(Owner::Host(host)) => (*host, to),
            Some(Owner::Nat(nat)) => {
                let Some(inside) = self.nats[nat.0].inbound(now, from, to.port()) else {
                    counters.refused_by_nat += 1;
                    return;
                };
                match self.addresses.get(&(Some(*nat), inside.ip())) {
                    Some(Owner::Host(host)) => (*host, inside),
                    _ => return,
                }
            }
            None => {
                counters.unreachable += 1;
                return;
            }
        };
        if self.is_cut(sender, host) {
            self.trace.counters.cut += 1;
            return;
        }
        let wildcard = SocketAddr::new(unspecified(to.ip()), to.port());
        let sockets = &mut self.hosts[host.0].sockets;
        let bound = if sockets.contains_key(&to) { to } else { wildcard };
        let arrived = Arrived { from, at_ip: to.ip(), ecn, payload };
        let counter = match sockets.get_mut(&bound).map(|inbox| inbox.push(arrived)) {
            Some(true) => &mut self.trace.counters.delivered,
            Some(false) => &mut self.trace.counters.overflowed,
            None => &mut self.trace.counters.unreachable,
        };
        *counter += 1;
    }
}

impl Host {
    fn has(&self, ip: IpAddr) -> bool {
        self.ips.contains(&ip)
            || (ip.is_unspecified() && self.ips.iter().any(|own| own.is_ipv4() == ip.is_ipv4()))
    }

    fn free_port(&self) -> Option<u16> {
        (FIRST_FREE_PORT..=u16::MAX).find(|port| self.sockets.keys().all(|socket| socket.port() != *port))
    }
}

/// Delivers packets when they are due, as long as the runtime runs.
async fn deliver(net: Arc<Inner>) {
    loop {
        let next = net.state.lock().unwrap_or_else(PoisonError::into_inner).deliver(net.start.elapsed());
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(net.start + at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = net.earlier.notified() => {}
            () = due => {}
        }
    }
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && overlap
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

/// A global address in a /24 of its own, so that limits per subnet see different neighbours.
fn global_address(number: usize) -> IpAddr {
    let [_, high, middle, low] = (number as u32).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(45 + high, middle, low, 1))
}

/// One number from three, such that neighbours have nothing in common.
fn mixed(seed: u64, a: u64, b: u64) -> u64 {
    let mut random = Random::from_number(seed ^ a.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    random.number() ^ Random::from_number(b.wrapping_add(random.number())).number()
}

/// What a socket holds unread, in bytes: what Peerage asks the kernel for.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// Where ports begin that are given to sockets which ask for any.
const FIRST_FREE_PORT: u16 = 49_152;
