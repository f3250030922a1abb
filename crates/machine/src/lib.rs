//! What Peerage's pure crates share.
//!
//! A pure crate decides; it does not act. It has no socket, no task, no clock and no source of randomness of its own: time comes in
//! as a [`Now`] with every event, randomness from a [`Random`] seeded at construction, and what should be done comes out as values. So
//! the same code runs over QUIC in production and with thousands of nodes under a virtual clock in a test, and a failing run is a seed.
//!
//! The shape of such a machine is the trait [`Machine`]:
//!
//! ```
//! use std::time::Duration;
//! use peerage_machine::{Machine, Now};
//!
//! /// Says "tick" once, one second after it was woken.
//! #[derive(Default)]
//! struct Alarm { due: Option<Duration>, says: Option<&'static str> }
//!
//! impl Machine for Alarm {
//!     type Input = ();
//!     type Output = &'static str;
//!     fn handle(&mut self, now: Now, _: ()) { self.due = Some(now.mono + Duration::from_secs(1)); }
//!     fn handle_timeout(&mut self, now: Now) {
//!         if self.due.is_some_and(|due| due <= now.mono) { self.due = None; self.says = Some("tick"); }
//!     }
//!     fn poll_output(&mut self) -> Option<&'static str> { self.says.take() }
//!     fn poll_timeout(&self) -> Option<Duration> { self.due }
//! }
//!
//! let mut alarm = Alarm::default();
//! alarm.handle(Now::ZERO, ());
//! let due = alarm.poll_timeout().unwrap();
//! alarm.handle_timeout(Now { mono: due, ..Now::ZERO });
//! assert_eq!(alarm.poll_output(), Some("tick"));
//! ```

mod bucket;
mod interner;
mod random;
mod recent;
mod time;

pub use bucket::TokenBucket;
pub use interner::Interner;
pub use random::Random;
pub use recent::Recent;
pub use time::Now;

use std::time::Duration;

/// A state machine without input or output of its own.
///
/// The driver feeds it what happened, then takes outputs until none is left, then waits for the next event or for the time
/// that [`Machine::poll_timeout`] names.
pub trait Machine {
    /// What can happen to it.
    type Input;
    /// What it wants done, or wants known.
    type Output;

    /// Takes in one event.
    fn handle(&mut self, now: Now, input: Self::Input);

    /// Does whatever has become due. Calling it early does no harm.
    fn handle_timeout(&mut self, now: Now);

    /// The next thing to do, in order; `None` when all was taken.
    fn poll_output(&mut self) -> Option<Self::Output>;

    /// When [`Machine::handle_timeout`] is next needed, as [`Now::mono`]; `None` when only an event can change anything.
    fn poll_timeout(&self) -> Option<Duration>;
}
