//! What an implementation lacks, so that a cell of the matrix does not apply to it. A cell is left out for no other reason.

use crate::matrix::{Check, Way};

/// One implementation, one check, and why it does not apply. `None` as way: in both.
pub(crate) type Lack = (&'static str, Option<Way>, Check, &'static str);

/// The cryptography of js is ring, that of py aioquic's own.
const NO_ML_KEM: &str = "its TLS has no X25519MLKEM768";

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
