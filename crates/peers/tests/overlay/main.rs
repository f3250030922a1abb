//! Stories of many peer managers on a virtual clock, one file for each subject.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bans;
mod clones;
mod dialling;
mod exchange;
mod limits;
mod lone;
mod memory;
mod observed;
mod places;
mod refusals;
mod stories;
mod support;
mod takeover;
mod visits;
mod why;
