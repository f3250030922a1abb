//! The caller's own sockets and clock: two endpoints talk over a network of queues that loses packets, in virtual time.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use peerage_transport::Endpoint;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use crate::support::*;

/// Where packets wait for their receivers.
#[derive(Debug, Default)]
struct Network {
    inboxes: Mutex<HashMap<SocketAddr, Inbox>>,
    sent: Mutex<u64>,
}

#[derive(Debug, Default)]
struct Inbox {
    packets: VecDeque<(SocketAddr, Vec<u8>)>,
    reader: Option<Waker>,
}

const DELAY: Duration = Duration::from_millis(50);

impl Network {
    fn socket(self: &Arc<Self>, address: &str) -> Arc<dyn AsyncUdpSocket> {
        let address = address.parse().unwrap();
        self.inboxes.lock().unwrap().insert(address, Inbox::default());
        Arc::new(Socket { network: self.clone(), address })
    }

    /// Loses every twentieth packet, and delivers the others after the delay.
    fn send(self: &Arc<Self>, from: SocketAddr, to: SocketAddr, packet: Vec<u8>) {
        let mut sent = self.sent.lock().unwrap();
        *sent += 1;
        if *sent % 20 == 7 {
            return;
        }
        let network = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(DELAY).await;
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

#[tokio::test(start_paused = true)]
async fn two_endpoints_talk_over_a_lossy_network_in_virtual_time() {
    let network = Arc::new(Network::default());
    let listener = Endpoint::over(config(), vec![network.socket("10.0.0.1:4001")]).await.unwrap();
    let dialler = Endpoint::over(config(), vec![network.socket("10.0.0.2:4001")]).await.unwrap();
    let pair = connect(dialler, listener).await;
    assert_eq!(pair.inn.remote_address(), "10.0.0.2:4001".parse().unwrap());
    pair.inn.admit();

    let virtually_started = tokio::time::Instant::now();
    let data: Bytes = (0..1_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut stream = pair.out.open("/bulk/1").await.unwrap();
    let send = async {
        stream.send.write_chunk(data.clone()).await.unwrap();
        stream.send.finish().unwrap();
        assert_eq!(stream.send.stopped().await.unwrap(), None);
    };
    let receive = async {
        let inbound = pair.inn.accept_stream().await.unwrap();
        let (_, mut far) = inbound.negotiate(|_| true, PATIENCE).await.unwrap();
        let mut received = Vec::new();
        while let Some(chunk) = far.recv.read_chunk(usize::MAX).await.unwrap() {
            received.extend_from_slice(&chunk);
        }
        assert!(received == data, "what arrived is what was sent");
    };
    soon(async { tokio::join!(send, receive) }).await;
    assert!(pair.out.stats().lost_packets > 0, "the network lost packets");
    assert!(pair.out.rtt() >= 2 * DELAY);
    let took = virtually_started.elapsed();
    assert!(took > 10 * DELAY, "time passed in the network: {took:?}");
}
