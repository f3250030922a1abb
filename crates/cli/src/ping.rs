//! `peerage ping`: round trips to one node.

use std::time::Duration;

use peerage::Node;

use crate::args::PingArgs;
use crate::failure::Failure;
use crate::signals::Signals;
use crate::term::{ms, one_line, say};
use crate::visitor;

/// The time from one ping to the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// Carries out `peerage ping`.
pub(crate) async fn run(args: PingArgs) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let node = visitor::start(&args.network).await?;
    let mut tally = Tally::default();
    let result = signals.unless(ping(&node, &args, &mut tally)).await;
    if tally.sent > 0 {
        say(&tally.summary());
    }
    node.close().await;
    result?;
    if tally.times.is_empty() { Err(Failure::failed("no ping was answered")) } else { Ok(()) }
}

async fn ping(node: &Node, args: &PingArgs, tally: &mut Tally) -> Result<(), Failure> {
    let mut peer = node.connect(&args.address).await.map_err(Failure::failed)?;
    say(&format!("connected to {}", visitor::about(node, peer).await));
    let mut ticks = tokio::time::interval(INTERVAL);
    for n in 1..=args.count {
        ticks.tick().await;
        if !visitor::is_connected(node, peer) {
            match node.connect(&args.address).await {
                Ok(again) => peer = again,
                Err(error) => {
                    tally.sent += 1;
                    say(&format!("{n}: {}", one_line(&error.to_string())));
                    continue;
                }
            }
        }
        tally.sent += 1;
        match node.ping(peer).await {
            Ok(time) => {
                tally.times.push(time);
                say(&format!("{n}: {}", ms(time)));
            }
            Err(error) => say(&format!("{n}: {}", one_line(&error.to_string()))),
        }
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Tally {
    sent: usize,
    times: Vec<Duration>,
}

impl Tally {
    fn summary(&self) -> String {
        let lost = self.sent - self.times.len();
        let percent = 100.0 * lost as f64 / self.sent.max(1) as f64;
        let mut line = format!("{} sent, {} answered, {percent:.0} % lost", self.sent, self.times.len());
        if let (Some(min), Some(max)) = (self.times.iter().min(), self.times.iter().max()) {
            let mean = self.times.iter().sum::<Duration>().div_f64(self.times.len() as f64);
            line += &format!("; min {}, avg {}, max {}", ms(*min), ms(mean), ms(*max));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_what_was_lost() {
        let times = [1, 2, 6].map(Duration::from_millis).to_vec();
        let summary = Tally { sent: 4, times }.summary();
        assert_eq!(summary, "4 sent, 3 answered, 25 % lost; min 1.00 ms, avg 3.00 ms, max 6.00 ms");
        assert_eq!(Tally { sent: 1, times: vec![] }.summary(), "1 sent, 0 answered, 100 % lost");
    }
}
