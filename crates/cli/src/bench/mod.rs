//! `peerage bench`: how fast another node is, measured with what applications use.
//!
//! | module | subject |
//! | --- | --- |
//! | `work` | what can be measured |
//! | `measure` | doing it |
//! | `figures` | what it gave |
//! | `show` | progress |

mod figures;
mod measure;
mod show;
#[cfg(test)]
mod tests;
mod work;

use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use peerage::{Node, PeerId};

use crate::args::BenchArgs;
use crate::failure::Failure;
use crate::signals::Signals;
use crate::term::{right, say, table};
use crate::visitor;
use figures::{Gauge, Outcome};
use measure::{Client, Plan, Served};
use show::Line;
pub(crate) use work::Work;

/// What helps where a node does not serve our protocols.
const SERVE_BENCH: &str =
    "run that node with `peerage node --serve-bench`, or build it with NodeBuilder::serve_bench";
const ONLY_OURS: &str = "only Peerage nodes have it";
const SERVE_PERF: &str = "switch /perf/1.0.0 on at that node";

/// Carries out `peerage bench`.
pub(crate) async fn run(args: BenchArgs) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let node = visitor::start(&args.network).await?;
    let plan = Plan {
        bytes: args.mib << 20,
        messages: args.messages,
        requests: args.requests,
        within: Duration::from_secs(args.seconds),
    };
    let connecting = async { node.connect(&args.address).await.map_err(Failure::failed) };
    let peer = match signals.unless(connecting).await {
        Ok(peer) => peer,
        Err(failure) => {
            node.close().await;
            return Err(failure);
        }
    };
    if !args.json {
        say(&format!("connected to {}", visitor::about(&node, peer).await));
    }
    let mut rows = Rows::new(peer, args.json);
    let result = signals.unless(measure_all(&node, peer, plan, args.works, &mut rows)).await;
    rows.finish();
    node.close().await;
    result
}

/// Does the works that were asked for, or all, and keeps what each gave.
async fn measure_all(
    node: &Node,
    peer: PeerId,
    plan: Plan,
    asked: Vec<Work>,
    rows: &mut Rows,
) -> Result<(), Failure> {
    let client = Client::new(node, peer, plan).map_err(Failure::failed)?;
    let served = client.ask().await.map_err(Failure::failed)?;
    let works = if asked.is_empty() { Work::value_variants().to_vec() } else { asked };
    if !works.iter().any(|work| missing(*work, served).is_none()) {
        return Err(Failure::failed(nothing_served(peer, served, &works)));
    }
    rows.left = works.into_iter().rev().collect();
    let mut failure = None;
    while let Some(work) = rows.left.pop() {
        if let Some(remedy) = missing(work, served) {
            rows.end(work, Outcome::NotServed(remedy));
            continue;
        }
        let gauge = rows.begin(work);
        let outcome = match rows.line.follow(work, &plan, &gauge, client.measure(work, &gauge)).await {
            Ok(figure) => Outcome::Measured(figure),
            Err(error) => {
                failure.get_or_insert_with(|| {
                    Failure::failed(format!("{}, after {}: {error}", work.name(), gauge.reached(work)))
                });
                Outcome::Failed { error, reached: gauge.reached(work) }
            }
        };
        rows.end(work, outcome);
        if !visitor::is_connected(node, peer) {
            break;
        }
    }
    failure.map_or(Ok(()), Err)
}

/// What would help where the other side has nothing for a work.
fn missing(work: Work, served: Served) -> Option<&'static str> {
    match (work.is_perf(), served) {
        (true, Served { perf: true, .. }) | (false, Served { bench: true, .. }) => None,
        (true, Served { ours: false, .. }) => Some(SERVE_PERF),
        (false, Served { ours: false, .. }) => Some(ONLY_OURS),
        _ => Some(SERVE_BENCH),
    }
}

/// Why there is nothing to show, and what helps.
fn nothing_served(peer: PeerId, served: Served, works: &[Work]) -> String {
    let names: Vec<_> = works.iter().map(|work| work.name()).collect();
    let names = names.join(", ");
    match served {
        Served { perf: true, ours: false, .. } => {
            format!("{peer} serves nothing for {names}: {ONLY_OURS}; ask for perf-up, perf-down and perf-rtt")
        }
        Served { ours: false, .. } => format!("{peer} does not serve /perf/1.0.0: {SERVE_PERF}"),
        Served { perf: true, .. } => {
            format!(
                "{peer} serves nothing for {names}: {SERVE_BENCH}; or ask for perf-up, perf-down and perf-rtt"
            )
        }
        _ => format!("{peer} does not let itself be measured: {SERVE_BENCH}"),
    }
}

/// What has been measured, whatever happens meanwhile.
struct Rows {
    peer: PeerId,
    json: bool,
    line: Line,
    done: Vec<(Work, Outcome)>,
    /// The work under way, and how far it is.
    running: Option<(Work, Arc<Gauge>)>,
    /// What is to be done yet, the next one last.
    left: Vec<Work>,
}

impl Rows {
    fn new(peer: PeerId, json: bool) -> Self {
        Self { peer, json, line: Line::new(json), done: Vec::new(), running: None, left: Vec::new() }
    }

    fn begin(&mut self, work: Work) -> Arc<Gauge> {
        let gauge = Arc::<Gauge>::default();
        self.running = Some((work, gauge.clone()));
        gauge
    }

    fn end(&mut self, work: Work, outcome: Outcome) {
        self.running = None;
        if self.json {
            say(&outcome.json(work, self.peer).to_string());
        }
        self.line.tell(work, &outcome);
        self.done.push((work, outcome));
    }

    /// Accounts for what was not done to its end, and shows the table.
    fn finish(mut self) {
        if let Some((work, gauge)) = self.running.take() {
            self.end(work, Outcome::Interrupted { reached: gauge.reached(work) });
        }
        while let Some(work) = self.left.pop() {
            self.end(work, Outcome::NotRun);
        }
        let Self { done, json, line, .. } = self;
        // The moving line makes way for the table.
        drop(line);
        if json || done.is_empty() {
            return;
        }
        let mut table = table(&["work", "result", "p50", "p99", "moved", "time", ""]);
        right(&mut table, &[1, 2, 3, 4, 5]);
        for (work, outcome) in &done {
            let [result, p50, p99, moved, time, remark] = outcome.cells(*work);
            table.add_row([work.name().to_owned(), result, p50, p99, moved, time, remark]);
        }
        say(&table.trim_fmt());
    }
}
