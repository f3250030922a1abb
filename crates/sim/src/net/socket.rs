//! A UDP socket of a simulated host, as quinn takes it.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use peerage::quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use peerage::quinn::{AsyncUdpSocket, UdpPoller};

use super::{HostId, SimNet};

/// A bound socket. Dropping it frees its port.
pub(crate) struct SimSocket {
    net: SimNet,
    host: HostId,
    address: SocketAddr,
    /// Tells it from one that was bound to the same address before the host's crash.
    generation: u64,
}

/// What a socket has got and nobody has read yet.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) generation: u64,
    packets: VecDeque<Arrived>,
    bytes: usize,
    limit: usize,
    reader: Option<Waker>,
}

/// A packet at its goal.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) from: SocketAddr,
    pub(crate) at_ip: IpAddr,
    pub(crate) ecn: Option<EcnCodepoint>,
    pub(crate) payload: Vec<u8>,
}

impl Inbox {
    pub(crate) fn new(generation: u64, limit: usize) -> Self {
        Self { generation, packets: VecDeque::new(), bytes: 0, limit, reader: None }
    }

    /// Takes a packet in, unless the buffer is full.
    pub(crate) fn push(&mut self, packet: Arrived) -> bool {
        if self.bytes + packet.payload.len() > self.limit {
            return false;
        }
        self.bytes += packet.payload.len();
        self.packets.push_back(packet);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        true
    }
}

impl SimSocket {
    pub(crate) fn new(net: SimNet, host: HostId, address: SocketAddr, generation: u64) -> Self {
        Self { net, host, address, generation }
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.net.unbind(self.host, self.address, self.generation);
    }
}

impl AsyncUdpSocket for SimSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let mut from = self.address;
        if let (true, Some(ip)) = (from.ip().is_unspecified(), transmit.src_ip) {
            from.set_ip(ip);
        }
        for payload in transmit.contents.chunks(segment) {
            self.net.send(self.host, self.generation, from, transmit.destination, payload, transmit.ecn);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.net.with_inbox(self.host, self.address, self.generation, |inbox| {
            // The host is down: nothing comes any more.
            let Some(inbox) = inbox else { return Poll::Pending };
            let mut count = 0;
            for (buffer, meta) in buffers.iter_mut().zip(meta) {
                let Some(packet) = inbox.packets.pop_front() else { break };
                inbox.bytes -= packet.payload.len();
                // What doesn't fit is cut off, as the system's sockets do.
                let length = packet.payload.len().min(buffer.len());
                buffer[..length].copy_from_slice(&packet.payload[..length]);
                let Arrived { from, at_ip, ecn, .. } = packet;
                *meta = RecvMeta { addr: from, len: length, stride: length, ecn, dst_ip: Some(at_ip) };
                count += 1;
            }
            if count == 0 {
                inbox.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Ok(count))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn max_transmit_segments(&self) -> usize {
        SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimSocket({} of {:?})", self.address, self.host)
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Packets that one call may send, as with the kernel's segmentation offload.
const SEGMENTS: usize = 10;
