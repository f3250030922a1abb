//! The caller's own sockets and clock: two endpoints talk over a network of queues that loses packets, in virtual time.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use peerage_identity::NodeKey;
use peerage_machine::Random;
use peerage_transport::{
    CloseCause, Congestion, Endpoint, EndpointConfig, RecvStream, SendStream, TransportSettings,
};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};

use crate::support::*;

/// Where packets wait for their receivers.
#[derive(Debug)]
struct Network {
    inboxes: Mutex<HashMap<SocketAddr, Inbox>>,
    fate: Mutex<Fate>,
}

/// What becomes of packets.
#[derive(Debug)]
struct Fate {
    random: Random,
    loss: f64,
    sent: u64,
    lost: u64,
}

#[derive(Debug, Default)]
struct Inbox {
    packets: VecDeque<(SocketAddr, Vec<u8>)>,
    reader: Option<Waker>,
}

/// From one side to the other.
pub(crate) const DELAY: Duration = Duration::from_millis(50);

/// Lets so much time pass on the paused clock.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

impl Network {
    fn seeded(seed: u64) -> Self {
        let fate = Fate { random: Random::from_number(seed), loss: 0.05, sent: 0, lost: 0 };
        Self { inboxes: Mutex::default(), fate: Mutex::new(fate) }
    }

    /// Nothing arrives any more.
    fn cut(&self) {
        self.fate.lock().unwrap().loss = 1.0;
    }

    /// Everything arrives.
    fn mend(&self) {
        self.fate.lock().unwrap().loss = 0.0;
    }

    /// Packets sent, and those of them that were lost.
    fn counts(&self) -> (u64, u64) {
        let fate = self.fate.lock().unwrap();
        (fate.sent, fate.lost)
    }

    fn socket(self: &Arc<Self>, address: &str) -> Arc<dyn AsyncUdpSocket> {
        let address = address.parse().unwrap();
        self.inboxes.lock().unwrap().insert(address, Inbox::default());
        Arc::new(Socket { network: self.clone(), address })
    }

    /// Loses one packet in twenty, and delivers the others after the delay.
    fn send(self: &Arc<Self>, from: SocketAddr, to: SocketAddr, packet: Vec<u8>) {
        {
            let mut fate = self.fate.lock().unwrap();
            let loss = fate.loss;
            fate.sent += 1;
            if fate.random.chance(loss) {
                fate.lost += 1;
                return;
            }
        }
        let network = self.clone();
        tokio::spawn(async move {
            pass(DELAY).await;
            if let Some(inbox) = network.inboxes.lock().unwrap().get_mut(&to) {
                inbox.packets.push_back((from, packet));
                inbox.reader.take().into_iter().for_each(Waker::wake);
            }
        });
    }
}

#[derive(Debug)]
struct Socket {
    network: Arc<Network>,
    address: SocketAddr,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.network.send(self.address, transmit.destination, transmit.contents.to_vec());
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inboxes = self.network.inboxes.lock().unwrap();
        let inbox = inboxes.get_mut(&self.address).unwrap();
        let Some((from, packet)) = inbox.packets.pop_front() else {
            inbox.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        buffers[0][..packet.len()].copy_from_slice(&packet);
        meta[0] =
            RecvMeta { addr: from, len: packet.len(), stride: packet.len(), ecn: None, ..Default::default() };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The caller's own runtime: quinn asks it for the time, timers and tasks.
#[derive(Debug, Default)]
struct VirtualRuntime {
    timers: AtomicU64,
    tasks: AtomicU64,
}

impl Runtime for VirtualRuntime {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        self.timers.fetch_add(1, Ordering::Relaxed);
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.tasks.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(future);
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "there are no real sockets here"))
    }

    fn now(&self) -> std::time::Instant {
        tokio::time::Instant::now().into_std()
    }
}

fn virtual_config(seed: u8, runtime: &Arc<VirtualRuntime>) -> EndpointConfig {
    let mut config = EndpointConfig::new(NodeKey::from_seed([seed; 32]));
    config.runtime = Some(runtime.clone());
    // The date on the paused clock: 2030 began when the test did.
    let start = tokio::time::Instant::now();
    config.time = Some(Arc::new(move || Duration::from_secs(1_893_456_000) + start.elapsed()));
    config
}

async fn send_all(mut send: SendStream, data: Bytes) {
    send.write_chunk(data).await.unwrap();
    send.finish().unwrap();
    assert_eq!(send.stopped().await.unwrap(), None);
}

async fn receive_all(mut recv: RecvStream, data: Bytes) {
    let mut received = Vec::new();
    while let Some(chunk) = recv.read_chunk(usize::MAX).await.unwrap() {
        received.extend_from_slice(&chunk);
    }
    assert!(received == data, "what arrived is what was sent");
}

#[tokio::test(start_paused = true)]
async fn two_endpoints_talk_over_a_lossy_network_in_virtual_time() {
    let (network, runtime) = (Arc::new(Network::seeded(11)), Arc::new(VirtualRuntime::default()));
    let endpoint = async |seed, address| {
        Endpoint::over(virtual_config(seed, &runtime), vec![network.socket(address)]).await.unwrap()
    };
    let (listener, dialler) = (endpoint(1, "10.0.0.1:4001").await, endpoint(2, "10.0.0.2:4001").await);
    let really_started = std::time::Instant::now();
    let pair = connect(dialler, listener).await;
    assert_eq!(pair.inn.remote_address(), "10.0.0.2:4001".parse().unwrap());
    pair.inn.admit();
    pair.out.admit();

    let virtually_started = tokio::time::Instant::now();
    let data = |salt: u32| -> Bytes {
        (0..1_000_000u32).map(|i| ((i ^ salt).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    };
    let (there, back) = (data(0), data(77));
    let near = pair.out.open("/bulk/1").await.unwrap();
    let inbound = pair.inn.accept_stream().await.unwrap();
    let (_, far) = inbound.negotiate(|_| true, PATIENCE).await.unwrap();
    let ((near_send, near_recv), (far_send, far_recv)) = (near.split(), far.split());
    let both_ways = async {
        tokio::join!(
            send_all(near_send, there.clone()),
            send_all(far_send, back.clone()),
            receive_all(far_recv, there.clone()),
            receive_all(near_recv, back.clone()),
        )
    };
    tokio::time::timeout(Duration::from_secs(600), both_ways).await.expect("ten virtual minutes are enough");
    for connection in [&pair.out, &pair.inn] {
        assert!(connection.stats().lost_packets > 0, "the network lost packets");
        assert!(connection.rtt() >= 2 * DELAY);
    }
    let (sent, lost) = network.counts();
    assert!((0.03..0.07).contains(&(lost as f64 / sent as f64)), "{lost} of {sent} packets lost");
    let (virtually, really) = (virtually_started.elapsed(), really_started.elapsed());
    assert!(virtually > 10 * DELAY, "time passed in the network: {virtually:?}");
    assert!(really < PATIENCE, "and not in the world: {really:?}");
    assert!(runtime.tasks.load(Ordering::Relaxed) >= 4 && runtime.timers.load(Ordering::Relaxed) > 0);
}

#[tokio::test(start_paused = true)]
async fn keep_alive_holds_a_quiet_connection() {
    let quiet = |settings: &mut TransportSettings| {
        settings.idle_timeout = Duration::from_millis(400);
        settings.keep_alive = Duration::from_millis(100);
    };
    let pair = virtual_pair(quiet, quiet).await;
    let early = tokio::time::timeout(Duration::from_secs(60), pair.out.closed()).await;
    assert!(early.is_err(), "closed: {early:?}");
}

/// How long two that have been idle for five minutes take to find out, both of them, that the path is cut.
async fn silence_lasts(idle_timeouts: [u64; 2]) -> Duration {
    let (network, runtime) = (Arc::new(Network::seeded(12)), Arc::new(VirtualRuntime::default()));
    let endpoint = async |number: u8, idle: u64| {
        let mut config = virtual_config(number, &runtime);
        config.settings.set_idle_timeout(Duration::from_secs(idle));
        Endpoint::over(config, vec![network.socket(&format!("10.0.0.{number}:4001"))]).await.unwrap()
    };
    let (dialler, listener) = (endpoint(1, idle_timeouts[0]).await, endpoint(2, idle_timeouts[1]).await);
    let pair = connect(dialler, listener).await;
    // Keep-alive holds an idle connection for as long as one likes.
    pass(Duration::from_secs(300)).await;
    assert!(pair.out.close_cause().is_none() && pair.inn.close_cause().is_none());
    network.cut();
    let cut = tokio::time::Instant::now();
    assert!(matches!(pair.out.closed().await, CloseCause::TimedOut { .. }));
    assert!(matches!(pair.inn.closed().await, CloseCause::TimedOut { .. }));
    cut.elapsed()
}

/// a peer that is silently gone is found out within the idle timeout.
#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_is_lost_after_the_idle_timeout_of_virtual_time() {
    let default = TransportSettings::default().idle_timeout.as_secs();
    let lasts = silence_lasts([default; 2]).await;
    assert!((25..=36).contains(&lasts.as_secs()), "{lasts:?}");
}

/// The dialler's five seconds hold for the listener too, whose keep-alives come often enough for them; and the other way round. They run anew from the
/// one keep-alive that is sent into the silence, after four seconds at most.
#[tokio::test(start_paused = true)]
async fn the_smaller_idle_timeout_of_two_sides_holds_for_both() {
    for timeouts in [[30, 5], [5, 30]] {
        let lasts = silence_lasts(timeouts).await;
        assert!((2..=9).contains(&lasts.as_secs()), "{timeouts:?}: {lasts:?}");
    }
}

/// How long a mebibyte takes on a path that loses one packet in twenty.
async fn mebibyte_with(congestion: Congestion, seed: u64) -> Duration {
    let (network, runtime) = (Arc::new(Network::seeded(seed)), Arc::new(VirtualRuntime::default()));
    let endpoint = async |seed, address| {
        let mut config = virtual_config(seed, &runtime);
        config.settings.congestion = congestion;
        Endpoint::over(config, vec![network.socket(address)]).await.unwrap()
    };
    let (listener, dialler) = (endpoint(1, "10.0.0.1:4001").await, endpoint(2, "10.0.0.2:4001").await);
    let pair = connect(dialler, listener).await;
    pair.inn.admit();
    pair.out.admit();
    let start = tokio::time::Instant::now();
    let data = Bytes::from(vec![1; 1 << 20]);
    let near = pair.out.open("/bulk/1").await.unwrap();
    let (_, far) = pair.inn.accept_stream().await.unwrap().negotiate(|_| true, PATIENCE).await.unwrap();
    let moving =
        async { tokio::join!(send_all(near.send, data.clone()), receive_all(far.recv, data.clone())) };
    tokio::time::timeout(Duration::from_secs(600), moving).await.expect("ten virtual minutes are enough");
    start.elapsed()
}

/// where packets are lost although no queue is full, bbr loses least speed and new-reno most.
#[tokio::test(start_paused = true)]
async fn each_congestion_control_is_in_force_where_it_was_asked_for() {
    let mut sums = [Duration::ZERO; 3];
    for seed in 0..8 {
        for (sum, congestion) in
            sums.iter_mut().zip([Congestion::Bbr, Congestion::Cubic, Congestion::NewReno])
        {
            *sum += mebibyte_with(congestion, seed).await;
        }
    }
    let [bbr, cubic, new_reno] = sums;
    assert!(
        bbr < cubic * 3 / 4 && cubic < new_reno * 19 / 20,
        "bbr {bbr:?}, cubic {cubic:?}, new-reno {new_reno:?}"
    );
}

/// Eight mebibytes, one after the other: how long they take, and the largest congestion window meanwhile.
async fn eight_mebibytes_over(pair: &Pair) -> (Duration, u64) {
    let (start, mut widest) = (tokio::time::Instant::now(), 0);
    for _ in 0..8 {
        let data = Bytes::from(vec![1; 1 << 20]);
        let near = pair.out.open("/bulk/1").await.unwrap();
        let (_, far) = pair.inn.accept_stream().await.unwrap().negotiate(|_| true, PATIENCE).await.unwrap();
        tokio::join!(send_all(near.send, data.clone()), receive_all(far.recv, data));
        widest = widest.max(pair.out.stats().congestion_window);
    }
    (start.elapsed(), widest)
}

const URGENT_WINDOW: u64 = 128 * 1024;

/// A connection on a path without loss that takes 100 ms there and back, between nodes at these addresses.
async fn pair_between(addresses: [&str; 2]) -> Pair {
    let urgent = |settings: &mut TransportSettings| settings.urgent_window_bytes = URGENT_WINDOW;
    virtual_pair_between(addresses, urgent, urgent).await
}

/// The same with changed settings on either side.
pub(crate) async fn virtual_pair(
    change_dialler: impl FnOnce(&mut TransportSettings),
    change_listener: impl FnOnce(&mut TransportSettings),
) -> Pair {
    virtual_pair_between(["10.0.0.1:4001", "10.0.0.2:4001"], change_dialler, change_listener).await
}

async fn virtual_pair_between(
    [listener, dialler]: [&str; 2],
    change_dialler: impl FnOnce(&mut TransportSettings),
    change_listener: impl FnOnce(&mut TransportSettings),
) -> Pair {
    let (network, runtime) = (Arc::new(Network::seeded(3)), Arc::new(VirtualRuntime::default()));
    network.mend();
    let (mut of_listener, mut of_dialler) = (virtual_config(1, &runtime), virtual_config(2, &runtime));
    change_listener(&mut of_listener.settings);
    change_dialler(&mut of_dialler.settings);
    let listener = Endpoint::over(of_listener, vec![network.socket(listener)]).await.unwrap();
    let dialler = Endpoint::over(of_dialler, vec![network.socket(dialler)]).await.unwrap();
    let pair = connect(dialler, listener).await;
    pair.inn.admit();
    pair.out.admit();
    pair
}

/// The same eight mebibytes while a word is sent on another stream every 300 ms.
async fn eight_mebibytes_beside_words(pair: &Pair, priority: i32) -> (Duration, u64) {
    let mut urgent = pair.out.open("/urgent/1").await.unwrap();
    let (_, far) = pair.inn.accept_stream().await.unwrap().negotiate(|_| true, PATIENCE).await.unwrap();
    urgent.send.set_priority(priority);
    let words = async {
        loop {
            urgent.send.write_all(b"now").await.unwrap();
            pass(Duration::from_millis(300)).await;
        }
    };
    let came = tokio::select! {
        came = eight_mebibytes_over(pair) => came,
        () = words => unreachable!("it goes on for ever"),
    };
    drop(far);
    came
}

/// A path within the machine has no length to fill; one that leaves it is given what congestion control allows, and so is what nobody is in a hurry beside.
#[tokio::test(start_paused = true)]
async fn beside_an_urgent_stream_less_is_on_the_way_within_the_machine_and_elsewhere_the_path_is_filled() {
    let within = pair_between(["127.0.0.1:4001", "127.0.0.1:4002"]).await;
    let (beside, widest) = eight_mebibytes_beside_words(&within, 1).await;
    assert_eq!(widest, URGENT_WINDOW);
    // Sixty-four times the bound, and no more than the bound in each round trip.
    assert!(beside >= 64 * 2 * DELAY, "{beside:?}");
    let (ordinary, widest) = eight_mebibytes_beside_words(&within, 0).await;
    assert!(widest > 4 * URGENT_WINDOW, "{widest}");
    assert!(ordinary < beside * 2 / 3, "{ordinary:?} and {beside:?}");
    let elsewhere = pair_between(["10.0.0.1:4001", "10.0.0.2:4001"]).await;
    let (elsewhere, widest) = eight_mebibytes_beside_words(&elsewhere, 1).await;
    assert!(widest > 4 * URGENT_WINDOW, "{widest}");
    assert!(elsewhere < beside * 2 / 3, "{elsewhere:?} and {beside:?}");
}
