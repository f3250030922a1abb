//! The lines of both sides, without a stream.

use super::*;
use proptest::prelude::*;

fn bytes(lines: &[&str]) -> Bytes {
    let mut out = BytesMut::new();
    lines.iter().for_each(|line| put_line(line, &mut out));
    out.freeze()
}

fn lines_of(bytes: Bytes) -> Result<Vec<Bytes>, NegotiationError> {
    let mut lines = Lines::default();
    lines.push(bytes);
    let mut all = Vec::new();
    while let Some(line) = lines.next_line()? {
        all.push(line);
    }
    Ok(all)
}

/// Runs a listener over what a dialler says, until it wants more than that.
fn listen(said: Bytes, supports: &[&str]) -> (Vec<Step>, Option<NegotiationError>, Listener) {
    let mut listener = Listener::default();
    listener.push(said);
    let mut steps = Vec::new();
    loop {
        match listener.step(|name| supports.contains(&name)) {
            Ok(Step::Say(answer)) => steps.push(Step::Say(answer)),
            Ok(step) => {
                steps.push(step);
                return (steps, None, listener);
            }
            Err(error) => return (steps, Some(error), listener),
        }
    }
}

#[test]
fn lines_are_framed_as_in_the_specification() {
    #[derive(serde::Deserialize)]
    struct Vectors {
        vectors: Vec<Vector>,
    }
    #[derive(serde::Deserialize)]
    struct Vector {
        message: String,
        bytes_hex: String,
    }
    let vectors: Vectors =
        serde_json::from_str(include_str!("../../tests/vectors/multistream_select.json")).unwrap();
    assert_eq!(vectors.vectors.len(), 2);
    for Vector { message, bytes_hex } in vectors.vectors {
        let framed = hex::decode(bytes_hex).unwrap();
        assert_eq!(line(&message), framed);
        assert_eq!(lines_of(framed.into()).unwrap(), [message.as_bytes()]);
    }
}

#[test]
fn a_lazy_proposal_is_header_and_name() {
    assert_eq!(proposal("/ipfs/ping/1.0.0"), "\x13/multistream/1.0.0\n\x11/ipfs/ping/1.0.0\n");
}

#[test]
fn a_header_without_a_name_is_answered_by_a_header_at_once_and_only_once() {
    let mut listener = Listener::default();
    listener.push(line(HEADER));
    assert_eq!(listener.step(|_| true), Ok(Step::Say(line(HEADER))));
    assert_eq!(listener.step(|_| true), Ok(Step::More));
    listener.push(line("/a"));
    assert_eq!(listener.step(|_| true), Ok(Step::Agree("/a".into(), line("/a"))));
}

#[test]
fn header_and_echo_are_answered_in_one_piece_and_data_behind_is_kept() {
    let said = [&proposal("/a/1")[..], b"data"].concat();
    let (steps, error, listener) = listen(said.into(), &["/a/1"]);
    assert_eq!(steps, [Step::Agree("/a/1".into(), proposal("/a/1"))]);
    assert_eq!(error, None);
    assert_eq!(listener.into_rest(), "data");
}

#[test]
fn an_unknown_name_is_answered_na_and_another_may_follow() {
    let mut listener = Listener::default();
    listener.push(proposal("/b/1"));
    assert_eq!(listener.step(|_| false), Ok(Step::Say(proposal("na"))));
    assert_eq!(listener.step(|_| false), Ok(Step::More));
    listener.push(line("/a/1"));
    assert_eq!(listener.step(|name| name == "/a/1"), Ok(Step::Agree("/a/1".into(), line("/a/1"))));
}

#[test]
fn data_behind_a_refused_name_is_never_read_as_a_proposal() {
    let said = [&proposal("/b/1")[..], &line("/a/1")].concat();
    let (steps, error, _) = listen(said.into(), &["/a/1"]);
    assert_eq!(steps, [Step::Refuse("/b/1".into(), proposal("na"))]);
    assert_eq!(error, None);
}

#[test]
fn a_ninth_proposal_is_one_too_many() {
    let mut listener = Listener::default();
    listener.push(proposal("/0"));
    for number in 1..=MAX_PROPOSALS {
        assert!(matches!(listener.step(|_| false), Ok(Step::Say(_))));
        listener.push(line(&format!("/{number}")));
    }
    assert_eq!(listener.step(|_| true), Err(NegotiationError::TooManyProposals));
}

#[test]
fn a_listing_is_answered_na() {
    let (steps, error, _) = listen(proposal("ls"), &["ls"]);
    assert_eq!(steps, [Step::Say(proposal("na")), Step::More]);
    assert_eq!(error, None);
}

#[test]
fn a_line_of_1024_bytes_is_taken_and_a_longer_one_is_not() {
    let name = "x".repeat(MAX_LINE - 1);
    assert!(is_protocol_name(&name));
    assert_eq!(lines_of(line(&name)).unwrap(), [name.as_bytes()]);
    let name = "x".repeat(MAX_LINE);
    assert!(!is_protocol_name(&name));
    assert!(matches!(lines_of(line(&name)), Err(NegotiationError::BadLine { .. })));
    // The length alone is enough to know.
    assert!(lines_of(Bytes::from_static(b"\x81\x08")).is_err());
}

#[test]
fn malformed_lines_are_refused() {
    for bad in [&b"\x00"[..], b"\x03abc", b"\x83\x00na\n", &[0xff; 9]] {
        assert!(lines_of(Bytes::from_static(bad)).is_err(), "{bad:?}");
    }
}

#[test]
fn names_that_cannot_be_proposed() {
    for bad in ["", "na", "ls", "/a\n/b"] {
        assert!(!is_protocol_name(bad), "{bad:?}");
    }
}

#[test]
fn a_dialler_reads_the_echo_or_the_no_and_nothing_else() {
    let answer = |said: Bytes| {
        let mut dialler = Dialler::new(Arc::from("/a/1"));
        dialler.push(said);
        dialler.answer()
    };
    assert_eq!(answer(bytes(&["/multistream/1.0.0"])), Ok(None));
    assert_eq!(answer(proposal("/a/1")), Ok(Some(Answer::Agreed)));
    assert_eq!(answer(proposal("na")), Ok(Some(Answer::NotAvailable)));
    for wrong in [proposal("/b/1"), bytes(&["/a/1"]), bytes(&["/multistream/2.0.0", "/a/1"])] {
        assert!(matches!(answer(wrong), Err(NegotiationError::Unexpected { .. })));
    }
}

proptest! {
    #[test]
    fn any_cut_of_the_bytes_gives_the_same_agreement(
        refused in prop::collection::vec("/[a-z]{1,40}", 0..7),
        data: Vec<u8>,
        cuts in prop::collection::vec(1usize..9, 1..40),
    ) {
        let mut listener = Listener::default();
        let mut cuts = cuts.iter().cycle();
        let mut answered = Vec::new();
        // A dialler that waits for each answer, as one with several names must.
        for (index, name) in refused.iter().enumerate() {
            let said = if index == 0 { proposal(name) } else { line(name) };
            let mut at = 0;
            loop {
                match listener.step(|_| false) {
                    Ok(Step::Say(bytes)) => answered.extend(bytes),
                    Ok(Step::More) if at < said.len() => {
                        let end = (at + cuts.next().unwrap()).min(said.len());
                        listener.push(said.slice(at..end));
                        at = end;
                    }
                    Ok(Step::More) => break,
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
        let first = if refused.is_empty() { proposal("/yes") } else { line("/yes") };
        listener.push([&first[..], &data].concat().into());
        match listener.step(|name| name == "/yes") {
            Ok(Step::Agree(_, echo)) => answered.extend(echo),
            other => prop_assert!(false, "{other:?}"),
        }
        let expected = refused.iter().fold(line(HEADER).to_vec(), |all, _| [all, line(NOT_AVAILABLE).to_vec()].concat());
        prop_assert_eq!(answered, [expected, line("/yes").to_vec()].concat());
        prop_assert_eq!(listener.into_rest(), data);
    }

    #[test]
    fn any_bytes_end_in_an_error_a_refusal_or_a_wait(said: Vec<u8>) {
        let (steps, error, listener) = listen(said.into(), &[]);
        prop_assert!(steps.len() <= MAX_PROPOSALS + 1);
        prop_assert!(error.is_some() || listener.into_rest().len() <= MAX_LINE + 2);
    }
}
