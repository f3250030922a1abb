//! What channels count and hold, by the channel's name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Metric, MetricKind, Sample};
use crate::channel::{Counts, Levels, Sums};
use crate::error::SendError;
use crate::shared::Shared;

/// Channel names that are counted by themselves. What channels of more names count goes together, under [`OTHER_CHANNELS`].
pub const MAX_COUNTED_CHANNELS: usize = 64;
/// The name for the channels beyond [`MAX_COUNTED_CHANNELS`].
pub const OTHER_CHANNELS: &str = "(other)";

/// The counts of every channel that there was. They never go back: those of a channel that is gone stay in the sum of its name.
#[derive(Debug, Default)]
pub(crate) struct ChannelTable(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    live: Vec<(Arc<str>, Arc<Counts>)>,
    ended: BTreeMap<Arc<str>, Sums>,
}

impl ChannelTable {
    /// A channel was declared.
    pub(crate) fn begin(&self, name: &str, counts: Arc<Counts>) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.tidy();
        let name = table.name(name);
        table.ended.entry(name.clone()).or_default();
        table.live.push((name, counts));
    }

    fn read(&self) -> BTreeMap<Arc<str>, Sums> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.tidy();
        let mut sums = table.ended.clone();
        table
            .live
            .iter()
            .for_each(|(name, counts)| sums.entry(name.clone()).or_default().add(&counts.read()));
        sums
    }

    /// The name under which a channel is counted.
    fn label(&self, name: &str) -> Arc<str> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).name(name)
    }
}

impl Table {
    /// Every name that was ever counted stands among the sums.
    fn name(&self, name: &str) -> Arc<str> {
        match self.ended.get_key_value(name) {
            Some((known, _)) => known.clone(),
            None if self.ended.len() < MAX_COUNTED_CHANNELS => Arc::from(name),
            None => Arc::from(OTHER_CHANNELS),
        }
    }

    /// Adds up the channels whose counts nobody else holds any more.
    fn tidy(&mut self) {
        let Self { live, ended } = self;
        live.retain(|(name, counts)| {
            let is_live = Arc::strong_count(counts) > 1;
            if !is_live {
                ended.entry(name.clone()).or_default().add(&counts.read());
            }
            is_live
        });
    }
}

/// What the queues of one name hold.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    send: Levels,
    received_messages: usize,
    received_bytes: usize,
    received_fullness: f64,
    memory: usize,
}

fn held(shared: &Shared) -> BTreeMap<Arc<str>, Held> {
    let mut all: BTreeMap<Arc<str>, Held> = BTreeMap::new();
    for (outbox, levels) in shared.connected().iter().flat_map(|peer| peer.queue_levels()) {
        let send = &mut all.entry(shared.channel_counts.label(outbox.name())).or_default().send;
        send.queued_messages += levels.queued_messages;
        send.queued_bytes += levels.queued_bytes;
        send.in_flight_bytes += levels.in_flight_bytes;
        send.fullness = send.fullness.max(levels.fullness);
    }
    for core in shared.registry.channels() {
        let held = all.entry(shared.channel_counts.label(&core.config.name)).or_default();
        let levels = core.inbox.levels();
        held.received_messages += levels.messages;
        held.received_bytes += levels.bytes;
        held.received_fullness = held.received_fullness.max(core.inbox.fullness());
        held.memory += core.memory.used();
    }
    all
}

/// Builds one metric with a sample for each channel and value of another label.
fn by_channel<T>(
    of: &BTreeMap<Arc<str>, T>,
    (name, kind, help): (&'static str, MetricKind, &'static str),
    label: &'static str,
    values: impl Fn(&T) -> Vec<(&'static str, f64)>,
) -> Metric {
    let samples = of.iter().flat_map(|(channel, one)| {
        values(one).into_iter().map(move |(value_name, value)| {
            let mut labels = vec![("channel", channel.to_string())];
            if !label.is_empty() {
                labels.push((label, value_name.to_owned()));
            }
            Sample { labels, value }
        })
    });
    Metric { name, help, kind, samples: samples.collect() }
}

/// The metrics of channels.
pub(super) fn metrics(shared: &Shared) -> Vec<Metric> {
    use MetricKind::{Counter, Gauge};
    let (sums, held) = (shared.channel_counts.read(), held(shared));
    let f = |count: u64| count as f64;
    let refusals = |sums: &Sums| SendError::CAUSES.iter().copied().zip(sums.refused.map(f)).collect();
    vec![
        by_channel(
            &sums,
            (
                "peerage_channel_messages",
                Counter,
                "Messages handed to connections, and put into the receive queue",
            ),
            "direction",
            |sums| vec![("sent", f(sums.sent)), ("received", f(sums.received))],
        ),
        by_channel(
            &sums,
            ("peerage_channel_bytes", Counter, "Bytes of those, with the messages' lengths"),
            "direction",
            |sums| vec![("sent", f(sums.sent_bytes)), ("received", f(sums.received_bytes))],
        ),
        by_channel(
            &sums,
            (
                "peerage_channel_verdicts",
                Counter,
                "Queued messages whose fate is known: delivered, refused by the peer, dropped for newer ones, lost, or unknown after a break",
            ),
            "verdict",
            |sums| {
                vec![
                    ("delivered", f(sums.delivered)),
                    ("refused", f(sums.rejected)),
                    ("dropped", f(sums.dropped)),
                    ("lost", f(sums.lost)),
                    ("unknown", f(sums.unknown)),
                ]
            },
        ),
        by_channel(
            &sums,
            ("peerage_channel_refusals", Counter, "Messages that were not queued, by reason"),
            "reason",
            refusals,
        ),
        by_channel(
            &sums,
            ("peerage_channel_undecodable", Counter, "Messages received that could not be decoded"),
            "",
            |sums| vec![("", f(sums.undecodable))],
        ),
        by_channel(
            &sums,
            (
                "peerage_channel_refused_streams",
                Counter,
                "Streams of peers that this node refused, by reason",
            ),
            "reason",
            |sums| {
                vec![
                    ("too_many_streams", f(sums.too_many_streams)),
                    ("too_large", f(sums.too_large)),
                    ("violation", f(sums.violation)),
                    ("no_memory", f(sums.no_memory)),
                ]
            },
        ),
        by_channel(
            &held,
            (
                "peerage_channel_queued_messages",
                Gauge,
                "Messages that wait, to be sent and for the application",
            ),
            "queue",
            |held| {
                vec![("send", held.send.queued_messages as f64), ("receive", held.received_messages as f64)]
            },
        ),
        by_channel(&held, ("peerage_channel_queued_bytes", Gauge, "Bytes of those"), "queue", |held| {
            vec![("send", held.send.queued_bytes as f64), ("receive", held.received_bytes as f64)]
        }),
        by_channel(
            &held,
            (
                "peerage_channel_fullest_queue",
                Gauge,
                "The part of its bound that the fullest queue of a peer takes, from 0 to 1",
            ),
            "queue",
            |held| vec![("send", held.send.fullness), ("receive", held.received_fullness)],
        ),
        by_channel(
            &held,
            (
                "peerage_channel_in_flight_bytes",
                Gauge,
                "Bytes sent and not yet accepted by peers that say so",
            ),
            "",
            |held| vec![("", held.send.in_flight_bytes as f64)],
        ),
        by_channel(
            &held,
            (
                "peerage_channel_memory_bytes",
                Gauge,
                "Bytes that are accounted for, what was promised to peers included",
            ),
            "",
            |held| vec![("", held.memory as f64)],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    fn counts(sent: u64) -> Arc<Counts> {
        let counts = Arc::new(Counts::default());
        counts.sent.store(sent, Ordering::Relaxed);
        counts.refused(&SendError::QueueFull);
        counts
    }

    #[test]
    fn counts_of_channels_outlive_them_and_their_names_are_bounded() {
        let table = ChannelTable::default();
        for round in 0..3 {
            for number in 0..MAX_COUNTED_CHANNELS + 10 {
                // Each is gone at once, but for the last ones.
                let counts = counts(1);
                table.begin(&format!("/a/{number}/1"), counts.clone());
                if round == 2 {
                    std::mem::forget(counts);
                }
            }
        }
        let sums = table.read();
        assert_eq!(sums.len(), MAX_COUNTED_CHANNELS + 1);
        assert_eq!(sums[OTHER_CHANNELS].sent, 30);
        let queue_full = SendError::QueueFull.cause_number();
        for (name, sums) in sums.iter().filter(|(name, _)| ***name != *OTHER_CHANNELS) {
            assert_eq!((sums.sent, sums.refused[queue_full], sums.refused.iter().sum()), (3, 3, 3), "{name}");
        }
        assert_eq!(table.0.lock().unwrap().live.len(), MAX_COUNTED_CHANNELS + 10);
    }
}
