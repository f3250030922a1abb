//! Every work between two processes, in small amounts.
#![allow(clippy::unwrap_used)]

use peerage_bench_peer::Work;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bench-tcp-tls");

#[test]
fn tcp_tls_does_every_work_that_it_has_something_for() {
    works::every_work(PROGRAM, &[Work::Rpc1, Work::Rpc64, Work::Streams, Work::Fanout, Work::Prio], false)
        .unwrap();
}

#[test]
fn tcp_tls_holds_connections_to_many_servers_from_one_client() {
    let done = works::one_client_of_many_servers(PROGRAM).unwrap();
    assert!(done.memory.is_some_and(|memory| memory.client_bytes.is_some()), "{done:?}");
}
