//! A close is sent whatever else waits.
//!
//! quinn puts CONNECTION_CLOSE into a packet with what is queued, and so holds it to the congestion window and to pacing. Once it is closing it heeds no
//! acknowledgement: a window that is full stays full, and the peer would hear nothing but the idle timeout. RFC 9002 § 7 counts only bytes of ack-eliciting
//! packets, which a close is not. So the window opens when a connection is closed; then nothing but the close is sent.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};

/// Makes controllers whose windows open at the end.
pub(crate) struct WithFarewell {
    inner: Arc<dyn ControllerFactory + Send + Sync>,
    all_close: Arc<AtomicBool>,
}

/// A congestion controller, and whether its connection is being closed.
struct Closable {
    inner: Box<dyn Controller>,
    closes: Arc<AtomicBool>,
    all_close: Arc<AtomicBool>,
}

impl WithFarewell {
    /// `all_close` becomes true right before all connections are closed.
    pub(crate) fn new(
        inner: Arc<dyn ControllerFactory + Send + Sync>,
        all_close: Arc<AtomicBool>,
    ) -> Arc<Self> {
        Arc::new(Self { inner, all_close })
    }
}

/// To be called right before a connection is closed.
pub(crate) fn open_window(connection: &quinn::Connection) {
    // The clone shares the mark.
    if let Ok(controller) = connection.congestion_state().into_any().downcast::<Closable>() {
        controller.closes.store(true, Ordering::Relaxed);
    }
}

impl ControllerFactory for WithFarewell {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = self.inner.clone().build(now, current_mtu);
        Box::new(Closable { inner, closes: Arc::default(), all_close: self.all_close.clone() })
    }
}

impl Controller for Closable {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
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
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_acked: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_acked);
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
        match self.closes.load(Ordering::Relaxed) || self.all_close.load(Ordering::Relaxed) {
            true => OPEN,
            false => self.inner.window(),
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let (closes, all_close) = (self.closes.clone(), self.all_close.clone());
        Box::new(Self { inner: self.inner.clone_box(), closes, all_close })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// A window that nothing fills; quinn does not pace beyond 32 bits.
const OPEN: u64 = 1 << 48;
