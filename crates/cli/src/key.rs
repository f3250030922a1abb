//! `peerage key`: keys in files.

use peerage::NodeKey;

use crate::args::KeyAction;
use crate::failure::Failure;
use crate::term::say;

/// Carries out `peerage key new` and `peerage key show`.
pub(crate) fn run(action: KeyAction) -> Result<(), Failure> {
    let key = match action {
        KeyAction::New { path } => NodeKey::create(path),
        KeyAction::Show { path } => NodeKey::load(path),
    };
    say(&key.map_err(Failure::failed)?.peer_id().to_string());
    Ok(())
}
