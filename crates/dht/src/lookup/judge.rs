//! Who says whether a value is worth anything: lookups ask, records and validators answer.

use bytes::Bytes;
use peerage_machine::Now;

use crate::Target;
use crate::store::Equivocation;

/// Says of values that others answered with whether they may stand where they were found, and which of two is the better one.
///
/// It must be a pure function of what it is given, so that one seed gives one run, and it is called with whatever a stranger sends.
pub trait Judge {
    /// What `value` is worth under `target`.
    ///
    /// # Errors
    /// [`Invalid`] when it must not be used: it is not signed by whom the key names, has expired, has the wrong form.
    fn judge(&self, now: Now, target: &Target, value: &Bytes) -> Result<Judged, Invalid>;

    /// Whether two valid values of one slot prove that their publisher has said two things at once. Unless an implementation says otherwise, nothing does.
    fn contradiction(&self, _target: &Target, _values: [&Bytes; 2]) -> Option<Equivocation> {
        None
    }
}

/// What a valid value is worth.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Judged {
    /// Values of different slots stand beside each other (a topic's publishers, a mailbox's messages); of one slot the best is kept. Empty where a key
    /// has one value only.
    pub slot: Bytes,
    /// Of two values in a slot the one with the greater rank is the better one: a total order, such as sequence, expiry and hash, each big-endian.
    pub rank: Bytes,
    /// No better one can exist, such as content that is named by its hash: a lookup may end with it whatever quorum was asked for.
    pub is_final: bool,
}

/// The value must not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value is not valid under this key: {why}")]
pub struct Invalid {
    /// In a few words.
    pub why: &'static str,
}

/// Takes every value for the one and only; for tests and simulations of lookups alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct AcceptAll;

impl Judge for AcceptAll {
    fn judge(&self, _: Now, _: &Target, value: &Bytes) -> Result<Judged, Invalid> {
        Ok(Judged { slot: Bytes::new(), rank: value.clone(), is_final: true })
    }
}
