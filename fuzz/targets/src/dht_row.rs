//! A row of the DHT's table on the disk, and what a node makes of it.

use std::time::Duration;

use bytes::Bytes;
use peerage_dht::record::{Network, Records, RecordsConfig};
use peerage_dht::store::Change;
use peerage_dht::{AcceptAll, Dht, DhtConfig, Input, Mode, Output};
use peerage_machine::{Machine, Now, Random};
use sha2::{Digest, Sha256};

use crate::speaker;

/// How many times the node is looked at.
const STEPS: usize = 50;
/// The checksum with which a row ends.
const CHECKSUM_BYTES: usize = 8;

/// The row as it lies on the disk, but for its checksum, which is added: the length of its key in a byte, the key, the value. A node with a disk begins with it, runs for a while,
/// and writes what another one reads without finding damage.
pub fn run(data: &[u8]) {
    let Some((length, rest)) = data.split_first() else { return };
    let Some((key, value)) = rest.split_at_checked(usize::from(*length)) else { return };
    let sum = Sha256::new().chain_update(key).chain_update(value).finalize();
    let row = [value, &sum[..CHECKSUM_BYTES]].concat();
    let rows = vec![(Bytes::copy_from_slice(key), Bytes::from(row))];
    let mut now = Now { mono: Duration::from_secs(1), unix: Duration::from_secs(1_000) };
    let mut node = node(now);
    let restored = node.restore(now, rows);
    assert!(restored.records + restored.providers + restored.expired + restored.damaged <= 1);
    let mut written = Vec::new();
    for _ in 0..STEPS {
        assert_eq!(node.check(), Ok(()));
        while let Some(output) = node.poll_output() {
            match output {
                Output::Write(batch) => {
                    let number = batch.number;
                    written.extend(batch.changes);
                    node.handle(now, Input::Written { number, ok: true });
                }
                Output::Ask { request, .. } => {
                    node.handle(now, Input::Failed { request, why: peerage_dht::Failure::Unreachable });
                }
                _ => {}
            }
        }
        let Some(due) = node.poll_timeout() else { break };
        let passed = due.saturating_sub(now.mono).min(Duration::from_secs(86_400));
        now = Now { mono: now.mono + passed, unix: now.unix + passed };
        node.handle_timeout(now);
    }
    read_again(now, written);
}

fn node(now: Now) -> Dht {
    let peer = speaker().peer_id();
    let random = Random::from_number(1);
    let dht = Dht::new(DhtConfig::default(), peer, Mode::Server, Box::new(AcceptAll), random, now);
    let records = Records::new(Network::new("acme").expect("a good name"), RecordsConfig::default());
    dht.with_records(speaker(), records)
}

/// What a node has written, another one reads.
fn read_again(now: Now, written: Vec<Change>) {
    let put = |change: Change| match change {
        Change::Put { key, value } => Some((key, value)),
        Change::Delete { .. } => None,
    };
    let restored = node(now).restore(now, written.into_iter().filter_map(put).collect());
    assert_eq!(restored.damaged, 0, "{restored:?}");
}
