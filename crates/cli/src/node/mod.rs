//! `peerage node`: a node in the foreground.

mod chat;
pub(crate) mod files;
mod service;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use peerage::Node;
use tokio::io::BufReader;

use crate::args::{Control, NodeArgs};
use crate::control::session::{self, End};
use crate::failure::Failure;
use crate::logging;
use crate::signals::Signals;
use crate::term::say;
use crate::transfer::inbox::{Inbox, Limits};
use service::Service;

/// A node that was told to stop has ended after so long, whatever its peers do.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Carries out `peerage node`.
pub(crate) async fn run(args: NodeArgs) -> Result<(), Failure> {
    logging::start(&args.log);
    let mut signals = Signals::listen()?;
    let data = data_dir(args.data.clone())?;
    let limits = Limits { max_bytes: args.inbox_max_bytes, ..Limits::default() };
    let inbox = args.inbox.as_deref().map(|folder| Inbox::open(folder, limits)).transpose();
    let inbox = inbox.map_err(Failure::failed)?;
    let node = start(&args, data).await?;
    let service = Service::start(&node, &args.moniker, inbox).await.map_err(Failure::failed)?;
    match args.control {
        None => {
            for address in node.listen_addresses() {
                say(&format!("listening {address}"));
            }
            let signal = signals.next().await;
            tracing::debug!(signal, "stopping");
        }
        Some(Control::Stdio) => obey(&service, &mut signals).await,
    }
    signals.exit_at_next();
    stop(service, node).await
}

async fn start(args: &NodeArgs, data: PathBuf) -> Result<Node, Failure> {
    let mut builder = Node::builder()
        .data_dir(data)
        .network(&args.network.name)
        .moniker(&args.moniker)
        .max_inbound(args.max_inbound.into())
        .max_outbound(args.max_outbound.into())
        .idle_timeout(Duration::from_secs(args.idle_timeout));
    for address in &args.listen {
        builder = builder.listen(address);
    }
    for address in &args.seed {
        builder = builder.seed(address);
    }
    for address in &args.persistent {
        builder = builder.persistent(address);
    }
    Ok(builder.start().await?)
}

/// Carries commands out until one says stop, their end comes without a detach before it, or a signal does.
async fn obey(service: &Arc<Service>, signals: &mut Signals) {
    let session = session::serve(service.clone(), BufReader::new(tokio::io::stdin()), tokio::io::stdout());
    tokio::select! {
        end = session => if end == (End::Input { detached: true }) {
            signals.next().await;
        },
        _ = signals.next() => {}
    }
}

async fn stop(service: Arc<Service>, node: Node) -> Result<(), Failure> {
    service.end();
    drop(service);
    match tokio::time::timeout(STOP_DEADLINE, node.close()).await {
        Ok(left) => {
            if left.lost_messages > 0 {
                tracing::warn!(messages = left.lost_messages, "messages were lost at the stop");
            }
            Ok(())
        }
        Err(_) => Err(Failure::failed(format!("the node did not stop within {} s", STOP_DEADLINE.as_secs()))),
    }
}

fn data_dir(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    given
        .or_else(|| absolute("XDG_DATA_HOME").map(|data| data.join("peerage")))
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share/peerage")))
        .ok_or_else(|| Failure::usage("neither XDG_DATA_HOME nor HOME is set: name a folder with --data DIR"))
}
