//! The `peerage` program.
#![allow(dead_code)]
mod transfer;
fn main() {}
