//! The scenarios: what happens to a world, and what must hold afterwards. Tests run them small, the soak runs them small and large over many seeds.
//!
//! A scenario that injects faults asserts that they happened. With [`Plan::faults`] off it injects none, and must fail for that reason: so a scenario whose
//! faults have quietly stopped happening is found out (`tests/scenarios.rs`).

mod hostile;
mod intruder;
mod overlay;
mod priority;
mod traffic;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use peerage::{PeerEvent, PeerId};

use crate::failed::Failed;
use crate::run::{naming, simulate};
use crate::world::{SimNode, World};

/// One story with its rules.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// What `--scenario` takes.
    pub name: &'static str,
    /// What happens in it, in one line.
    pub about: &'static str,
    /// Whether it injects faults.
    pub has_faults: bool,
    /// Whether it has a larger form, for the soak.
    pub has_large: bool,
    run: fn(World, Plan) -> LocalBoxFuture<'static, Result<Report, Failed>>,
}

/// In which form a scenario runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The larger form.
    pub large: bool,
    /// Off only to prove that the scenario notices.
    pub faults: bool,
}

impl Plan {
    /// The form that the tests run.
    pub const SMALL: Plan = Plan { large: false, faults: true };
    /// The form that only the soak runs.
    pub const LARGE: Plan = Plan { large: true, faults: true };

    fn size(self, small: usize, large: usize) -> usize {
        if self.large { large } else { small }
    }
}

/// What a run measured, in the order of its telling.
pub type Report = Vec<(&'static str, f64)>;

/// How a run went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What it measured, or why it failed.
    pub result: Result<Report, Failed>,
    /// The hash over all that happened.
    pub hash: String,
    /// How long it took in the world.
    pub simulated: Duration,
    /// Packets sent in it.
    pub packets: u64,
}

/// Every scenario, in the order in which the soak runs them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "overlay",
        about: "50 nodes (100) that know one seed form an overlay within 30 s, none isolated",
        has_faults: false,
        has_large: true,
        run: |world, plan| Box::pin(overlay::forms(world, plan)),
    },
    Scenario {
        name: "partition",
        about: "the network falls into halves for 45 s, and heals",
        has_faults: true,
        has_large: true,
        run: |world, plan| Box::pin(overlay::partition(world, plan)),
    },
    Scenario {
        name: "hub",
        about: "a hub of 100 peers (200) is killed and restarted; all come back within 60 s, and not all at once",
        has_faults: true,
        has_large: true,
        run: |world, plan| Box::pin(overlay::hub(world, plan)),
    },
    Scenario {
        name: "rolling",
        about: "every node in turn is crashed or stopped, and started again",
        has_faults: true,
        has_large: true,
        run: |world, plan| Box::pin(overlay::rolling(world, plan)),
    },
    Scenario {
        name: "loss",
        about: "30 % of all packets are lost; messages arrive in order, each once",
        has_faults: true,
        has_large: false,
        run: |world, plan| Box::pin(traffic::loss(world, plan)),
    },
    Scenario {
        name: "slow-reader",
        about: "one of three readers stops reading; the others and its other channels don't notice",
        has_faults: true,
        has_large: false,
        run: |world, plan| Box::pin(traffic::slow_reader(world, plan)),
    },
    Scenario {
        name: "priority",
        about: "a bulk channel fills a path of 100 Mbit/s; a control channel stays fast, and bulk keeps its rate",
        has_faults: true,
        has_large: false,
        run: |world, plan| Box::pin(priority::priority(world, plan)),
    },
    Scenario {
        name: "clones",
        about: "two nodes run with one key; each is told once, and nothing flaps",
        has_faults: true,
        has_large: false,
        run: |world, plan| Box::pin(hostile::clones(world, plan)),
    },
    Scenario {
        name: "malicious",
        about: "a peer violates each protocol in turn; honest peers don't notice",
        has_faults: true,
        has_large: false,
        run: |world, plan| Box::pin(hostile::malicious(world, plan)),
    },
];

/// The scenario of a name.
pub fn scenario(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

impl Scenario {
    /// Runs it with one seed.
    pub fn run(&self, seed: u64, plan: Plan) -> Outcome {
        self.run_prepared(seed, plan, |_| ())
    }

    /// As [`Scenario::run`], in a world to which something is done first, such as [`SimNet::write_trace`](crate::SimNet::write_trace).
    pub fn run_prepared(&self, seed: u64, plan: Plan, prepare: impl FnOnce(&World)) -> Outcome {
        simulate(seed, async |world| {
            prepare(&world);
            let result = naming(self.name, (self.run)(world.clone(), plan)).await;
            Outcome { result, hash: world.hash(), simulated: world.now(), packets: world.counters().sent }
        })
    }
}

/// How many parts the overlay of these nodes has: 1 when each reaches every other over connections. A node that is down is a part of its own.
pub(crate) fn parts(nodes: &[SimNode]) -> usize {
    let places: BTreeMap<PeerId, usize> =
        nodes.iter().enumerate().map(|(place, node)| (node.peer_id(), place)).collect();
    let mut seen = vec![false; nodes.len()];
    let mut parts = 0;
    for start in 0..nodes.len() {
        if seen[start] {
            continue;
        }
        parts += 1;
        seen[start] = true;
        let mut waiting = vec![start];
        while let Some(at) = waiting.pop() {
            for next in nodes[at].connected().iter().filter_map(|peer| places.get(peer).copied()) {
                if !std::mem::replace(&mut seen[next], true) {
                    waiting.push(next);
                }
            }
        }
    }
    parts
}

/// How often any of these nodes told of an event of a kind.
pub(crate) fn count_events(nodes: &[SimNode], kind: impl Fn(&PeerEvent) -> bool) -> usize {
    nodes.iter().map(|node| node.events().iter().filter(|(_, event)| kind(event)).count()).sum()
}

pub(crate) fn is_disconnect(event: &PeerEvent) -> bool {
    matches!(event, PeerEvent::Disconnected { .. })
}

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
