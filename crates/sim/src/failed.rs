//! What a scenario ends with when something isn't as it should be.

use std::fmt;

/// Why a scenario failed, in one sentence. Any error becomes one, so that `?` works on everything that a node answers.
#[derive(Clone, PartialEq, Eq)]
pub struct Failed(String);

impl Failed {
    /// A failure with its reason.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

// Not an error itself: that is what lets every error become one.
impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Ends a scenario with a reason unless a condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            return Err($crate::Failed::new(format!($($reason)+)));
        }
    };
}
