//! How connections end, and what each side learns of it.

use std::time::Duration;

use peerage_identity::NodeKey;
use peerage_transport::{
    CloseCause, CloseCode, DialError, Endpoint, EndpointConfig, ReadError, StreamCode, WriteError,
};

use crate::support::*;

#[tokio::test]
async fn code_and_reason_of_a_close_arrive() {
    for code in CloseCode::ALL.iter().copied().chain([CloseCode::Other(0x1234_5678)]) {
        let pair = pair().await;
        assert_eq!(pair.out.close_cause(), None);
        pair.out.close(code, "because");
        let reason = "because".to_owned();
        assert_eq!(soon(pair.inn.closed()).await, CloseCause::ByPeer { code, reason: reason.clone() });
        let ours = CloseCause::ByUs { code, reason };
        assert_eq!(soon(pair.out.closed()).await, ours);
        assert_eq!(pair.out.close_cause(), Some(ours));
    }
}

#[tokio::test]
async fn the_first_close_says_why() {
    let pair = pair().await;
    pair.out.close(CloseCode::Banned, "first");
    pair.out.close(CloseCode::Normal, "second");
    let ours = soon(pair.out.closed()).await;
    assert_eq!(ours, CloseCause::ByUs { code: CloseCode::Banned, reason: "first".into() });
    soon(pair.inn.closed()).await;
    // Too late: the peer was first.
    pair.inn.close(CloseCode::Full, "late");
    assert!(matches!(pair.inn.close_cause(), Some(CloseCause::ByPeer { code: CloseCode::Banned, .. })));
}

#[tokio::test]
async fn dropping_the_last_handle_closes_normally() {
    let pair = pair().await;
    let second = pair.out.clone();
    let stream = pair.out.open("/a/1").await.unwrap();
    drop((pair.out, second));
    assert_eq!(pair.inn.close_cause(), None, "a stream holds the connection");
    drop(stream);
    let cause = soon(pair.inn.closed()).await;
    assert_eq!(cause, CloseCause::ByPeer { code: CloseCode::Normal, reason: String::new() });
}

#[tokio::test]
async fn closing_the_endpoint_closes_all_its_connections_and_takes_no_more() {
    let pair = pair().await;
    let accepting = tokio::spawn({
        let listener = pair.listener.clone();
        async move { listener.accept().await.is_none() }
    });
    pair.listener.close(CloseCode::Shutdown, "bye");
    let cause = soon(pair.out.closed()).await;
    assert_eq!(cause, CloseCause::ByPeer { code: CloseCode::Shutdown, reason: "bye".into() });
    let cause = soon(pair.inn.closed()).await;
    assert_eq!(cause, CloseCause::ByUs { code: CloseCode::Shutdown, reason: "bye".into() });
    assert!(soon(accepting).await.unwrap(), "accept ends");
    assert!(pair.listener.wait_idle(PATIENCE).await);
    let again = pair.listener.dial(address(&pair.dialler), None).await;
    assert!(matches!(again.unwrap_err(), DialError::Closed));
}

#[tokio::test]
async fn waiting_for_the_last_connection_ends_at_the_deadline() {
    let pair = pair().await;
    assert!(!pair.listener.wait_idle(Duration::from_millis(20)).await);
}

#[tokio::test]
async fn streams_of_a_closed_connection_name_its_cause() {
    let pair = pair().await;
    let mut stream = pair.out.open("/a/1").await.unwrap();
    pair.inn.close(CloseCode::Trimmed, "");
    let lost = CloseCause::ByPeer { code: CloseCode::Trimmed, reason: String::new() };
    assert_eq!(soon(pair.out.closed()).await, lost);
    let read = stream.recv.read_chunk(1).await.unwrap_err();
    assert_eq!(read, ReadError::ConnectionLost(lost.clone()));
    let written = stream.send.write_all(b"x").await.unwrap_err();
    assert_eq!(written, WriteError::ConnectionLost(lost.clone()));
    assert_eq!(stream.send.stopped().await.unwrap_err(), lost);
    let opened = pair.out.open("/a/1").await.unwrap_err();
    assert_eq!(opened.to_string(), format!("connection lost: {lost}"));
    assert_eq!(pair.out.accept_stream().await.unwrap_err(), lost);
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_lost_after_the_idle_timeout() {
    // A peer whose packets end: it lives on a runtime that is taken away.
    let pair = on_a_runtime_of_its_own(NodeKey::generate(), LOOPBACK, |settings| {
        settings.idle_timeout = Duration::from_millis(400);
        settings.keep_alive = Duration::from_millis(100);
    })
    .await;
    pair.crash();
    let cause = soon(pair.out.closed()).await;
    assert!(matches!(cause, CloseCause::TimedOut { .. }), "{cause}");
}

#[tokio::test]
async fn a_restarted_node_resets_its_old_connections() {
    let key = NodeKey::generate();
    let pair = on_a_runtime_of_its_own(key.clone(), LOOPBACK, |_| ()).await;
    let address = pair.address;
    pair.crash();
    let restarted = Endpoint::bind(EndpointConfig::new(key), &[address]).await.unwrap();
    // Anything sent on the old connection is answered with the reset.
    let mut stream = pair.out.open("/a/1").await.unwrap();
    assert_eq!(soon(pair.out.closed()).await, CloseCause::Reset);
    let error = soon(stream.recv.read_chunk(1)).await.unwrap_err();
    assert_eq!(error, ReadError::ConnectionLost(CloseCause::Reset));
    // And the restarted node takes a new one.
    let accept = async { restarted.accept().await.unwrap().accept().await };
    let (out, inn) = tokio::join!(pair.dialler.dial(address, Some(restarted.peer_id())), accept);
    assert!(out.is_ok() && inn.is_ok());
}

#[tokio::test]
async fn another_node_on_the_same_port_cannot_reset_the_connection() {
    let quick = |settings: &mut peerage_transport::TransportSettings| {
        settings.idle_timeout = Duration::from_millis(500);
        settings.keep_alive = Duration::from_millis(100);
    };
    let pair = on_a_runtime_of_its_own(NodeKey::generate(), LOOPBACK, quick).await;
    let address = pair.address;
    pair.crash();
    let _other = Endpoint::bind(config(), &[address]).await.unwrap();
    let cause = soon(pair.out.closed()).await;
    assert!(matches!(cause, CloseCause::TimedOut { .. }), "{cause}");
}

#[tokio::test]
async fn stream_codes_arrive() {
    let pair = pair().await;
    for code in StreamCode::ALL.iter().copied().chain([StreamCode::Other(77)]) {
        let mut stream = pair.out.open("/a/1").await.unwrap();
        let inbound = soon(pair.inn.accept_stream()).await.unwrap();
        let (_, mut inbound) = inbound.negotiate(|_| true, PATIENCE).await.unwrap();
        stream.recv.negotiated().await.unwrap();
        inbound.send.reset(code);
        inbound.recv.stop(code);
        assert_eq!(soon(stream.recv.read_chunk(1)).await.unwrap_err(), ReadError::Reset { code });
        assert_eq!(soon(stream.send.stopped()).await.unwrap(), Some(code));
        let error = stream.send.write_all(b"x").await.unwrap_err();
        assert_eq!(error, WriteError::Stopped { code });
    }
}

/// A connection whose far end can vanish as a killed process does: without a word.
struct Doomed {
    dialler: Endpoint,
    out: peerage_transport::Connection,
    address: std::net::SocketAddr,
    far: std::sync::Mutex<Option<(tokio::runtime::Runtime, Endpoint, peerage_transport::Connection)>>,
}

impl Doomed {
    fn crash(&self) {
        let (runtime, endpoint, connection) = self.far.lock().unwrap().take().unwrap();
        // No task of it runs any more when the handles are dropped, so nothing is sent; then its socket is closed.
        std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join().unwrap();
        drop((connection, endpoint));
    }
}

async fn on_a_runtime_of_its_own(
    key: NodeKey,
    listen: &str,
    change: impl Fn(&mut peerage_transport::TransportSettings),
) -> Doomed {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut config = EndpointConfig::new(key);
    change(&mut config.settings);
    let listen = listen.parse().unwrap();
    let far = runtime.spawn(async move { Endpoint::bind(config, &[listen]).await }).await.unwrap().unwrap();
    let dialler = endpoint(change).await;
    let accepted = runtime.spawn({
        let far = far.clone();
        async move { far.accept().await.unwrap().accept().await.unwrap() }
    });
    let out = dialler.dial(address(&far), None).await.unwrap();
    let accepted = accepted.await.unwrap();
    Doomed { address: address(&far), dialler, out, far: Some((runtime, far, accepted)).into() }
}
