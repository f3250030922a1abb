//! What came in on one channel, until the application takes it.
//!
//! Each peer has a lane with bounds of its own, so that none can fill another's, and the lanes take turns, a message each, so that none waits
//! behind another's backlog. A lane holds runs of framed messages as their reader put them there; the messages are cut out when they are
//! taken. What the application takes is counted for the stream that it came on, whose reader returns it as credit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bytes::{Buf, Bytes, BytesMut};
use peerage_identity::PeerId;
use peerage_wire::uvarint;

use super::ChannelConfig;
use super::cut::Cut;
use super::gather::MIN_VIEW;
use super::reader::MAX_FOREIGN_STREAMS;
use super::views::{Arrival, View, Views};
use crate::bell::Bell;
use crate::memory::Reservation;
use crate::shift::StandIns;

/// What a stream that has ended costs beside its messages, in bytes, as long as some of them wait.
const KEPT: usize = 1024;
/// Runs of a lane that stay as they came. Beyond, those of less than [`MIN_VIEW`] bytes are joined, so that messages that come one by one cost little
/// more than their bytes, which is what is accounted for.
const MAX_APART: usize = 16;
/// The most bytes of a run that was joined.
const MAX_JOINED: usize = 4096;

/// A queue of received messages.
#[derive(Debug)]
pub(crate) struct Inbox {
    most_bytes: usize,
    most_messages: usize,
    state: Mutex<State>,
    /// Those who wait for messages.
    pub(crate) receivers: StandIns,
}

#[derive(Debug, Default)]
struct State {
    /// Boxed, because the list grows by doubling.
    lanes: Vec<Option<Box<Lane>>>,
    by_peer: BTreeMap<PeerId, usize>,
    /// Lanes with messages, in the order of their turns.
    ready: VecDeque<usize>,
    /// How full all lanes are together.
    bytes: usize,
    messages: usize,
    closed: bool,
    /// Streams whose readers are to be woken when the state is unlocked.
    to_wake: Vec<Arc<Intake>>,
}

/// What came from one peer.
#[derive(Debug)]
struct Lane {
    peer: PeerId,
    runs: VecDeque<Run>,
    bytes: usize,
    messages: usize,
    /// Streams that lead here.
    intakes: Vec<Arc<Intake>>,
    /// Of those, the ones whose readers wait for room.
    waiting: Vec<Arc<Intake>>,
}

/// Whole messages that came in one piece.
#[derive(Debug)]
struct Run {
    intake: Arc<Intake>,
    bytes: Bytes,
    messages: usize,
    /// It is a part of a batch of packets.
    view: Option<View>,
}

/// One stream's side of a lane: what the application has taken of it.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    lane: usize,
    /// Streams with the same number take turns, in the order in which they came.
    connection: Option<usize>,
    /// Framed bytes.
    taken: AtomicU64,
    /// The reader wants to hear when so many are taken.
    wake_at: AtomicU64,
    pub(crate) wake: Bell,
    /// What accounts for the messages that wait when the stream has ended. Given back with the last of them.
    left: OnceLock<Reservation>,
    pub(super) views: Views,
}

impl Intake {
    /// Framed bytes of this stream that the application has taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// Has the reader woken when so many are taken.
    pub(crate) fn wake_at(&self, taken: u64) {
        self.wake_at.store(taken, Ordering::Release);
    }

    /// The stream ends after so many framed bytes: keeps of its memory what those need that were not taken.
    pub(crate) fn keep(&self, mut memory: Reservation, accepted: u64) {
        let waiting = (accepted - self.taken()) as usize;
        if waiting > 0 {
            // Less always succeeds.
            let _ = memory.resize((waiting + KEPT).min(memory.bytes()));
            let _ = self.left.set(memory);
        }
    }

    /// Whether its reader wants to hear.
    fn took(&self, bytes: usize) -> bool {
        let taken = self.taken.load(Ordering::Relaxed) + bytes as u64;
        // Only receivers write it, and they hold the inbox's lock.
        self.taken.store(taken, Ordering::Release);
        taken >= self.wake_at.load(Ordering::Acquire)
    }
}

/// Room for more of one peer's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) bytes: usize,
    pub(crate) messages: usize,
}

/// How full an inbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct InboxLevels {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Inbox {
    pub(crate) fn new(config: &ChannelConfig) -> Self {
        Self {
            most_bytes: Self::bound(config),
            most_messages: config.receive_queue_messages,
            state: Mutex::default(),
            receivers: StandIns::default(),
        }
    }

    /// Framed bytes of one peer that may wait: at least one longest message.
    pub(crate) fn bound(config: &ChannelConfig) -> usize {
        config.receive_queue_bytes.max(config.max_message_bytes + uvarint::MAX_LEN)
    }

    /// Registers a stream of `peer`. `None` when the channel is gone, or the peer has `most` of its streams open already. One of a numbered
    /// connection has no room before the earlier ones of that connection have left. `views` counts those of the node.
    pub(crate) fn enter(
        &self,
        peer: PeerId,
        most: usize,
        connection: Option<usize>,
        views: &Arc<AtomicUsize>,
    ) -> Option<Arc<Intake>> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        let lane = match state.by_peer.get(&peer) {
            Some(lane) => *lane,
            None => state.add_lane(peer),
        };
        let wake_at = AtomicU64::new(u64::MAX);
        let intake =
            Arc::new(Intake { lane, connection, wake_at, views: Views::of(views), ..Intake::default() });
        let streams = &mut state.lane(lane)?.intakes;
        if streams.len() >= most {
            return None;
        }
        streams.push(intake.clone());
        Some(intake)
    }

    /// A stream has ended. What it brought can still be received.
    pub(crate) fn leave(&self, intake: &Arc<Intake>) {
        let mut state = self.lock();
        if let Some(lane) = state.lane(intake.lane) {
            lane.intakes.retain(|other| !Arc::ptr_eq(other, intake));
            lane.waiting.retain(|other| !Arc::ptr_eq(other, intake));
            // It may be the turn of one of them.
            let waiting = std::mem::take(&mut lane.waiting);
            state.to_wake.extend(waiting);
        }
        state.tidy(intake.lane);
        Self::unlock(state);
    }

    /// Room in the lane of a stream; `None` when the channel is gone. A reader that finds too little is woken when there is more.
    pub(crate) fn room(&self, intake: &Intake) -> Option<Room> {
        let state = self.lock();
        let lane = state.lanes.get(intake.lane)?.as_ref().filter(|_| !state.closed)?;
        Some(if lane.is_turn_of(intake) { self.room_in(lane) } else { Room { bytes: 0, messages: 0 } })
    }

    /// Has a reader woken when its lane has room again.
    pub(crate) fn await_room(&self, intake: &Arc<Intake>) {
        let mut state = self.lock();
        if let Some(lane) = state.lane(intake.lane)
            && !lane.waiting.iter().any(|other| Arc::ptr_eq(other, intake))
        {
            lane.waiting.push(intake.clone());
            if self.is_roomy(lane) && lane.is_turn_of(intake) {
                let waiting = std::mem::take(&mut lane.waiting);
                state.to_wake.extend(waiting);
            }
        }
        Self::unlock(state);
    }

    /// Adds runs of whole messages in their order, up to the first for which there is no room: that one and what stands behind it stays where it is, and
    /// so do all when the channel is gone. The bytes and messages that it took.
    pub(super) fn push(&self, intake: &Arc<Intake>, arrivals: &mut [Option<Arrival>]) -> (usize, usize) {
        let mut state = self.lock();
        let State { lanes, ready, closed, .. } = &mut *state;
        let lane = lanes.get_mut(intake.lane).and_then(Option::as_deref_mut).filter(|_| !*closed);
        let Some(lane) = lane else { return (0, 0) };
        let (was_empty, before) = (lane.runs.is_empty(), (lane.bytes, lane.messages));
        lane.runs.reserve(arrivals.iter().flatten().count());
        for slot in arrivals {
            let room = self.room_in(lane);
            let fits = |run: &mut Arrival| run.bytes.len() <= room.bytes && run.messages <= room.messages;
            let Some(arrival) = slot.take_if(fits) else { break };
            lane.bytes += arrival.bytes.len();
            lane.messages += arrival.messages;
            lane.add(intake, arrival);
        }
        let (bytes, messages) = (lane.bytes - before.0, lane.messages - before.1);
        if messages == 0 {
            return (0, 0);
        }
        if was_empty {
            ready.push_back(intake.lane);
        }
        state.bytes += bytes;
        state.messages += messages;
        drop(state);
        if self.receivers.any() {
            self.receivers.tell_one();
        }
        (bytes, messages)
    }

    /// The next message: of each peer in the order of arrival, the peers in turn. `None` after [`Inbox::close`] when all were taken.
    pub(crate) async fn recv(&self) -> Option<(PeerId, Bytes)> {
        self.when_some(|state| self.take(state)).await
    }

    /// Waits until something can be taken, or until nothing ever can.
    async fn when_some<T>(&self, take: impl Fn(&mut State) -> Option<T>) -> Option<T> {
        loop {
            let news = {
                let mut state = self.lock();
                if let Some(next) = take(&mut state) {
                    let more = !state.ready.is_empty();
                    Self::unlock(state);
                    if more && self.receivers.any() {
                        self.receivers.tell_one();
                    }
                    return Some(next);
                }
                if state.closed {
                    drop(state);
                    self.receivers.tell_one();
                    return None;
                }
                self.receivers.wait()
            };
            news.await;
        }
    }

    /// The next messages of one peer, framed, at most so many of them: the peers take turns by the call. `None` after [`Inbox::close`] when all were taken.
    pub(crate) async fn recv_runs(&self, most: usize) -> Option<(PeerId, Vec<Bytes>)> {
        self.when_some(|state| self.take_runs(state, most)).await
    }

    /// The next message, if one is there.
    pub(crate) fn try_recv(&self) -> Option<(PeerId, Bytes)> {
        let mut state = self.lock();
        let message = self.take(&mut state);
        Self::unlock(state);
        message
    }

    fn take(&self, state: &mut State) -> Option<(PeerId, Bytes)> {
        let number = *state.ready.front()?;
        let lane = state.lane(number).expect("a lane with messages is kept");
        let run = lane.runs.front_mut().expect("a ready lane has messages");
        let (length, head) =
            uvarint::take(&run.bytes).ok().flatten().expect("the reader put whole messages in");
        let framed = head + length as usize;
        run.bytes.advance(head);
        run.messages -= 1;
        let message = run.take(length as usize);
        let peer = lane.peer;
        state.took(number, framed, 1);
        self.end_turn(state, number);
        Some((peer, message))
    }

    fn take_runs(&self, state: &mut State, most: usize) -> Option<(PeerId, Vec<Bytes>)> {
        let number = *state.ready.front()?;
        let lane = state.lane(number)?;
        let (peer, mut left) = (lane.peer, most);
        let mut runs = Vec::with_capacity(lane.runs.len().min(most));
        while left > 0
            && let Some(run) = state.lane(number).and_then(|lane| lane.runs.front_mut())
        {
            let (bytes, messages) = if run.messages <= left {
                (run.bytes.len(), run.messages)
            } else {
                let cut = Cut::of(&run.bytes, usize::MAX, left, usize::MAX);
                let cut = cut.expect("the reader put whole messages in");
                (cut.bytes, cut.messages)
            };
            runs.push(run.take(bytes));
            run.messages -= messages;
            left -= messages;
            state.took(number, bytes, messages);
        }
        self.end_turn(state, number);
        Some((peer, runs))
    }

    /// The lane whose turn it was has given what it gives.
    fn end_turn(&self, state: &mut State, number: usize) {
        let State { lanes, to_wake, .. } = &mut *state;
        let Some(lane) = lanes.get_mut(number).and_then(Option::as_deref_mut) else { return };
        if !lane.waiting.is_empty() && self.is_roomy(lane) {
            to_wake.append(&mut lane.waiting);
        }
        let emptied = lane.runs.is_empty();
        if emptied {
            // Many lanes are quiet for long.
            lane.runs = VecDeque::new();
        }
        if emptied {
            state.ready.pop_front();
            state.tidy(number);
        } else if state.ready.len() > 1 {
            state.ready.rotate_left(1);
        }
    }

    /// No more messages are taken in; those that are there can still be received.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let State { lanes, to_wake, .. } = &mut *state;
        to_wake.extend(lanes.iter().flatten().flat_map(|lane| lane.intakes.iter().cloned()));
        Self::unlock(state);
        self.receivers.close();
        self.receivers.tell_one();
    }

    /// Whether [`Inbox::close`] was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// How full it is.
    pub(crate) fn levels(&self) -> InboxLevels {
        let state = self.lock();
        InboxLevels { messages: state.messages, bytes: state.bytes }
    }

    /// The part of its bound that the fullest lane takes, in bytes or in messages, whichever is more.
    pub(crate) fn fullness(&self) -> f64 {
        let state = self.lock();
        let of = |lane: &Lane| {
            let messages = lane.messages as f64 / self.most_messages as f64;
            messages.max(lane.bytes as f64 / self.most_bytes as f64)
        };
        state.lanes.iter().flatten().map(|lane| of(lane)).fold(0.0, f64::max)
    }

    /// How full one peer's lane is.
    pub(crate) fn levels_of(&self, peer: &PeerId) -> InboxLevels {
        let state = self.lock();
        let lane = state.by_peer.get(peer).and_then(|lane| state.lanes.get(*lane)?.as_ref());
        lane.map_or(InboxLevels::default(), |lane| InboxLevels { messages: lane.messages, bytes: lane.bytes })
    }

    fn room_in(&self, lane: &Lane) -> Room {
        Room {
            bytes: self.most_bytes.saturating_sub(lane.bytes),
            messages: self.most_messages.saturating_sub(lane.messages),
        }
    }

    /// Enough room to be worth waking a reader: a quarter, or all there is.
    fn is_roomy(&self, lane: &Lane) -> bool {
        lane.messages == 0
            || (4 * lane.messages <= 3 * self.most_messages && 4 * lane.bytes <= 3 * self.most_bytes)
    }

    /// Unlocks the state, and then wakes readers: to do that may wake a receiver, whose executor is not ours.
    fn unlock(mut state: MutexGuard<'_, State>) {
        let to_wake = std::mem::take(&mut state.to_wake);
        drop(state);
        to_wake.iter().for_each(|intake| intake.wake.ring());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Lane {
    fn new(peer: PeerId) -> Self {
        Self { peer, runs: VecDeque::new(), bytes: 0, messages: 0, intakes: Vec::new(), waiting: Vec::new() }
    }

    fn add(&mut self, intake: &Arc<Intake>, arrival: Arrival) {
        let Arrival { bytes, messages, view } = arrival;
        // Streams of a connection without a number come in no order among themselves: each may add to its own last run.
        let back = if intake.connection.is_some() { 1 } else { MAX_FOREIGN_STREAMS };
        let apart = view.is_some() || bytes.len() >= MIN_VIEW || self.runs.len() < MAX_APART;
        let mut last = self.runs.iter_mut().rev().take(if apart { 0 } else { back });
        match last.find(|run| Arc::ptr_eq(&run.intake, intake)) {
            Some(run) if run.view.is_none() && run.bytes.len() + bytes.len() <= MAX_JOINED => {
                run.join(&bytes);
                run.messages += messages;
            }
            _ => self.runs.push_back(Run { intake: intake.clone(), bytes, messages, view }),
        }
    }

    fn is_turn_of(&self, intake: &Intake) -> bool {
        let same = |other: &&Arc<Intake>| other.connection == intake.connection;
        intake.connection.is_none()
            || self.intakes.iter().find(same).is_none_or(|first| std::ptr::eq(&**first, intake))
    }
}

impl Run {
    /// Takes so many bytes from its front.
    fn take(&mut self, bytes: usize) -> Bytes {
        if bytes == self.bytes.len() { std::mem::take(&mut self.bytes) } else { self.bytes.split_to(bytes) }
    }

    /// Its buffer grows by doubling, where nobody else holds a part of it.
    fn join(&mut self, more: &Bytes) {
        let own = std::mem::take(&mut self.bytes).try_into_mut();
        let mut joined = own.unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        joined.extend_from_slice(more);
        self.bytes = joined.freeze();
    }
}

impl State {
    fn lane(&mut self, number: usize) -> Option<&mut Lane> {
        self.lanes.get_mut(number)?.as_deref_mut()
    }

    fn add_lane(&mut self, peer: PeerId) -> usize {
        let number = self.lanes.iter().position(Option::is_none).unwrap_or(self.lanes.len());
        if number == self.lanes.len() {
            self.lanes.push(None);
        }
        self.lanes[number] = Some(Box::new(Lane::new(peer)));
        self.by_peer.insert(peer, number);
        number
    }

    /// So much was taken from the first run of a lane.
    fn took(&mut self, number: usize, bytes: usize, messages: usize) {
        let Some(lane) = self.lanes.get_mut(number).and_then(Option::as_deref_mut) else { return };
        if let Some(run) = lane.runs.front()
            && run.intake.took(bytes)
        {
            self.to_wake.push(run.intake.clone());
        }
        lane.runs.pop_front_if(|run| run.messages == 0);
        lane.bytes -= bytes;
        lane.messages -= messages;
        self.bytes -= bytes;
        self.messages -= messages;
    }

    /// Forgets a lane that nothing leads to and nothing lies in.
    fn tidy(&mut self, number: usize) {
        let idle = |lane: &mut Box<Lane>| lane.intakes.is_empty() && lane.runs.is_empty();
        if let Some(slot) = self.lanes.get_mut(number)
            && let Some(gone) = slot.take_if(idle)
        {
            self.by_peer.remove(&gone.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MANY: usize = 100;

    fn inbox(bytes: usize, messages: usize) -> Inbox {
        Inbox::new(&ChannelConfig::new("/test/1").max_message_bytes(1).receive_queue(bytes, messages))
    }

    fn peer() -> PeerId {
        peerage_identity::NodeKey::generate().peer_id()
    }

    /// A run of messages of one byte each.
    fn run(numbers: std::ops::Range<u8>) -> (Bytes, usize) {
        let framed: Vec<u8> = numbers.clone().flat_map(|n| [1, n]).collect();
        (framed.into(), numbers.len())
    }

    fn push(inbox: &Inbox, intake: &Arc<Intake>, numbers: std::ops::Range<u8>) -> bool {
        let (bytes, messages) = run(numbers);
        inbox.push(intake, &mut [Some(Arrival { bytes, messages, view: None })]).1 > 0
    }

    #[test]
    fn one_peers_flood_fills_its_own_lane_and_the_others_get_their_turns() {
        let inbox = inbox(100, 10);
        let (flooder, other) = (peer(), peer());
        let (flood, quiet) = (
            inbox.enter(flooder, MANY, None, &Arc::default()).unwrap(),
            inbox.enter(other, MANY, None, &Arc::default()).unwrap(),
        );
        assert!(push(&inbox, &flood, 0..10));
        assert!(!push(&inbox, &flood, 10..11), "the lane is full");
        assert!(push(&inbox, &quiet, 100..102));
        let taken: Vec<_> = std::iter::from_fn(|| inbox.try_recv()).map(|(_, m)| m[0]).collect();
        assert_eq!(taken, [0, 100, 1, 101, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!((flood.taken(), quiet.taken()), (20, 4));
    }

    /// A peer that sends its messages one by one, in packets of their own, would cost many times what is accounted for.
    #[test]
    fn messages_that_come_one_by_one_are_joined_and_stay_in_order_and_with_their_streams() {
        const ALL: u32 = 12_000;
        // Two streams of one connection, and two of a peer whose streams have no order; they take turns of so many messages.
        for (connection, turn) in [(Some(1), 2000), (None, 2000), (None, 1)] {
            let inbox = inbox(1 << 20, 1 << 20);
            let peer = peer();
            let intakes = [(); 2].map(|()| inbox.enter(peer, MANY, connection, &Arc::default()).unwrap());
            let of = |number: u32| (number / turn % 2) as usize;
            let buffer: Bytes =
                (0..ALL).flat_map(|number| [&[4], &number.to_be_bytes()[..]].concat()).collect();
            for number in 0..ALL {
                // Pieces of one buffer and buffers of their own.
                let piece = buffer.slice(number as usize * 5..number as usize * 5 + 5);
                let own = if number % 3 == 0 { piece } else { Bytes::copy_from_slice(&piece) };
                let arrival = Arrival { bytes: own, messages: 1, view: None };
                assert_eq!(inbox.push(&intakes[of(number)], &mut [Some(arrival)]), (5, 1));
            }
            let runs = inbox.lock().lane(0).unwrap().runs.len();
            assert!(runs < MAX_APART + ALL as usize * 5 / (MAX_JOINED - 5) + 8, "{runs}");
            let got: Vec<u32> = std::iter::from_fn(|| inbox.try_recv())
                .map(|(_, message)| u32::from_be_bytes(message[..].try_into().unwrap()))
                .collect();
            assert_eq!(got.len(), ALL as usize);
            assert!(connection.is_none() || got.is_sorted());
            for (stream, intake) in intakes.iter().enumerate() {
                assert!(got.iter().filter(|number| of(**number) == stream).is_sorted(), "{stream}");
                assert_eq!(intake.taken(), u64::from(ALL) * 5 / 2);
            }
            assert_eq!(inbox.levels(), InboxLevels::default());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_is_woken_when_its_lane_has_room_or_a_place_is_reached() {
        let inbox = inbox(100, 4);
        let intake = inbox.enter(peer(), MANY, None, &Arc::default()).unwrap();
        assert!(push(&inbox, &intake, 0..4));
        assert_eq!(inbox.room(&intake), Some(Room { bytes: 92, messages: 0 }));
        inbox.await_room(&intake);
        let woken = async |what| {
            let ring = std::future::poll_fn(|cx| intake.wake.poll(cx));
            let woken = tokio::time::timeout(std::time::Duration::from_secs(1), ring).await;
            assert_eq!(woken.is_ok(), what);
        };
        woken(false).await;
        inbox.recv().await.unwrap();
        woken(true).await;
        intake.wake_at(6);
        inbox.recv().await.unwrap();
        woken(false).await;
        inbox.recv().await.unwrap();
        woken(true).await;
    }

    #[tokio::test]
    async fn after_the_close_the_rest_is_delivered_and_then_nothing() {
        let inbox = inbox(100, 10);
        let intake = inbox.enter(peer(), MANY, None, &Arc::default()).unwrap();
        assert!(push(&inbox, &intake, 7..8));
        inbox.close();
        assert_eq!(inbox.recv().await.unwrap().1, vec![7]);
        assert!(inbox.recv().await.is_none());
        assert!(inbox.recv().await.is_none());
        assert!(!push(&inbox, &intake, 8..9));
        assert!(inbox.room(&intake).is_none() && inbox.enter(peer(), MANY, None, &Arc::default()).is_none());
    }

    #[test]
    fn a_lane_is_forgotten_when_its_streams_have_ended_and_its_messages_are_taken() {
        let inbox = inbox(100, 10);
        let who = peer();
        let intake = inbox.enter(who, 1, None, &Arc::default()).unwrap();
        assert!(inbox.enter(who, 1, None, &Arc::default()).is_none(), "more streams than a peer may have");
        push(&inbox, &intake, 0..1);
        inbox.leave(&intake);
        assert_eq!(inbox.lock().by_peer.len(), 1);
        inbox.try_recv().unwrap();
        assert!(inbox.lock().lanes.iter().flatten().next().is_none() && inbox.lock().by_peer.is_empty());
    }

    #[tokio::test]
    async fn every_receiver_that_waits_gets_a_message_and_one_that_gave_up_keeps_none() {
        let inbox = Arc::new(inbox(100, 10));
        let gave_up = tokio::spawn({
            let inbox = inbox.clone();
            async move { inbox.recv().await }
        });
        let receivers: Vec<_> = (0..3)
            .map(|_| {
                let inbox = inbox.clone();
                tokio::spawn(async move { inbox.recv().await })
            })
            .collect();
        tokio::task::yield_now().await;
        gave_up.abort();
        let _ = gave_up.await;
        let intake = inbox.enter(peer(), MANY, None, &Arc::default()).unwrap();
        assert!(push(&inbox, &intake, 0..3));
        for receiver in receivers {
            assert!(receiver.await.unwrap().is_some());
        }
        assert_eq!((inbox.levels(), inbox.receivers.any()), (InboxLevels::default(), false));
    }

    proptest! {
        /// Per peer nothing is lost or reordered, and no lane ever exceeds its bounds.
        #[test]
        fn each_peers_messages_come_out_in_order(steps in prop::collection::vec((0usize..3, 1u8..5, any::<bool>()), 1..100)) {
            let inbox = inbox(30, 8);
            let peers: Vec<_> = (0..3).map(|_| peer()).collect();
            let intakes: Vec<_> = peers.iter().map(|peer| inbox.enter(*peer, MANY, None, &Arc::default()).unwrap()).collect();
            let (mut next_in, mut next_out) = ([0u8; 3], [0u8; 3]);
            for (index, count, receive) in steps {
                if receive {
                    if let Some((peer, message)) = inbox.try_recv() {
                        let from = peers.iter().position(|p| *p == peer).unwrap();
                        prop_assert_eq!(message[0], next_out[from]);
                        next_out[from] = next_out[from].wrapping_add(1);
                    }
                } else if next_in[index] < 250 && push(&inbox, &intakes[index], next_in[index]..next_in[index] + count) {
                    next_in[index] += count;
                }
                for lane in inbox.lock().lanes.iter().flatten() {
                    prop_assert!(lane.messages <= 8 && lane.bytes <= 30);
                    prop_assert_eq!(lane.messages, lane.bytes / 2);
                }
            }
            let left: usize = (0..3).map(|i| usize::from(next_in[i] - next_out[i])).sum();
            prop_assert_eq!(inbox.levels().messages, left);
        }
    }
}
