//! multistream-select, the dialler's side: what a listener answers.

use bytes::Bytes;
use peerage_transport::MAX_LINE;
use peerage_transport::fuzzing::{Negotiation, dial, listen, proposal, remark};

use crate::multistream_listen::same;
use crate::pieces::cuts;
use crate::text::assert_plain;

/// Any cut of the answer ends the same way, with no more than a line held. A name that can be proposed is agreed on by a listener that has it.
pub fn run(data: &[u8]) {
    let [whole, others @ ..] = cuts(data).map(|pieces| dial(pieces, PROPOSED));
    for other in others {
        assert!(same(&other, &whole), "{other:?} where the whole gives {whole:?}");
    }
    match &whole {
        Negotiation::Agreed(name, rest) => {
            assert!(name == PROPOSED && data.ends_with(rest));
        }
        Negotiation::Waiting(held) => assert!(*held <= MAX_LINE + 1),
        Negotiation::Refused(_) => {}
        Negotiation::Failed(error) => assert_plain(&error.to_string(), 2048),
    }

    assert_plain(&remark(data), 1024);
    if let Some((name, said)) = std::str::from_utf8(data).ok().and_then(|name| Some((name, proposal(name)?))) {
        let (agreed, echo) = listen([said], |offered| offered == name);
        assert_eq!(agreed, Negotiation::Agreed(name.to_owned(), Vec::new()));
        assert_eq!(dial([Bytes::from(echo)], name), agreed);
    }
}

/// What the dialler proposes here.
pub const PROPOSED: &str = "/peerage/hello/1";
