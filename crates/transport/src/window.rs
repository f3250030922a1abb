//! What holds for congestion windows beside their controllers.
//!
//! **A close is sent whatever else waits.**
//! quinn puts CONNECTION_CLOSE into a packet with what is queued, and so holds it to the congestion window and to pacing. Once it is closing it heeds no
//! acknowledgement: a window that is full stays full, and the peer would hear nothing but the idle timeout. RFC 9002 § 7 counts only bytes of ack-eliciting
//! packets, which a close is not. So the window opens when a connection is closed; then nothing but the close is sent.
//!
//! **What is urgent waits for little where a path has no length.** Within a machine a controller fills the receiver's socket with megabytes, and an urgent
//! stream, which goes first as long as nothing is sent, cannot overtake what is. So while one is in use the window of a path that is given a bound keeps
//! to it. It does not grow meanwhile: nothing is learned of a window that is not used.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};

/// Makes controllers whose windows open at the end, and keep to a bound while something urgent is sent.
pub(crate) struct Windows {
    inner: Arc<dyn ControllerFactory + Send + Sync>,
    beside_urgent: u64,
    all_close: Arc<AtomicBool>,
}

/// A congestion controller, and what else its window goes by.
struct Window {
    inner: Box<dyn Controller>,
    marks: Arc<Marks>,
    made_by: Arc<Windows>,
    /// Until then something urgent counts as in use.
    urgent_until: Option<Instant>,
}

/// What a connection tells its congestion controller.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    closes: AtomicBool,
    urgent: AtomicBool,
}

impl Marks {
    /// Something urgent is about to be sent.
    pub(crate) fn urgent(&self) {
        self.urgent.store(true, Ordering::Relaxed);
    }
}

impl Windows {
    /// While something urgent is sent, no window is larger than `beside_urgent` bytes. `all_close` becomes true right before all connections are closed.
    pub(crate) fn new(
        inner: Arc<dyn ControllerFactory + Send + Sync>,
        beside_urgent: u64,
        all_close: Arc<AtomicBool>,
    ) -> Arc<Self> {
        Arc::new(Self { inner, beside_urgent, all_close })
    }
}

impl Window {
    /// What the bound leaves of the controller's window, where it leaves less.
    fn bounded(&self) -> Option<u64> {
        let (bound, urgent) = (self.made_by.beside_urgent, self.marks.urgent.load(Ordering::Relaxed));
        ((urgent || self.urgent_until.is_some()) && self.inner.window() > bound).then_some(bound)
    }

    /// Takes in the time, and what is urgent by then.
    fn at(&mut self, now: Instant) {
        if self.marks.urgent.load(Ordering::Relaxed) {
            self.marks.urgent.store(false, Ordering::Relaxed);
            self.urgent_until = Some(now + URGENT_FOR);
        } else if self.urgent_until.is_some_and(|until| until <= now) {
            self.urgent_until = None;
        }
    }
}

/// To be called right before a connection is closed.
pub(crate) fn open_window(connection: &quinn::Connection) {
    if let Some(marks) = marks(connection) {
        marks.closes.store(true, Ordering::Relaxed);
    }
}

/// By which the connection's controller, as long as it stays on its path, is told.
pub(crate) fn marks(connection: &quinn::Connection) -> Option<Arc<Marks>> {
    // The clone shares them.
    let controller = connection.congestion_state().into_any().downcast::<Window>().ok()?;
    Some(controller.marks)
}

impl ControllerFactory for Windows {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = self.inner.clone().build(now, current_mtu);
        Box::new(Window { inner, marks: Arc::default(), made_by: self, urgent_until: None })
    }
}

impl Controller for Window {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.at(now);
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &quinn_proto::RttEstimator,
    ) {
        self.at(now);
        self.inner.on_ack(now, sent, bytes, app_limited || self.bounded().is_some(), rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_acked: Option<u64>) {
        self.at(now);
        self.inner.on_end_acks(now, in_flight, app_limited || self.bounded().is_some(), largest_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.marks.closes.load(Ordering::Relaxed) || self.made_by.all_close.load(Ordering::Relaxed) {
            return OPEN;
        }
        self.bounded().unwrap_or_else(|| self.inner.window())
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let (inner, marks, made_by) = (self.inner.clone_box(), self.marks.clone(), self.made_by.clone());
        Box::new(Self { inner, marks, made_by, urgent_until: self.urgent_until })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// How long something urgent that was sent counts as in use.
const URGENT_FOR: Duration = Duration::from_secs(1);

/// A window that nothing fills; quinn does not pace beyond 32 bits.
const OPEN: u64 = 1 << 48;
