//! How much of what waits for applications may be views of received packets.
//!
//! A message that lies in one packet is handed on without a copy. As a view it keeps the batch of packets alive in which the packet came, 64 KiB at
//! most, whatever is accounted for it. So only so many views wait in the node and of one stream; what comes beyond is copied.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::gather::Run;
use super::inbox::Intake;

/// Views that may wait in all inboxes of a node together.
pub(crate) const MAX_VIEWS: usize = 256;
/// The same of one stream.
pub(crate) const MAX_STREAM_VIEWS: usize = 32;

/// The views of one stream that wait.
#[derive(Debug, Default)]
pub(super) struct Views {
    of_node: Arc<AtomicUsize>,
    here: AtomicUsize,
}

/// Counts one view, until it is dropped.
#[derive(Debug)]
pub(super) struct View(Arc<Intake>);

/// Whole messages on their way into an inbox.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) bytes: Bytes,
    pub(super) messages: usize,
    pub(super) view: Option<View>,
}

impl Views {
    /// Those of a stream, in a node that counts its views there.
    pub(super) fn of(of_node: &Arc<AtomicUsize>) -> Self {
        Self { of_node: of_node.clone(), here: AtomicUsize::new(0) }
    }

    fn one_more(&self) -> bool {
        let below = |most| move |count: usize| (count < most).then_some(count + 1);
        if self.here.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below(MAX_STREAM_VIEWS)).is_err() {
            return false;
        }
        let counted =
            self.of_node.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below(MAX_VIEWS)).is_ok();
        if !counted {
            self.here.fetch_sub(1, Ordering::Relaxed);
        }
        counted
    }

    fn one_less(&self) {
        self.here.fetch_sub(1, Ordering::Relaxed);
        self.of_node.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Intake {
    /// A run as it goes into the inbox: a view if one more may wait, or a copy.
    pub(super) fn arrival(self: &Arc<Self>, run: Run, messages: usize) -> Arrival {
        let view = (run.is_view && self.views.one_more()).then(|| View(self.clone()));
        let bytes = match &view {
            None if run.is_view => Bytes::copy_from_slice(&run.bytes),
            _ => run.bytes,
        };
        Arrival { bytes, messages, view }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.0.views.one_less();
    }
}

impl From<Arrival> for Run {
    fn from(arrival: Arrival) -> Self {
        Self { is_view: arrival.view.is_some(), bytes: arrival.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive(stream: &Arc<Intake>, bytes: &Bytes) -> Arrival {
        stream.arrival(Run { bytes: bytes.clone(), is_view: true }, 1)
    }

    #[test]
    fn thirty_two_views_of_a_stream_wait_and_two_hundred_and_fifty_six_of_all_and_the_rest_is_copied() {
        let of_node = Arc::default();
        let stream = |_| {
            let mut intake = Intake::default();
            intake.views = Views::of(&of_node);
            Arc::new(intake)
        };
        let streams: Vec<_> = (0..9).map(stream).collect();
        let bytes = Bytes::from(vec![7; 1000]);
        let is_view = |arrival: &Arrival| arrival.bytes.as_ptr() == bytes.as_ptr();
        let mut waiting: Vec<_> = (0..33).map(|_| arrive(&streams[0], &bytes)).collect();
        assert_eq!(waiting.iter().filter(|arrival| is_view(arrival)).count(), MAX_STREAM_VIEWS);
        assert!(waiting.iter().all(|arrival| arrival.bytes == bytes));
        for stream in &streams[1..] {
            waiting.extend((0..33).map(|_| arrive(stream, &bytes)));
        }
        assert_eq!(waiting.iter().filter(|arrival| is_view(arrival)).count(), MAX_VIEWS);
        drop(waiting.remove(0));
        assert!(!is_view(&arrive(&streams[8], &Bytes::from(vec![7; 1000]))));
        assert!(is_view(&arrive(&streams[0], &bytes)), "what one gives back another may have");
        waiting.clear();
        assert_eq!(of_node.load(Ordering::Relaxed), 0);
    }
}
