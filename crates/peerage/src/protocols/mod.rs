//! The protocols that every node serves besides the hello.

pub(crate) mod exchange;
pub(crate) mod identify;
pub(crate) mod perf;
pub(crate) mod ping;
