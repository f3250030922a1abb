//! `peerage demo`: an overlay of real `peerage node` processes, commanded by JSON lines on stdin and stdout.
//!
//! The steps are in [`steps`], [`refusal`], [`resolve`] and [`restart`]; a process and what it tells in [`member`]; what the user sees in [`show`]. Whatever happens,
//! nothing is left behind: the nodes end when the demo does, because their stdin does, and their folder is removed.

mod member;
mod refusal;
mod resolve;
mod restart;
mod show;
mod steps;
mod story;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::args::DemoArgs;
use crate::failure::Failure;
use crate::signals::Signals;
use crate::transfer::source::Source;
use member::{Member, log_tail};
use show::Show;

/// The overlay's name.
const NETWORK: &str = "demo";

/// A connection is lost after so long without a packet: a killed node is noticed that soon.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// The nodes and where they live.
struct Fleet {
    folder: PathBuf,
    members: Vec<Member>,
}

/// Why a step failed, and at which node.
#[derive(Debug)]
struct Fault {
    message: String,
    node: Option<String>,
}

/// Carries out `peerage demo`.
pub(crate) async fn run(args: DemoArgs) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let show = Show::new(args.json);
    let folder = tempfile::Builder::new().prefix("peerage-demo-").tempdir();
    let folder =
        folder.map_err(|error| Failure::failed(format!("no temporary folder can be made: {error}")))?;
    let mut fleet = Fleet { folder: folder.path().to_owned(), members: Vec::new() };
    let result = signals.unless(perform(&args, &show, &mut fleet)).await;
    if result.is_ok() && args.keep {
        let _ = folder.keep();
        return Ok(());
    }
    for member in &mut fleet.members {
        member.kill().await;
    }
    result
}

async fn perform(args: &DemoArgs, show: &Show, fleet: &mut Fleet) -> Result<(), Failure> {
    let file = prepare(args, show).await?;
    let nodes = usize::from(args.nodes);
    show.say(&format!(
        "{nodes} nodes, each a process of its own; one that is killed is noticed after {} s without a packet from it",
        IDLE_TIMEOUT.as_secs()
    ));
    let mut summary = Vec::new();
    for step in steps::STEPS {
        show.begin(step);
        let start = tokio::time::Instant::now();
        let done = match step.action {
            steps::Action::Connect => steps::connect(fleet, nodes, show).await,
            steps::Action::File => steps::file(fleet, &file, show).await,
            steps::Action::Talk => steps::talk(fleet, show).await,
            steps::Action::Refusal => refusal::refusal(fleet, show).await,
            steps::Action::Resolve => resolve::resolve(fleet, show).await,
            steps::Action::Restart => restart::restart(fleet, show).await,
            steps::Action::Stop if args.keep => steps::keep(fleet, show).await,
            steps::Action::Stop => steps::stop(fleet).await,
        };
        match done {
            Ok(done) => {
                show.done(step, start.elapsed(), &done);
                summary.push((step, start.elapsed(), done.result));
            }
            Err(fault) => {
                show.failed(step, start.elapsed(), &fault.message);
                return Err(fault.into_failure(step, &fleet.folder));
            }
        }
    }
    show.summary(&summary);
    Ok(())
}

async fn prepare(args: &DemoArgs, show: &Show) -> Result<(PathBuf, Source), Failure> {
    let own =
        || std::env::current_exe().map_err(|error| Failure::failed(format!("this program is gone: {error}")));
    let path = args.file.clone().map_or_else(own, Ok)?;
    let path = std::path::absolute(&path).unwrap_or(path);
    let meter = show.meter(&path.display().to_string());
    let source = Source::prepare(&path, &|progress| meter.show(&progress)).await.map_err(Failure::failed)?;
    Ok((path, source))
}

impl Fleet {
    /// A fault of one of the nodes.
    fn fault(&self, member: usize, message: impl std::fmt::Display) -> Fault {
        let name = &self.members[member].plan.name;
        Fault { message: format!("{name}: {message}"), node: Some(name.clone()) }
    }

    /// The index of the node with this peer ID.
    fn find(&self, peer: &str) -> Option<usize> {
        self.members.iter().position(|member| member.status.peer_id == peer)
    }

    /// The name of the node with this peer ID, or the ID of a stranger.
    fn name_of<'a>(&'a self, peer: &'a str) -> &'a str {
        self.find(peer).map_or(peer, |index| &self.members[index].plan.name)
    }
}

impl Fault {
    fn into_failure(self, step: &steps::Step, folder: &Path) -> Failure {
        let failure =
            Failure::failed(format!("step {} ({}) failed: {}", step.number, step.name, self.message));
        match self.node {
            Some(node) => {
                let tail = log_tail(&folder.join(&node));
                failure.with_more(format!("the last lines of the log of {node}:\n{tail}"))
            }
            None => failure,
        }
    }
}
