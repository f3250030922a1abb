//! multistream-select, the listener's side: what a dialler proposes.

use std::mem::discriminant;

use peerage_transport::fuzzing::{Negotiation, listen, proposal};
use peerage_transport::{MAX_LINE, MAX_PROPOSALS};

use crate::pieces::cuts;
use crate::text::assert_plain;

/// No more than a line is held and no more than the header and a line for each proposal is said. A first proposal that is served is agreed on
/// under any cut, with the same data behind it.
///
/// Behind a refused name the cut decides: what came with it was data for the refused protocol, what comes later is another proposal.
pub fn run(data: &[u8]) {
    let served = |name: &str| name.starts_with("/ipfs/") || name == "/peerage/hello/1";
    let [whole, others @ ..] = cuts(data).map(|pieces| listen(pieces, served));
    for (end, said) in others.iter().chain([&whole]) {
        match end {
            Negotiation::Agreed(name, rest) => {
                assert!(served(name) && data.ends_with(rest));
                assert_eq!(said[said.len() - name.len() - 1..], *format!("{name}\n").as_bytes());
            }
            Negotiation::Waiting(held) => assert!(*held <= MAX_LINE + 1),
            // A name with a line break in it is none, whoever would serve it.
            Negotiation::Refused(name) => assert!(!served(name) || proposal(name).is_none()),
            Negotiation::Failed(error) => assert_plain(&error.to_string(), 2048),
        }
        assert!(said.len() <= HEADER.len() + MAX_PROPOSALS * (MAX_LINE + 2));
        assert!(said.is_empty() || said.starts_with(HEADER));
    }
    let (end, said) = &whole;
    if !said.ends_with(NOT_AVAILABLE) {
        for (other, also_said) in &others {
            assert!(same(other, end), "{other:?} where the whole gives {end:?}");
            // Before a failure the header may have been answered, if it came alone.
            assert!(also_said == said || matches!(end, Negotiation::Failed(_)) && also_said == HEADER);
        }
    }
}

/// Whether two negotiations ended alike. The words of an error may differ: they show as much as had come.
pub fn same(one: &Negotiation, other: &Negotiation) -> bool {
    match (one, other) {
        (Negotiation::Failed(one), Negotiation::Failed(other)) => discriminant(one) == discriminant(other),
        _ => one == other,
    }
}

const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";
const NOT_AVAILABLE: &[u8] = b"\x03na\n";
