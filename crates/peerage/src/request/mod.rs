//! Requests: one message out, one or a stream of them back, on a stream of its own.
//!
//! `proto/request.proto` says how they look on the wire. The stream's protocol name goes out with the request in one flight, so that a
//! request costs one round trip; a node that knows nothing of Peerage can ask and answer with the plainest form, one message each way.
//!
//! - `config`: what a protocol, a call and a node may take.
//! - `body`: requests and answers are read and kept only as far as their memory is accounted for.
//! - `call`: the side that asks; [`Answers`] are a stream of them.
//! - `handler`: the side that answers. It works on a request only while it holds one of the places of `slots`; it stops at the caller's deadline, and
//!   when the caller gives up.
//! - `service`: both sides in tower's words.
//! - `wire`: bytes; `error`: what can go wrong, and the numbers that travel.

mod body;
mod call;
mod config;
mod error;
mod handler;
mod service;
mod slots;
mod wire;

pub use call::Answers;
pub use config::{CallConfig, CallLimits, DEFAULT_DEADLINE, MAX_REQUEST_BYTES, RequestLimits, ServeConfig};
pub use error::{RequestError, ServeError};
pub use handler::Request;
pub use service::RequestService;

pub(crate) use call::{WINDOW_BYTES, call, call_many};
pub(crate) use handler::Handler;
pub(crate) use service::handler as service_handler;
pub(crate) use slots::Slots;
pub(crate) use wire::{
    MAX_ERROR_TEXT, MAX_OPTIONS_BYTES, MAX_STATUS_BYTES, read_options, read_pair, refusal,
};
