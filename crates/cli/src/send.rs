//! `peerage send`: a file to one node.

use peerage::{DialAddress, Node, PeerId, RecvStream, SendStream};
use tokio::time::Instant;

use crate::args::SendArgs;
use crate::failure::Failure;
use crate::node::files;
use crate::signals::Signals;
use crate::term::{Meter, rate, say, size};
use crate::transfer::retry::{Retries, Route, send_with_retries};
use crate::transfer::send::{Patience, SendError};
use crate::transfer::source::Source;
use crate::visitor;

/// Carries out `peerage send`.
pub(crate) async fn run(args: SendArgs) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let meter = Meter::new(&args.file.display().to_string());
    let on_progress = |progress| meter.show(&progress);
    let preparing = async { Source::prepare(&args.file, &on_progress).await.map_err(Failure::failed) };
    let source = signals.unless(preparing).await?;
    let node = visitor::start(&args.network).await?;
    let mut route = Redialling { node: node.clone(), address: args.address };
    let start = Instant::now();
    let retries = Retries::up_to(args.retries);
    let sending = async {
        let sending = send_with_retries(&source, &mut route, retries, Patience::default(), &on_progress);
        sending.await.map_err(Failure::failed)
    };
    let result = signals.unless(sending).await;
    let took = start.elapsed();
    meter.clear();
    drop(route);
    node.close().await;
    let sent = result?;
    let moved = match sent.moved {
        0 => "was there already".to_owned(),
        moved => {
            let (seconds, speed) = (took.as_secs_f64(), rate(moved, took));
            format!("{} sent of {} in {seconds:.2} s, {speed:.1} MiB/s", size(moved), size(source.size()))
        }
    };
    say(&format!(
        "stored as {:?}: {moved}, SHA-256 {} compared by the receiver",
        sent.stored_as,
        source.sum()
    ));
    Ok(())
}

/// Dials the address again when the connection is gone.
struct Redialling {
    node: Node,
    address: DialAddress,
}

impl Redialling {
    async fn peer(&self) -> Result<PeerId, SendError> {
        match self.address.peer_id() {
            Some(peer) if visitor::is_connected(&self.node, peer) => Ok(peer),
            _ => {
                let connecting = self.node.connect(&self.address).await;
                connecting.map_err(|error| SendError::Unreachable(error.to_string()))
            }
        }
    }
}

impl Route for Redialling {
    type Read = RecvStream;
    type Write = SendStream;

    async fn open(&mut self) -> Result<(RecvStream, SendStream), SendError> {
        let peer = self.peer().await?;
        files::open(&self.node, peer).await
    }
}
