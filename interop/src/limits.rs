//! What an implementation lacks, so that a cell of the matrix does not apply to it. A cell is left out for no other reason.

use crate::kad::KadCheck;
use crate::matrix::{Check, Way};

/// One implementation, one check, and why it does not apply. `None` as way: in both.
pub(crate) type Lack = (&'static str, Option<Way>, Check, &'static str);

/// The cryptography of js is ring, that of py aioquic's own.
const NO_ML_KEM: &str = "its TLS has no X25519MLKEM768";

/// They store our records and hand them out, but make and read none.
const OUR_RECORDS: &str = "it makes no records of ours";

/// The fixed list.
pub(crate) const LACKS: &[Lack] = &[
    (
        "py",
        Some(Way::Dialled),
        Check::WrongPeer,
        "its check of certificates accepts foreign keys: it judges no identity",
    ),
    ("js", None, Check::PostQuantum, NO_ML_KEM),
    ("py", None, Check::PostQuantum, NO_ML_KEM),
    ("rust", Some(Way::Dialled), Check::Kad(KadCheck::Record), OUR_RECORDS),
    ("go", Some(Way::Dialled), Check::Kad(KadCheck::Record), OUR_RECORDS),
    ("js", Some(Way::Dialled), Check::Kad(KadCheck::Record), OUR_RECORDS),
    (
        "py",
        None,
        Check::Kad(KadCheck::Record),
        "it stores nothing under a key that is no UTF-8, as theirs are",
    ),
];

/// Why a cell does not apply, if it does not.
pub(crate) fn reason(implementation: &str, way: Way, check: Check) -> Option<&'static str> {
    LACKS
        .iter()
        .find(|(name, only, lacking, _)| {
            *name == implementation && *lacking == check && only.is_none_or(|only| only == way)
        })
        .map(|(_, _, _, why)| *why)
}
