//! How the two ends of a stream agree on a protocol, with honest, foreign and hostile peers.

use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_immediate;
use peerage_transport::{
    InboundStream, MAX_LINE, MAX_PROPOSALS, Negotiated, NegotiationError, OpenError, ReadError, StreamCode,
    TransportSettings,
};

use crate::support::*;
use crate::virtual_network::{DELAY, pass, virtual_pair};

async fn inbound(pair: &Pair) -> InboundStream {
    soon(pair.inn.accept_stream()).await.unwrap()
}

#[tokio::test]
async fn an_opened_stream_is_visible_before_anything_is_written() {
    let pair = pair().await;
    let mut stream = pair.out.open("/listener/speaks/1").await.unwrap();
    let (name, mut far) = inbound(&pair).await.negotiate(|_| true, PATIENCE).await.unwrap();
    assert_eq!(&*name, "/listener/speaks/1");
    far.send.write_all(b"first").await.unwrap();
    assert_eq!(soon(stream.recv.read_chunk(100)).await.unwrap().unwrap(), "first");
}

#[tokio::test]
async fn a_lazily_opened_stream_carries_its_name_and_data_together() {
    let pair = pair().await;
    let mut stream = pair.out.open_lazy("/a/1").await.unwrap();
    stream.send.write_all(b"data").await.unwrap();
    let (name, mut far) = inbound(&pair).await.negotiate(|name| name == "/a/1", PATIENCE).await.unwrap();
    assert_eq!((&*name, &**far.protocol()), ("/a/1", "/a/1"));
    assert_eq!(far.recv.read_chunk(100).await.unwrap().unwrap(), "data");
    far.send.write_all(b"answer").await.unwrap();
    assert_eq!(stream.recv.read_chunk(100).await.unwrap().unwrap(), "answer");
}

#[tokio::test]
async fn name_and_first_data_of_a_lazily_opened_stream_leave_in_one_frame() {
    let ours = endpoint(|_| ()).await;
    let foreign = Foreign::honest();
    let (out, inn) = foreign.dial(&ours).await;
    let mut stream = inn.open_lazy("/a/1").await.unwrap();
    stream.send.write_chunk("data".into()).await.unwrap();
    let (_send, mut recv) = soon(out.accept_bi()).await.unwrap();
    let chunk = soon(recv.read_chunk(usize::MAX, true)).await.unwrap().unwrap();
    assert_eq!(chunk.bytes, [HEADER, b"\x05/a/1\ndata"].concat());
}

#[tokio::test]
async fn a_lazily_opened_stream_can_be_flushed_or_finished_without_data() {
    let pair = pair().await;
    let mut flushed = pair.out.open_lazy("/a/1").await.unwrap();
    flushed.send.flush().await.unwrap();
    inbound(&pair).await.negotiate(|_| true, PATIENCE).await.unwrap();

    let mut finished = pair.out.open_lazy("/b/1").await.unwrap();
    finished.send.finish().unwrap();
    let (name, mut far) = inbound(&pair).await.negotiate(|_| true, PATIENCE).await.unwrap();
    assert_eq!(&*name, "/b/1");
    assert_eq!(far.recv.read_chunk(1).await.unwrap(), None);
}

#[tokio::test]
async fn an_unknown_protocol_is_an_error_at_the_first_read_whatever_was_written() {
    let pair = pair().await;
    for data in [&b""[..], b"data that is no proposal", b"\x05/a/1\n"] {
        let mut stream = pair.out.open_lazy("/unknown/1").await.unwrap();
        stream.send.write_all(data).await.unwrap();
        stream.send.finish().unwrap();
        let error =
            inbound(&pair).await.negotiate(|name| name == "/a/1", PATIENCE).await.map(|_| ()).unwrap_err();
        let fault = |protocol: &str| NegotiationError::NotServed { protocol: protocol.into() };
        assert_eq!(error, fault("/unknown/1"));
        let expected = ReadError::NotSupported { protocol: "/unknown/1".into() };
        for _ in 0..2 {
            assert_eq!(soon(stream.recv.read_chunk(1)).await.unwrap_err(), expected);
        }
        assert_eq!(stream.recv.negotiated().await.unwrap_err(), expected);
    }
    assert_eq!(pair.out.close_cause(), None, "the connection lives on");
    assert_eq!(pair.inn.close_cause(), None);
}

#[tokio::test]
async fn the_first_name_that_the_peer_serves_is_chosen() {
    let pair = pair().await;
    let accept = async {
        inbound(&pair).await.negotiate(|name| ["/b/1", "/c/1"].contains(&name), PATIENCE).await.unwrap()
    };
    let (opened, (name, mut far)) = tokio::join!(pair.out.open_any(&["/a/1", "/b/1", "/c/1"]), accept);
    let (chosen, mut stream) = opened.unwrap();
    assert_eq!((&*chosen, &*name), ("/b/1", "/b/1"));
    stream.send.write_all(b"ping").await.unwrap();
    assert_eq!(far.recv.read_chunk(100).await.unwrap().unwrap(), "ping");
    far.send.write_all(b"pong").await.unwrap();
    assert_eq!(stream.recv.read_chunk(100).await.unwrap().unwrap(), "pong");
}

#[tokio::test]
async fn names_of_which_none_is_served_are_all_named() {
    let pair = pair().await;
    let accept = async { inbound(&pair).await.negotiate(|_| false, PATIENCE).await };
    let (opened, accepted) = tokio::join!(pair.out.open_any(&["/a/1", "/b/1"]), accept);
    assert_eq!(
        opened.unwrap_err(),
        OpenError::Negotiation(NegotiationError::NotSupported { protocol: "/a/1, /b/1".into() })
    );
    assert_eq!(accepted.unwrap_err(), NegotiationError::NotServed { protocol: "/b/1".into() });
}

#[tokio::test]
async fn names_that_cannot_be_proposed_are_refused_here() {
    let pair = pair().await;
    let long = "x".repeat(MAX_LINE);
    for bad in ["", "na", "a\nb", &long] {
        assert!(matches!(pair.out.open(bad).await.unwrap_err(), OpenError::BadName { .. }));
    }
    let many = ["/a/1"; MAX_PROPOSALS + 1];
    assert!(matches!(pair.out.open_any(&many).await.unwrap_err(), OpenError::Count { count: 9 }));
    assert!(matches!(pair.out.open_any(&[]).await.unwrap_err(), OpenError::Count { count: 0 }));
}

/// What a foreign dialler sees after it said `said` on a new stream and perhaps finished it.
async fn foreign_says(said: &[u8], finish: bool) -> (Result<Vec<u8>, u64>, NegotiationError) {
    let ours = endpoint(|_| ()).await;
    let foreign = Foreign::honest();
    let (out, inn) = foreign.dial(&ours).await;
    let (mut send, mut recv) = out.open_bi().await.unwrap();
    send.write_all(said).await.unwrap();
    if finish {
        send.finish().unwrap();
    }
    let stream = soon(inn.accept_stream()).await.unwrap();
    let error = stream.negotiate(|name| name == "/a/1", PATIENCE).await.unwrap_err();
    let seen = match soon(recv.read_to_end(10_000)).await {
        Ok(answer) => Ok(answer),
        Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => Err(code.into_inner()),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(inn.close_cause(), None, "the connection lives on");
    (seen, error)
}

const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";

#[tokio::test]
async fn what_is_no_negotiation_is_reset() {
    let violation = StreamCode::ProtocolViolation.number();
    let over_long = [HEADER, &[0x81, 0x08], &[b'x'; 1025]].concat();
    let cases = [
        over_long,
        [HEADER, &[0xff; 9]].concat(),
        [HEADER, &[0]].concat(),
        [HEADER, b"\x04abcd"].concat(),
        b"\x13/multistream/2.0.0\n".to_vec(),
        [HEADER, b"\x03\xff\xff\n"].concat(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    for said in cases {
        let (seen, error) = foreign_says(&said, false).await;
        assert_eq!(seen, Err(violation), "{error}");
    }
}

#[tokio::test]
async fn data_behind_a_refused_name_is_answered_na_and_no_more() {
    let said = [HEADER, b"\x05/b/1\n", b"\x05/a/1\n"].concat();
    let (seen, error) = foreign_says(&said, false).await;
    assert_eq!(seen.unwrap(), [HEADER, b"\x03na\n"].concat());
    assert_eq!(error, NegotiationError::NotServed { protocol: "/b/1".into() });
}

#[tokio::test]
async fn a_foreign_dialler_may_list_and_try_another_name() {
    let ours = endpoint(|_| ()).await;
    let foreign = Foreign::honest();
    let (out, inn) = foreign.dial(&ours).await;
    let dial = async {
        let (mut send, mut recv) = out.open_bi().await.unwrap();
        let mut answer = [0; 4];
        send.write_all(HEADER).await.unwrap();
        for (name, expected) in [("ls", "\x03na\n"), ("/b", "\x03na\n")] {
            send.write_all(&[&[name.len() as u8 + 1], name.as_bytes(), b"\n"].concat()).await.unwrap();
            if name == "ls" {
                let mut header = [0; 20];
                recv.read_exact(&mut header).await.unwrap();
                assert_eq!(header, HEADER);
            }
            recv.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, expected.as_bytes());
        }
        send.write_all(b"\x05/a/1\n").await.unwrap();
        let mut echo = [0; 6];
        recv.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"\x05/a/1\n");
    };
    let accept = async {
        let stream = inn.accept_stream().await.unwrap();
        stream.negotiate(|name| name == "/a/1", PATIENCE).await.unwrap()
    };
    let ((), (name, _stream)) = soon(async { tokio::join!(dial, accept) }).await;
    assert_eq!(&*name, "/a/1");
}

#[tokio::test]
async fn a_stream_that_ends_or_is_reset_before_its_name_is_an_error() {
    let (_, error) = foreign_says(HEADER, true).await;
    assert_eq!(error, NegotiationError::Ended);

    let pair = pair().await;
    let stream = pair.out.open_lazy("/a/1").await.unwrap();
    drop(stream);
    let error = inbound(&pair).await.negotiate(|_| true, PATIENCE).await.unwrap_err();
    assert_eq!(error, NegotiationError::Reset { code: StreamCode::Cancelled });
}

#[tokio::test]
async fn a_dialler_that_proposes_nothing_is_cut_off_in_time() {
    let ours = endpoint(|_| ()).await;
    let foreign = Foreign::honest();
    let (out, inn) = foreign.dial(&ours).await;
    let (mut send, mut recv) = out.open_bi().await.unwrap();
    send.write_all(&HEADER[..7]).await.unwrap();
    let stream = soon(inn.accept_stream()).await.unwrap();
    let within = Duration::from_millis(100);
    let error = stream.negotiate(|_| true, within).await.unwrap_err();
    assert_eq!(error, NegotiationError::TimedOut { after: within });
    let reset = soon(recv.received_reset()).await.unwrap().unwrap();
    assert_eq!(reset.into_inner(), StreamCode::TimedOut.number());
}

#[tokio::test]
async fn a_listener_that_never_answers_is_given_up_in_time() {
    let after = Duration::from_millis(100);
    let dialler = endpoint(|settings| settings.negotiation_timeout = after).await;
    let pair = connect(dialler, endpoint(|_| ()).await).await;
    let mut stream = pair.out.open("/a/1").await.unwrap();
    let timed_out = NegotiationError::TimedOut { after };
    assert_eq!(soon(stream.recv.negotiated()).await.unwrap_err(), ReadError::Negotiation(timed_out.clone()));
    let error = soon(pair.out.open_any(&["/a/1", "/b/1"])).await.unwrap_err();
    assert_eq!(error, OpenError::Negotiation(timed_out.clone()));
    // Nor does a mere read wait for ever, and it says the same each time.
    let mut stream = pair.out.open("/a/1").await.unwrap();
    for _ in 0..2 {
        let error = soon(stream.recv.read_chunk(1)).await.unwrap_err();
        assert_eq!(error, ReadError::Negotiation(timed_out.clone()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_in_time_is_read_at_any_time_later() {
    let pair = virtual_pair(|settings| settings.negotiation_timeout = 4 * DELAY, |_| ()).await;
    let mut stream = pair.out.open("/a/1").await.unwrap();
    let (_, mut other) = inbound(&pair).await.negotiate(|_| true, Duration::from_secs(5)).await.unwrap();
    other.send.write_chunk(Bytes::from_static(b"data")).await.unwrap();
    pass(40 * DELAY).await;
    assert_eq!(soon(stream.recv.read_chunk(9)).await.unwrap().unwrap(), "data");
}

#[tokio::test]
async fn a_rejected_stream_gives_its_code() {
    let pair = pair().await;
    let mut stream = pair.out.open("/a/1").await.unwrap();
    inbound(&pair).await.reject(StreamCode::NotAdmitted);
    let error = soon(stream.recv.read_chunk(1)).await.unwrap_err();
    let reset = NegotiationError::Reset { code: StreamCode::NotAdmitted };
    assert_eq!(error, ReadError::Negotiation(reset));
}

#[tokio::test]
async fn an_answer_that_is_neither_echo_nor_na_is_an_error() {
    let foreign = Foreign::honest();
    let ours = endpoint(|_| ()).await;
    let (out, inn) = foreign.dial(&ours).await;
    for answer in [&b"\x13/multistream/9.9.9\n"[..], b"HTTP/1.1 400", &[HEADER, b"\x05/b/1\n"].concat()] {
        let mut stream = inn.open("/a/1").await.unwrap();
        let (mut send, _recv) = soon(out.accept_bi()).await.unwrap();
        send.write_all(answer).await.unwrap();
        let error = soon(stream.recv.read_chunk(1)).await.unwrap_err();
        assert!(matches!(error, ReadError::Negotiation(_)), "{error}");
    }
}

#[tokio::test]
async fn a_dialler_that_only_writes_may_drop_its_reading_half() {
    let pair = pair().await;
    let (mut send, recv) = pair.out.open("/a/1").await.unwrap().split();
    drop(recv);
    send.write_all(b"one way").await.unwrap();
    send.finish().unwrap();
    let (_, mut far) = inbound(&pair).await.negotiate(|_| true, PATIENCE).await.unwrap();
    assert_eq!(soon(far.recv.read_chunk(100)).await.unwrap().unwrap(), "one way");
}

#[tokio::test]
async fn short_streams_one_way_give_their_places_back() {
    let pair = pair().await;
    let count = 3 * TransportSettings::default().peer_streams;
    let taking = async {
        for _ in 0..count {
            let (_, mut far) = inbound(&pair).await.negotiate(|_| true, PATIENCE).await.unwrap();
            assert_eq!(soon(far.recv.read_chunk(100)).await.unwrap().unwrap(), "one way");
        }
    };
    let giving = async {
        for _ in 0..count {
            let mut stream = soon(pair.out.open_lazy("/a/1")).await.unwrap();
            stream.send.write_all(b"one way").await.unwrap();
            stream.send.finish().unwrap();
        }
    };
    tokio::join!(taking, giving);
    assert_eq!((pair.out.open_halves(), pair.inn.open_halves()), (0, 0));
}

#[tokio::test]
async fn a_name_that_has_come_is_agreed_on_without_waiting_and_any_other_is_waited_for() {
    let pair = pair().await;
    let mut stream = pair.out.open_lazy("/a/1").await.unwrap();
    // More than is read with the name: nothing of it is lost, and nothing comes twice.
    let data: Vec<u8> = (0..20_000_u32).map(|number| number as u8).collect();
    stream.send.write_all(&data).await.unwrap();
    stream.send.finish().unwrap();
    let Negotiated::Done(Ok((name, mut far))) = inbound(&pair).await.try_negotiate(|name| name == "/a/1")
    else {
        panic!("the name came with the stream");
    };
    let mut came = Vec::new();
    while let Some(chunk) = soon(far.recv.read_chunk(usize::MAX)).await.unwrap() {
        came.extend_from_slice(&chunk);
    }
    assert_eq!((&*name, came), ("/a/1", data));

    // Of what is not served, the peer may name another one.
    let pair = self::pair().await;
    let naming = pair.out.open_any(&["/b/1", "/a/1"]);
    let listening = async {
        let Negotiated::Waiting(stream) = inbound(&pair).await.try_negotiate(|name| name == "/a/1") else {
            panic!("no name that is served has come");
        };
        stream.negotiate(|name| name == "/a/1", PATIENCE).await
    };
    let (named, heard) = tokio::join!(naming, listening);
    assert_eq!((&*named.unwrap().0, &*heard.unwrap().0), ("/a/1", "/a/1"));
}

#[tokio::test]
async fn the_thirty_third_negotiation_waits_until_one_of_the_others_has_ended() {
    let pair = pair().await;
    let limit = TransportSettings::default().max_inbound_negotiations;
    assert_eq!(limit, 32);
    let (mut near, mut held) = (Vec::new(), Vec::new());
    for _ in 0..limit {
        near.push(soon(pair.out.open("/a/1")).await.unwrap());
        held.push(inbound(&pair).await);
    }
    near.push(soon(pair.out.open("/a/1")).await.unwrap());
    let mut last = Box::pin(pair.inn.accept_stream());
    assert!(poll_immediate(&mut last).await.is_none(), "there is no turn for it");
    // It got nothing and lost nothing: once another one is negotiated it has its turn.
    held.pop().unwrap().negotiate(|_| true, PATIENCE).await.unwrap();
    let last = soon(last).await.unwrap();
    assert!(poll_immediate(Box::pin(pair.inn.accept_stream())).await.is_none());
    let _far = last.negotiate(|_| true, PATIENCE).await.unwrap();
    soon(near.pop().unwrap().recv.negotiated()).await.unwrap();
    // Streams that are given up give their turn back too.
    drop(held.pop());
    held.pop().unwrap().reject(StreamCode::Cancelled);
    assert!(poll_immediate(Box::pin(pair.inn.accept_stream())).await.is_none(), "but none waits");
    near.push(soon(pair.out.open("/a/1")).await.unwrap());
    inbound(&pair).await.negotiate(|_| true, PATIENCE).await.unwrap();
    // Nobody waits for a turn on a connection that is gone.
    pair.out.close(peerage_transport::CloseCode::Normal, "");
    while soon(pair.inn.accept_stream()).await.is_ok() {}
}
