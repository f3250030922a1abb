//! The operating system's UDP socket for QUIC, on tokio, so that a packet costs few system calls and wakes no thread for nothing.
//!
//! quinn has a socket of its own for tokio. This one differs in three ways:
//! - quinn asks until nothing is left, so a lone packet costs two calls. After one that came alone this socket says so itself; whether another has come
//!   since, the runtime hears from the system.
//! - quinn's endpoint stops when it has read for about 50 µs, and then runs itself once more, which wakes another thread. How many packets that is, it
//!   estimates from the first one that ever came, mostly the slow first packet of a handshake, and revises that once in 256 rounds, by an eighth. So for
//!   thousands of packets it would stop after each. Here the first answer is a batch of empty datagrams, from which it learns that they are quick.
//! - The system tells of room for sending each time that a packet has left. Here it is asked for that only while the socket is full.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A UDP socket of the system.
#[derive(Debug)]
pub(crate) struct SystemSocket {
    /// The system tells of what has come, and of nothing else.
    io: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    /// quinn was given the batch from which it learns its pace.
    paced: AtomicBool,
    /// There was no room when something was to be sent.
    full: AtomicBool,
    /// Where the connections wait that found no room.
    room: Mutex<Option<Arc<Room>>>,
}

impl SystemSocket {
    /// Takes the socket over, which must not block, into the runtime of the caller.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self {
            io: watch(socket, Interest::READABLE)?,
            state,
            paced: AtomicBool::new(false),
            full: AtomicBool::new(false),
            room: Mutex::new(None),
        })
    }

    /// Where to wait for room: where others wait already, or a new place, which hears of room that is there now.
    fn room(&self) -> Arc<Room> {
        self.lock_room().get_or_insert_with(|| Arc::new(Room::new(self.io.get_ref()))).clone()
    }

    /// There was room in that place. Whoever finds none after this waits in another.
    fn has_room(&self, found: &Arc<Room>) {
        let mut room = self.lock_room();
        if room.as_ref().is_some_and(|room| Arc::ptr_eq(room, found)) {
            *room = None;
            self.full.store(false, Ordering::Release);
        }
    }

    fn lock_room(&self) -> MutexGuard<'_, Option<Arc<Room>>> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncUdpSocket for SystemSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send(self.io.get_ref().into(), transmit);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.full.store(true, Ordering::Release);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if !self.paced.swap(true, Ordering::Relaxed) {
            meta.fill(RecvMeta::default());
            return Poll::Ready(Ok(meta.len().min(buffers.len()).min(PACE)));
        }
        loop {
            let mut readable = ready!(self.io.poll_read_ready(cx))?;
            let received = self.state.recv(self.io.get_ref().into(), buffers, meta);
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => readable.clear_ready(),
                // What has come since this began is told anew: only what was known before is forgotten.
                Ok(1) if BATCHES && buffers.len() > 1 && meta[0].len <= meta[0].stride => {
                    readable.clear_ready();
                    return Poll::Ready(Ok(1));
                }
                Ok(count) => return Poll::Ready(Ok(count)),
                // To quinn any error but a reset would be the end of all connections. A next turn tells whether it lasts.
                Err(error) => tracing::debug!(%error, "a socket could not be read"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

/// Where connections wait until a socket that was full has room.
#[derive(Debug)]
struct Room {
    /// The same socket by another number, which the system watches for room as long as this lives. Without one, because the process has no number left,
    /// a while is waited.
    watched: Option<AsyncFd<UdpSocket>>,
}

impl Room {
    fn new(socket: &UdpSocket) -> Self {
        Self { watched: socket.try_clone().and_then(|same| watch(same, Interest::WRITABLE)).ok() }
    }

    async fn wait(&self) -> io::Result<()> {
        match &self.watched {
            Some(watched) => watched.writable().await.map(|_| ()),
            None => {
                tokio::time::sleep(UNWATCHED).await;
                Ok(())
            }
        }
    }
}

/// Waits for room to send, for one connection. What it waits with is made when there is none, which is rare: an idle connection keeps nothing of it.
struct Writable {
    socket: Arc<SystemSocket>,
    waiting: Option<Waiting>,
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_none() && !self.socket.full.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        let socket = self.socket.clone();
        let waiting = self.waiting.get_or_insert_with(|| {
            Box::pin(async move {
                let room = socket.room();
                room.wait().await?;
                socket.has_room(&room);
                Ok(())
            })
        });
        let writable = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(writable)
    }
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable").field("waits", &self.waiting.is_some()).finish_non_exhaustive()
    }
}

/// Has the runtime watch a socket for one kind of news.
// What tokio has in its place is unsafe, for the sake of what does not own its descriptor; a socket does.
#[allow(deprecated)]
fn watch(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, interest)
}

/// How many empty packets quinn learns its pace from: enough for it to take a packet for cheap, and few enough that it still gives others a turn.
const PACE: usize = 4;
/// Whether one call receives all that is there, up to a batch: with `recvmmsg`.
const BATCHES: bool = cfg!(any(target_os = "linux", target_os = "android"));
/// How long a full socket that cannot be watched is left alone.
const UNWATCHED: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    use futures_util::poll;
    use quinn::udp::BATCH_SIZE;

    use super::*;

    const LOOPBACK: &str = "127.0.0.1:0";

    fn socket() -> Arc<SystemSocket> {
        let socket = UdpSocket::bind(LOOPBACK).unwrap();
        socket.set_nonblocking(true).unwrap();
        Arc::new(SystemSocket::new(socket).unwrap())
    }

    /// The lengths of what one call receives.
    async fn receive(socket: &SystemSocket) -> Vec<usize> {
        let mut space = vec![[0u8; 2048]; BATCH_SIZE];
        let mut buffers: Vec<_> = space.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let mut meta = vec![RecvMeta::default(); BATCH_SIZE];
        let count = poll_fn(|cx| socket.poll_recv(cx, &mut buffers, &mut meta)).await.unwrap();
        meta[..count].iter().map(|meta| meta.len).collect()
    }

    #[tokio::test]
    async fn the_first_batch_is_empty_and_what_came_is_in_the_next() {
        let socket = socket();
        let to = socket.local_addr().unwrap();
        let sender = UdpSocket::bind(LOOPBACK).unwrap();
        sender.send_to(b"hello", to).unwrap();
        assert_eq!(receive(&socket).await, [0; PACE]);
        assert_eq!(receive(&socket).await, [5]);
        assert!(poll!(Box::pin(receive(&socket))).is_pending());
    }

    /// However a packet falls between the reading of another and the wait for the next.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_packet_that_comes_while_a_lone_one_is_read_is_heard_of() {
        const PACKETS: usize = 20_000;
        let socket = socket();
        receive(&socket).await;
        let to = socket.local_addr().unwrap();
        let (took, taken) = std::sync::mpsc::channel();
        let sender = std::thread::spawn(move || {
            let sender = UdpSocket::bind(LOOPBACK).unwrap();
            let mut under_way = 0;
            for packet in 0..PACKETS {
                sender.send_to(&[1], to).unwrap();
                under_way += 1;
                // Mostly the next one follows as soon as one was taken; never more than a socket keeps.
                while under_way > packet % 4 {
                    let Ok(count) = taken.recv() else { return };
                    under_way -= std::cmp::min::<usize>(count, under_way);
                }
            }
        });
        let mut came = 0;
        while came < PACKETS {
            let packets = receive(&socket).await;
            // With segmentation offload several come as one.
            let count: usize = packets.iter().sum();
            came += count;
            took.send(count).ok();
        }
        sender.join().unwrap();
    }

    #[tokio::test]
    async fn a_full_socket_is_waited_for_until_there_is_room() {
        // A datagram socket that fills up, as one over loopback never does.
        let (full, reader) = UnixDatagram::pair().unwrap();
        full.set_nonblocking(true).unwrap();
        while full.send(&[0; 1024]).is_ok() {}
        let room = Room::new(&UdpSocket::from(OwnedFd::from(full)));
        assert!(room.watched.is_some());
        let mut waiting = Box::pin(room.wait());
        assert!(poll!(&mut waiting).is_pending());
        reader.set_nonblocking(true).unwrap();
        while reader.recv(&mut [0; 1024]).is_ok() {}
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn connections_wait_for_room_together_and_whoever_finds_none_afterwards_waits_anew() {
        let socket = socket();
        let mut pollers = [(); 2].map(|()| socket.clone().create_io_poller());
        let mut writable = async || poll_fn(|cx| pollers[0].as_mut().poll_writable(cx)).await.unwrap();
        writable().await;
        assert!(socket.lock_room().is_none(), "with room nothing is watched");
        socket.full.store(true, Ordering::Release);
        let room = socket.room();
        assert!(Arc::ptr_eq(&room, &socket.room()));
        writable().await;
        assert!(socket.lock_room().is_none() && !socket.full.load(Ordering::Acquire));
        socket.full.store(true, Ordering::Release);
        let anew = socket.room();
        assert!(!Arc::ptr_eq(&room, &anew));
        socket.has_room(&room);
        assert!(
            socket.full.load(Ordering::Acquire),
            "what others hear later of an earlier time says nothing of now"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_cannot_be_watched_is_tried_again_after_a_while() {
        let begin = tokio::time::Instant::now();
        Room { watched: None }.wait().await.unwrap();
        assert_eq!(begin.elapsed(), UNWATCHED);
    }
}
