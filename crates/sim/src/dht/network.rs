//! The network of the study's model: how long a round trip takes, and who does not answer.

use super::queue::{MILLI, Micros, SECOND};
use super::stream::{Purpose, Stream};

/// The shape of the network: clusters on a plane, and each node's access line.
///
/// The defaults come within 8 % of the round trips of dht.md A.3, 136 ms at the median, 210 at p90, 245 at p95 and 275 at p99, and were chosen among shapes that do so
/// as the one in which the rules of rust-libp2p and go-libp2p come to the quiet rows of its table.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Centres of the clusters on the plane, in milliseconds of round trip.
    pub centres: Vec<(f64, f64)>,
    /// Share of the nodes in each cluster.
    pub weights: Vec<f64>,
    /// Standard deviation of a node's place around its cluster's centre, in milliseconds, along each axis.
    pub spread: f64,
    /// Median of the round trip that a node's access line adds, in milliseconds.
    pub access: f64,
    /// Standard deviation of its logarithm.
    pub access_spread: f64,
    /// The shortest round trip, in milliseconds.
    pub least: f64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            centres: vec![(37.6, 1.7), (40.3, -136.4), (89.9, -36.8), (-71.7, -49.1), (-66.4, 0.6)],
            weights: vec![1.0; 5],
            spread: 34.2,
            access: 9.06,
            access_spread: 0.383,
            least: 1.0,
        }
    }
}

/// Where a node is.
#[derive(Debug, Clone, Copy)]
struct Place {
    x: f32,
    y: f32,
    access: f32,
}

/// What a node does to requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Well,
    /// It answers half a second to three seconds late.
    Slow,
    /// It never answers, and nothing tells the asker.
    Silent,
}

/// Shares of nodes that fail, and of requests that lose a packet.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// Share of silent nodes.
    pub silent: f64,
    /// Share of slow nodes among those that are not silent.
    pub slow: f64,
    /// Share of requests that lose a packet, which costs three round trips, 200 ms at least.
    pub loss: f64,
}

/// Round trips between any two nodes.
#[derive(Debug, Clone)]
pub struct Network {
    places: Vec<Place>,
    least: f32,
    /// Every round trip is multiplied by this: 1.0, but in tests that stretch time.
    pub scale: f64,
}

impl Network {
    /// Places `nodes` nodes.
    pub fn new(seed: u64, nodes: usize, shape: &Shape) -> Self {
        let places = (0..nodes).map(|node| Place::draw(seed, node, shape)).collect();
        Self { places, least: shape.least as f32, scale: 1.0 }
    }

    /// Places one more node.
    pub fn push(&mut self, seed: u64, shape: &Shape) {
        self.places.push(Place::draw(seed, self.places.len(), shape));
    }

    /// The round trip between two nodes.
    pub fn round_trip(&self, a: u32, b: u32) -> Micros {
        let (a, b) = (self.places[a as usize], self.places[b as usize]);
        let way = (a.x - b.x).hypot(a.y - b.y) + a.access + b.access;
        (f64::from(way.max(self.least)) * MILLI as f64 * self.scale) as Micros
    }
}

impl Place {
    fn draw(seed: u64, node: usize, shape: &Shape) -> Self {
        let mut stream = Stream::new(seed, node as u64, Purpose::Places);
        let total: f64 = shape.weights.iter().sum();
        let mut rest = stream.unit() * total;
        let cluster = shape.weights.iter().position(|weight| {
            rest -= weight;
            rest < 0.0
        });
        let (x, y) = shape.centres[cluster.unwrap_or(0)];
        let x = x + shape.spread * stream.normal();
        let y = y + shape.spread * stream.normal();
        // Each end's line counts once in a round trip.
        let access = shape.access * (shape.access_spread * stream.normal()).exp();
        Self { x: x as f32, y: y as f32, access: access as f32 }
    }
}

/// How each node behaves, once failures have struck.
pub fn strike(seed: u64, nodes: usize, faults: Faults) -> Vec<Health> {
    let draw = |node| {
        let mut stream = Stream::new(seed, node as u64, Purpose::Faults);
        let (silent, slow) = (stream.chance(faults.silent), stream.chance(faults.slow));
        match (silent, slow) {
            (true, _) => Health::Silent,
            (false, true) => Health::Slow,
            (false, false) => Health::Well,
        }
    };
    (0..nodes).map(draw).collect()
}

/// What one request meets on its way, the same for every policy that sends it.
#[derive(Debug, Clone, Copy)]
pub struct Luck {
    /// How much later a slow node answers.
    pub late: Micros,
    /// Whether a packet is lost.
    pub lost: bool,
}

impl Luck {
    /// Of the request to `peer` in this lookup.
    pub fn draw(query: &Stream, peer: u32, faults: Faults) -> Self {
        let mut stream = query.part(u64::from(peer));
        let late = SECOND / 2 + (stream.unit() * 2.5 * SECOND as f64) as Micros;
        Self { late, lost: faults.loss > 0.0 && stream.chance(faults.loss) }
    }

    /// What it adds to a request of so many round trips.
    pub fn delay(self, health: Health, round_trip: Micros) -> Micros {
        let late = if health == Health::Slow { self.late } else { 0 };
        let lost = if self.lost { (3 * round_trip).max(200 * MILLI) } else { 0 };
        late + lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_have_the_percentiles_of_the_study() {
        for seed in [42, 1, 2] {
            let network = Network::new(seed, 10_000, &Shape::default());
            let mut stream = Stream::new(seed, 0, Purpose::Queries);
            let mut times: Vec<_> = (0..40_000)
                .map(|_| network.round_trip(stream.below(10_000) as u32, stream.below(10_000) as u32))
                .collect();
            times.sort_unstable();
            for (share, expected) in [(0.5, 136.0), (0.9, 210.0), (0.95, 245.0), (0.99, 275.0)] {
                let found = times[(times.len() as f64 * share) as usize] as f64 / MILLI as f64;
                assert!(
                    (found / expected - 1.0).abs() < 0.08,
                    "seed {seed}, {share}: {found} ms, not {expected}"
                );
            }
        }
    }

    #[test]
    fn failures_have_the_shares_that_were_asked_for() {
        let health = strike(5, 20_000, Faults { silent: 0.15, slow: 0.05, loss: 0.0 });
        let share = |kind| health.iter().filter(|health| **health == kind).count() as f64 / 20_000.0;
        assert!((share(Health::Silent) - 0.15).abs() < 0.01);
        assert!((share(Health::Slow) - 0.05 * 0.85).abs() < 0.006);
    }
}
