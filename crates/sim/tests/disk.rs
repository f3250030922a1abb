//! Whole nodes whose disk fails.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use peerage::dht::{Mode, NotStored};
use peerage::{DhtConfig, DhtError};
use peerage_sim::{Failed, SimNode, ensure, simulate};

const SECOND: Duration = Duration::from_secs(1);
/// What may wait for the holder's disk.
const MOST: usize = 8;

fn config(mode: Mode) -> DhtConfig {
    let mut config = DhtConfig::default().any_value("any");
    config.mode = Some(mode);
    config.limits.store.max_unwritten = MOST;
    config.limits.store.write_batch = MOST;
    config
}

/// Whether the only holder there is stores this; otherwise it must say that it is busy.
async fn is_stored(writer: &SimNode, number: usize) -> Result<bool, Failed> {
    match writer.node().dht().put_raw(format!("/any/{number}"), format!("value {number}")).await {
        Ok(_) => Ok(true),
        Err(DhtError::TooFewStored { report }) => {
            let busy = |why: &NotStored| matches!(why, NotStored::Busy);
            ensure!(!report.not_stored.is_empty(), "nobody was asked: {report}");
            ensure!(report.not_stored.iter().all(|(_, why)| busy(why)), "{report:?}");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// AL-43: what was accepted is written in the end, and no more is accepted than can wait for that.
#[test]
fn a_holder_whose_disk_fails_for_a_while_is_busy_when_too_much_waits_and_then_writes_it_all()
-> Result<(), Failed> {
    simulate(31, async |world| {
        let holder = world.node("holder", |builder| builder.dht(config(Mode::Server))).await?;
        let address = holder.address();
        let dial =
            move |builder: peerage::NodeBuilder| builder.dht(config(Mode::Client)).persistent(&address);
        let writer = world.node("writer", dial).await?;
        world.until("both are connected", 10 * SECOND, || writer.is_connected_to(&holder)).await?;
        ensure!(is_stored(&writer, 0).await?, "the disk works");
        world.until("it is on the disk", 5 * SECOND, || holder.rows_on_disk() >= 1).await?;
        let before = holder.rows_on_disk();

        holder.fail_disk(true);
        let mut stored = vec![0];
        for number in 1..3 * MOST {
            if is_stored(&writer, number).await? {
                stored.push(number);
            }
        }
        ensure!((MOST / 2..=MOST + 1).contains(&stored.len()), "{stored:?}");
        world.run_for(30 * SECOND).await;
        ensure!(!is_stored(&writer, 100).await?, "as much waits as before");
        ensure!(holder.rows_on_disk() == before, "the disk fails");

        holder.fail_disk(false);
        let written = || holder.rows_on_disk() >= before + stored.len() - 1;
        world.until("what has waited is on the disk", 5 * SECOND, written).await?;
        ensure!(is_stored(&writer, 101).await?, "nothing waits any more");
        stored.push(101);
        world.run_for(5 * SECOND).await;
        world.crash(&holder);
        world.run_for(SECOND).await;
        world.restart(&holder).await?;
        world.until("both are connected again", 60 * SECOND, || writer.is_connected_to(&holder)).await?;
        for number in stored {
            let (value, _) = writer.node().dht().get_raw(format!("/any/{number}")).await?;
            ensure!(value == format!("value {number}"), "{number}");
        }
        Ok(())
    })
}
