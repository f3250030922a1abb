//! Many lookups of one policy in a still network.

use super::figures::Figures;
use peerage_dht::DhtConfig;

use super::policy::{Goal, Kind, Ours};
use super::queue::{Micros, Trace};
use super::still::Still;
use super::walk::{Reach, Walked, walk};

/// Runs `count` lookups; query number `i` is the same for each policy.
pub fn run(
    world: &Still,
    kind: Kind,
    goal: Goal,
    reach: Reach,
    count: u64,
    trace: &mut Trace,
) -> Vec<Walked> {
    run_with(world, kind, goal, reach, count, &DhtConfig::default(), trace)
}

/// The same, ours with other settings than the defaults.
pub fn run_with(
    world: &Still,
    kind: Kind,
    goal: Goal,
    reach: Reach,
    count: u64,
    config: &DhtConfig,
    trace: &mut Trace,
) -> Vec<Walked> {
    (0..count)
        .map(|number| {
            let query = world.query(number);
            world.progress.lookup();
            match kind.rules(goal) {
                Some(mut others) => walk(world, &query, goal, reach, &mut *others, trace),
                None => {
                    let mut ours = Ours::new(world, &query, goal, reach, config);
                    in_time(walk(world, &query, goal, reach, &mut ours, trace), config)
                }
            }
        })
        .collect()
}

/// D.3-3: every lookup of ours ends by its deadline.
fn in_time(mut walked: Walked, config: &DhtConfig) -> Walked {
    if walked.took > config.lookup.interactive_deadline.as_micros() as Micros {
        walked.broken = walked.broken.or(Some("a lookup ended after its deadline"));
    }
    walked
}

/// What they came to.
pub fn figures(
    world: &Still,
    kind: Kind,
    goal: Goal,
    reach: Reach,
    count: u64,
    trace: &mut Trace,
) -> Figures {
    Figures::of(&run(world, kind, goal, reach, count, trace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookup_that_ends_late_is_told() {
        let config = DhtConfig::default();
        let took = |took| in_time(Walked { took, ..Walked::default() }, &config).broken;
        assert_eq!((took(10_000_000), took(10_000_001)), (None, Some("a lookup ended after its deadline")));
    }
}
