//! What becomes of messages when a machine is elsewhere from one moment to the next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use peerage::{Channel, ChannelConfig, Node, PeerId, Raw, Receipt, Verdict};

use crate::clock::{LIMIT, SECOND, pass};
use crate::network::{Machine, World};

const WILDCARD: &str = "/ip4/0.0.0.0/udp/4001/quic-v1";

async fn start(machine: &Arc<Machine>) -> (Node, Channel<Raw>) {
    let node = machine.node().max_outbound(0).listen(WILDCARD).start().await.unwrap();
    // So small that messages wait on both sides while nobody reads.
    let config = ChannelConfig::new("/numbers/1").max_message_bytes(2000).receive_queue(64 * 1024, 1000);
    let channel = node.channel::<Raw>(config).unwrap();
    (node, channel)
}

/// Sends numbers for so long, many at once, and gives the verdict on each. What is refused is not tried again.
async fn tell(channel: Channel<Raw>, to: PeerId, lasts: Duration) -> BTreeMap<u64, Verdict> {
    let end = tokio::time::Instant::now() + lasts;
    let (mut receipts, mut verdicts) = (Vec::<(u64, Receipt)>::new(), BTreeMap::new());
    let mut number = 0_u64;
    while tokio::time::Instant::now() < end {
        let mut body = number.to_be_bytes().to_vec();
        body.resize(1000, 0);
        let queued = tokio::time::timeout(SECOND, channel.queue_confirmed(to, &Raw(Bytes::from(body)))).await;
        match queued {
            Ok(Ok(receipt)) => receipts.push((number, receipt)),
            Ok(Err(error)) => drop(verdicts.insert(number, Verdict::Refused(error))),
            // Given up before it was queued.
            Err(_) => {}
        }
        number += 1;
        pass(Duration::from_millis(5)).await;
    }
    for (number, receipt) in receipts {
        let verdict = tokio::time::timeout(LIMIT, receipt).await;
        verdicts.insert(number, verdict.unwrap_or_else(|_| panic!("{number} never had a verdict")));
    }
    verdicts
}

/// Reads for ever; where `pauses`, not for two seconds from the seventh on.
async fn log_of(channel: Channel<Raw>, log: Arc<Mutex<Vec<u64>>>, pauses: bool) {
    let begin = tokio::time::Instant::now();
    while let Some((_, message)) = channel.recv().await {
        log.lock().unwrap().push(u64::from_be_bytes(message.0[..8].try_into().unwrap()));
        let since = begin.elapsed();
        if pauses && since > SECOND * 7 && since < SECOND * 9 {
            pass(SECOND * 9 - since).await;
        }
    }
}

/// The receiver's log and the sender's verdicts agree. How many were delivered, unknown and lost.
fn agree(case: &str, received: &[u64], verdicts: &BTreeMap<u64, Verdict>) -> [usize; 3] {
    assert!(received.is_sorted_by(|a, b| a < b), "{case}: in order, each once");
    let mut counts = [0; 3];
    for (number, verdict) in verdicts {
        let arrived = received.binary_search(number).is_ok();
        match verdict {
            Verdict::Delivered => {
                assert!(arrived, "{case}: {number} was delivered and never received");
                counts[0] += 1;
            }
            Verdict::Lost(_) | Verdict::Refused(_) => {
                assert!(!arrived, "{case}: {number} was received: {verdict}");
                counts[2] += 1;
            }
            Verdict::Unknown(_) => counts[1] += 1,
        }
    }
    counts
}

/// With full queues, or with messages on their way, the machine moves, and nothing leaves from, or arrives at, the old address any more. Whoever dialled: each message has
/// its verdict, the verdicts are true, order holds over both connections, and the channel goes on.
/// Contract C-3, C-4, C-5.
#[tokio::test(start_paused = true)]
async fn when_an_address_vanishes_every_message_has_a_true_verdict_and_order_holds() {
    let (stays, moves) = ("the one that stays", "the one that moves");
    for (who_dialled, pauses) in [(stays, true), (stays, false), (moves, true), (moves, false)] {
        let world = World::new();
        let machines = [world.machine(1, &["10.0.0.1"]), world.machine(2, &["10.0.0.2"])];
        let ((a, at_a), (b, at_b)) = (start(&machines[0]).await, start(&machines[1]).await);
        let (dialler, listener) = if who_dialled == stays { (&b, &a) } else { (&a, &b) };
        dialler.connect(&listener.listen_addresses()[0]).await.unwrap();
        pass(SECOND).await;
        let logs: [Arc<Mutex<Vec<u64>>>; 2] = [Arc::default(), Arc::default()];
        let reading = [(&at_a, &logs[0]), (&at_b, &logs[1])]
            .map(|(channel, log)| tokio::spawn(log_of(channel.clone(), log.clone(), pauses)));
        let moving = async {
            pass(SECOND * 8).await;
            machines[0].set_addresses(&["10.0.0.9"]);
            pass(SECOND * 20).await;
            machines[0].set_addresses(&["10.0.0.1"]);
        };
        let lasts = SECOND * 60;
        let (of_a, of_b, ()) = tokio::join!(
            tell(at_a.clone(), b.peer_id(), lasts),
            tell(at_b.clone(), a.peer_id(), lasts),
            moving
        );
        pass(SECOND * 40).await;
        for (way, log, verdicts) in [("to b", &logs[1], &of_a), ("to a", &logs[0], &of_b)] {
            let case = format!("{who_dialled} dialled, pauses: {pauses}, {way}");
            let counts = agree(&case, &log.lock().unwrap(), verdicts);
            println!("{case}: {counts:?} delivered, unknown, lost or refused");
            assert!(counts[0] > verdicts.len() / 2, "{case}: {counts:?} of {}", verdicts.len());
            let hit = counts[2] > 0 && (pauses || counts[1] > 0);
            assert!(hit || who_dialled == moves, "{case}: nothing was at stake: {counts:?}");
            let last = verdicts.iter().next_back().unwrap();
            assert!(last.1.is_delivered(), "{case}: the channel does not go on: {last:?}");
        }
        let seen = a.peers().get(b.peer_id()).map(|peer| peer.direction);
        assert!(seen.is_some() && b.peers().get(a.peer_id()).is_some(), "{who_dialled} dialled");
        reading.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
