//! Whether a node serves the DHT or only asks, which can change while it runs.

use std::sync::Arc;

use peerage_dht::{Input, Mode};
use peerage_machine::Machine as _;

use super::{Dht, DhtCore, DhtError};
use crate::error::RegisterError;
use crate::registry::Service;
use crate::shared::Shared;

impl Dht {
    /// Serves from now on, or only asks. Connected peers are told, and enter this node into their tables or take it out of them; a node that only asks ends the streams on which it is
    /// asked. What it holds for others stays with it until it expires, unseen while it does not serve. Where the node can be reached is published, and renewed, while it serves.
    ///
    /// [`DhtConfig::mode`](super::DhtConfig::mode) says how the node begins.
    ///
    /// # Errors
    /// [`DhtError::Off`], [`DhtError::Closed`]; [`DhtError::Refused`] where something else of this node is served under the DHT's name.
    pub async fn set_mode(&self, mode: Mode) -> Result<(), DhtError> {
        let (shared, core) = (self.shared.clone(), self.core()?.clone());
        // The driver does all of it in one step: what is advertised is what the machine does.
        let change = move |now, machine: &mut peerage_dht::Dht| {
            if machine.mode() == mode {
                return Ok(());
            }
            advertise(&shared, &core, mode)?;
            machine.handle(now, Input::Mode(mode));
            tracing::info!(?mode, "the DHT's mode has changed");
            Ok(())
        };
        self.of_machine(change)
            .await?
            .map_err(|error: RegisterError| DhtError::Refused { why: error.to_string() })
    }
}

/// Serves the DHT's names, all or none of them, or stops.
pub(super) fn advertise(shared: &Shared, core: &Arc<DhtCore>, mode: Mode) -> Result<(), RegisterError> {
    for (at, name) in core.protocols.iter().enumerate() {
        match mode {
            Mode::Client => shared.registry.remove(name),
            Mode::Server => {
                if let Err(error) = shared.registry.add(name, Service::Dht(core.clone())) {
                    core.protocols[..at].iter().for_each(|added| shared.registry.remove(added));
                    return Err(error);
                }
            }
        }
    }
    core.mode.send_replace(mode);
    Ok(())
}
