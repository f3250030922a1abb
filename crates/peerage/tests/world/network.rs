//! The world: machines with addresses, and a network of queues between them.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use peerage::quinn::udp::{RecvMeta, Transmit};
use peerage::quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use peerage::{
    CertificateKind, Environment, Node, NodeBuilder, Resolve, SystemResolver, TransportSettings, UdpSocket,
};
use peerage_machine::Random;
use tokio::time::Instant;

use crate::clock::pass;

/// How long a packet is under way.
pub(crate) const DELAY: Duration = Duration::from_millis(10);
/// 2030 begins when the world does.
const START: Duration = Duration::from_secs(1_893_456_000);

/// All machines, and what is under way between them.
#[derive(Debug)]
pub(crate) struct World {
    start: Instant,
    sockets: Mutex<BTreeMap<u64, Open>>,
    next: AtomicU64,
    log: Mutex<Vec<Packet>>,
}

/// When, from where, to where and how long, in bytes.
pub(crate) type Packet = (Duration, SocketAddr, SocketAddr, usize);

#[derive(Debug)]
struct Open {
    machine: Arc<Machine>,
    local: SocketAddr,
    inbox: VecDeque<(RecvMeta, Vec<u8>)>,
    reader: Option<Waker>,
}

/// One node's machine: the [`Environment`] that it sees.
#[derive(Debug)]
pub(crate) struct Machine {
    this: Weak<Machine>,
    world: Arc<World>,
    random: Mutex<Random>,
    /// What it sends from and receives at.
    addresses: Mutex<Vec<IpAddr>>,
    /// What its list of interfaces says.
    shown: Mutex<Vec<IpAddr>>,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            sockets: Mutex::default(),
            next: AtomicU64::new(50_000),
            log: Mutex::default(),
        })
    }

    /// A machine with these addresses, whose randomness follows from `seed`.
    pub(crate) fn machine(self: &Arc<Self>, seed: u64, addresses: &[&str]) -> Arc<Machine> {
        let addresses = parsed(addresses);
        Arc::new_cyclic(|this| Machine {
            this: this.clone(),
            world: self.clone(),
            random: Mutex::new(Random::from_number(seed)),
            shown: Mutex::new(addresses.clone()),
            addresses: Mutex::new(addresses),
        })
    }

    /// Every packet that was sent so far.
    pub(crate) fn packets(&self) -> Vec<Packet> {
        self.log.lock().unwrap().clone()
    }

    fn deliver(&self, from: SocketAddr, to: SocketAddr, data: Vec<u8>) {
        let mut sockets = self.sockets.lock().unwrap();
        // A socket on the address itself comes before one on all of them.
        let mut found: Vec<_> = sockets.values_mut().filter(|open| open.takes(to)).collect();
        found.sort_by_key(|open| open.local.ip().is_unspecified());
        let Some(open) = found.into_iter().next() else { return };
        let mut meta = RecvMeta { addr: from, len: data.len(), stride: data.len(), ..Default::default() };
        meta.dst_ip = Some(to.ip());
        open.inbox.push_back((meta, data));
        open.reader.take().into_iter().for_each(Waker::wake);
    }
}

impl Open {
    fn takes(&self, to: SocketAddr) -> bool {
        let same_family = self.local.is_ipv4() == to.is_ipv4();
        let bound = self.local.ip() == to.ip() || (self.local.ip().is_unspecified() && same_family);
        bound && self.local.port() == to.port() && self.machine.has(to.ip())
    }
}

impl Machine {
    /// From now on the machine has these addresses and no others.
    pub(crate) fn set_addresses(&self, addresses: &[&str]) {
        *self.addresses.lock().unwrap() = parsed(addresses);
        self.show(addresses);
    }

    /// From now on the list of interfaces has these addresses. What left the list still works, as in the seconds between two networks.
    pub(crate) fn show(&self, addresses: &[&str]) {
        *self.shown.lock().unwrap() = parsed(addresses);
        let mut all = self.addresses.lock().unwrap();
        let new: Vec<_> = parsed(addresses).into_iter().filter(|ip| !all.contains(ip)).collect();
        all.extend(new);
    }

    /// A node on this machine.
    pub(crate) fn node(self: &Arc<Self>) -> NodeBuilder {
        let settings =
            TransportSettings { certificate: CertificateKind::Ed25519, ..TransportSettings::default() };
        Node::builder().network("world").transport_settings(settings).environment(self.clone())
    }

    /// A socket on this machine.
    pub(crate) fn socket(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        if !address.ip().is_unspecified() && !self.has(address.ip()) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let this = self.this.upgrade().unwrap();
        let number = self.world.next.fetch_add(1, Ordering::Relaxed);
        let mut local = address;
        if local.port() == 0 {
            local.set_port(number as u16);
        }
        let mut sockets = self.world.sockets.lock().unwrap();
        if sockets.values().any(|open| Arc::ptr_eq(&open.machine, &this) && open.local == local) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let open = Open { machine: this.clone(), local, inbox: VecDeque::new(), reader: None };
        sockets.insert(number, open);
        Ok(Arc::new(Socket { machine: this, local, number }))
    }

    fn has(&self, ip: IpAddr) -> bool {
        self.addresses.lock().unwrap().contains(&ip)
    }

    /// The address from which a packet leaves that asks for none.
    fn source(&self, to: SocketAddr) -> Option<IpAddr> {
        self.addresses.lock().unwrap().iter().copied().find(|ip| ip.is_ipv4() == to.is_ipv4())
    }
}

impl Environment for Machine {
    fn bind(&self, address: SocketAddr, _: usize) -> io::Result<UdpSocket> {
        self.socket(address).map(UdpSocket::from)
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(TokioRuntime)
    }

    fn interfaces(&self) -> io::Result<Vec<IpAddr>> {
        Ok(self.shown.lock().unwrap().clone())
    }

    fn resolver(&self) -> Arc<dyn Resolve> {
        // A test that dials names gives its node a resolver.
        Arc::new(SystemResolver)
    }

    fn unix_now(&self) -> Duration {
        START + self.world.start.elapsed()
    }

    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.random.lock().unwrap().fill(bytes);
        Ok(())
    }
}

#[derive(Debug)]
struct Socket {
    machine: Arc<Machine>,
    local: SocketAddr,
    number: u64,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    /// Sends from the address that is asked for, or the socket's, or the machine's first one; from one that the machine has no more, nothing leaves.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let (world, to) = (self.machine.world.clone(), transmit.destination);
        let own = (!self.local.ip().is_unspecified()).then(|| self.local.ip());
        let source = own.or(transmit.src_ip).or_else(|| self.machine.source(to));
        let Some(source) = source.filter(|ip| self.machine.has(*ip)) else { return Ok(()) };
        let from = SocketAddr::new(source, self.local.port());
        let data = transmit.contents.to_vec();
        world.log.lock().unwrap().push((world.start.elapsed(), from, to, data.len()));
        tokio::spawn(async move {
            pass(DELAY).await;
            world.deliver(from, to, data);
        });
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut sockets = self.machine.world.sockets.lock().unwrap();
        let open = sockets.get_mut(&self.number).unwrap();
        let Some((about, data)) = open.inbox.pop_front() else {
            open.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        buffers[0][..data.len()].copy_from_slice(&data);
        meta[0] = about;
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.machine.world.sockets.lock().unwrap().remove(&self.number);
    }
}

#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn parsed(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}
