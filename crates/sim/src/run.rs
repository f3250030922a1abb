//! Running a world: one thread, a paused clock, one seed; and what is printed when it fails.

use std::cell::Cell;
use std::future::Future;

use crate::world::World;

/// Runs a scenario in a world of its own, in virtual time, and returns what it returns. When it panics, the seed is printed with the command that replays it.
///
/// The runtime has one thread, timers and nothing else: a node that tried to use a real socket, a signal or a process would panic.
///
/// ```
/// use std::time::Duration;
/// use peerage_sim::{Failed, simulate};
///
/// simulate(7, async |world| {
///     let a = world.node("a", |builder| builder).await?;
///     let seed = a.address();
///     let b = world.node("b", move |builder| builder.seed(&seed)).await?;
///     world.until("both are connected", Duration::from_secs(5), || a.is_connected_to(&b)).await?;
///     world.crash(&a);
///     world.until("b has noticed", Duration::from_secs(60), || !b.is_connected_to(&a)).await?;
///     Ok::<_, Failed>(())
/// })?;
/// # Ok::<_, Failed>(())
/// ```
pub fn simulate<T>(seed: u64, scenario: impl AsyncFnOnce(World) -> T) -> T {
    let _named = NamedWhenItFails { seed };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without threads and sockets needs nothing of the system");
    runtime.block_on(async move {
        let world = World::new(seed);
        scenario(world).await
    })
}

/// The seeds that a test runs: those given, or the one in `PEERAGE_SIM_SEED`.
pub fn seeds(given: impl IntoIterator<Item = u64>) -> Vec<u64> {
    match std::env::var(SEED_VARIABLE).ok().and_then(|text| text.parse().ok()) {
        Some(seed) => vec![seed],
        None => given.into_iter().collect(),
    }
}

/// The command that runs a failed test again with its seed.
pub fn replay_command(seed: u64) -> String {
    if let Some(scenario) = NOW_RUNNING.get() {
        return format!("cargo run --release -p peerage-sim -- replay --scenario {scenario} --seed {seed}");
    }
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_else(|_| "peerage-sim".to_owned());
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").unwrap_or_default();
    format!("{SEED_VARIABLE}={seed} cargo test -p {package} {test}")
}

/// Says for this thread which scenario the soak runs, for the replay command.
pub(crate) async fn naming<T>(scenario: &'static str, work: impl Future<Output = T>) -> T {
    NOW_RUNNING.set(Some(scenario));
    let done = work.await;
    NOW_RUNNING.set(None);
    done
}

struct NamedWhenItFails {
    seed: u64,
}

impl Drop for NamedWhenItFails {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {} failed; to replay it: {}", self.seed, replay_command(self.seed));
        }
    }
}

thread_local! {
    static NOW_RUNNING: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Names the one seed to run.
const SEED_VARIABLE: &str = "PEERAGE_SIM_SEED";
