//! The study's scenarios of the DHT (dht.md D.2), each with its bars.

mod attacks;
mod beside;
mod calibration;
mod durability;
mod eclipse;
mod flood;
mod machines;
mod order;
mod publish;
mod runs;
mod still;
mod storm;

use super::policy::Kind;
use super::progress::Progress;
use super::report::Report;

/// How a scenario is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Number of nodes.
    pub nodes: usize,
    /// What all follows from.
    pub seed: u64,
    /// Whose rules are run beside each other, where a scenario compares.
    pub policies: Vec<Kind>,
    /// Lookups for each row, where a scenario does not say; fewer for a quick look.
    pub lookups: Option<u64>,
    /// How long, in simulated seconds, where a scenario goes on for hours; `None` for as long as the study says.
    pub seconds: Option<u64>,
    /// After how many simulated seconds a connection for questions ends that is not used, in the calibration; `None` for its own.
    pub idle_seconds: Option<u64>,
    /// Share of requests that lose a packet, on top of what the scenario says.
    pub loss: f64,
    /// Share of nodes that nobody can dial, in networks of whole machines.
    pub nat: f64,
    /// Whether the invariants are checked while it runs.
    pub checks: bool,
    /// Told how far it is.
    pub progress: Progress,
}

/// One of them.
#[derive(Debug)]
pub struct Scenario {
    /// Its number in the study.
    pub number: u32,
    /// What happens.
    pub title: &'static str,
    /// Number of nodes, unless told otherwise.
    pub nodes: usize,
    /// Whether the rules of other libraries run beside ours.
    pub compares: bool,
    run: fn(&Settings) -> Report,
}

/// Why the others have ours alone.
pub const ALONE: &str = "Ours alone: the other libraries' rules (dht.md A.2) say nothing of how nodes join, keep their tables and look after records, and there is nothing to compare without inventing it.";

impl Scenario {
    /// Runs it.
    pub fn run(&self, settings: &Settings) -> Report {
        (self.run)(settings)
    }
}

/// All that are there.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { number: 1, title: "quiet network", nodes: 10_000, compares: true, run: still::quiet },
    Scenario { number: 2, title: "15 % silent, 5 % slow", nodes: 10_000, compares: true, run: still::silent },
    Scenario {
        number: 3,
        title: "30 % silent, 10 % slow, at once",
        nodes: 10_000,
        compares: true,
        run: still::strike,
    },
    Scenario {
        number: 4,
        title: "50 % silent at once, 2 RTT",
        nodes: 10_000,
        compares: true,
        run: still::half_silent,
    },
    Scenario {
        number: 5,
        title: "steady churn, sessions Weibull (0.61, 3.66 h)",
        nodes: 10_000,
        compares: false,
        run: machines::churn,
    },
    Scenario {
        number: 7,
        title: "records outlive their publishers under churn",
        nodes: 500,
        compares: false,
        run: durability::survive,
    },
    Scenario {
        number: 8,
        title: "store, then get by strangers",
        nodes: 10_000,
        compares: true,
        run: publish::publish,
    },
    Scenario { number: 9, title: "Sybils around a key", nodes: 10_000, compares: true, run: attacks::sybils },
    Scenario {
        number: 10,
        title: "colluders everywhere",
        nodes: 10_000,
        compares: true,
        run: attacks::colluders,
    },
    Scenario {
        number: 11,
        title: "join with two hostile first contacts of three",
        nodes: 10_000,
        compares: false,
        run: eclipse::eclipse,
    },
    Scenario {
        number: 12,
        title: "join with a black-hole first contact",
        nodes: 40,
        compares: false,
        run: machines::black_hole,
    },
    Scenario { number: 13, title: "size estimate", nodes: 10_000, compares: false, run: machines::size },
    Scenario {
        number: 14,
        title: "writers race, clocks are wrong, the network is parted",
        nodes: 2_000,
        compares: false,
        run: order::order,
    },
    Scenario {
        number: 15,
        title: "a flood by one in a hundred",
        nodes: 2_000,
        compares: false,
        run: flood::flood,
    },
    Scenario { number: 25, title: "restart storm", nodes: 10_000, compares: false, run: storm::storm },
    Scenario {
        number: 28,
        title: "calibration: whole nodes on QUIC against this loop",
        nodes: 100,
        compares: false,
        run: calibration::calibrate,
    },
];

/// The one with this number.
pub fn scenario(number: u32) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.number == number)
}
