//! A channel's queue between the caller and the stream, and what the reader cuts out of the stream again.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use peerage::Raw;
use peerage::fuzzing::{ChannelQueue, channel_run};

/// A message's length, and how many are queued at a time: about 64 KiB.
const LOADS: [(usize, usize); 3] = [(64, 1000), (1024, 64), (64 * 1024, 1)];

/// Measures `work` on each load: it is given the queue, a message, and how many of them.
fn each_load<T>(
    criterion: &mut Criterion,
    name: &str,
    mut work: impl FnMut(&mut ChannelQueue, &Raw, usize) -> T,
) {
    let mut group = criterion.benchmark_group(name);
    for (length, count) in LOADS {
        let message = Raw(Bytes::from(vec![7; length]));
        let mut queue = ChannelQueue::default();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(length), |b| {
            b.iter(|| work(&mut queue, &message, count));
        });
    }
}

/// Messages are queued, then all are taken for one write.
fn push_and_take(criterion: &mut Criterion) {
    each_load(criterion, "queue/push-take", |queue, message, count| {
        (0..count).for_each(|_| queue.push(message));
        let (pieces, messages) = queue.take(usize::MAX);
        assert_eq!(messages, count);
        pieces
    });
}

/// Messages are queued, then taken in shares of 16 KiB, as a channel does that shares its path with others.
fn push_and_share(criterion: &mut Criterion) {
    each_load(criterion, "queue/push-share-16k", |queue, message, count| {
        (0..count).for_each(|_| queue.push(message));
        let mut left = count;
        while left > 0 {
            let (pieces, messages) = queue.take(16 * 1024);
            black_box(pieces);
            left -= messages;
        }
    });
}

/// What was read of a stream is cut into messages that share its buffer.
fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue/read");
    for (length, count) in LOADS {
        let mut queue = ChannelQueue::default();
        (0..count).for_each(|_| queue.push(&Raw(Bytes::from(vec![7; length]))));
        let run = Bytes::from(queue.take(usize::MAX).0.concat());
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(length), |b| {
            b.iter(|| {
                let messages = channel_run(&run).unwrap();
                assert_eq!(messages.map(black_box).count(), count);
            });
        });
    }
}

criterion_group! {
    name = benches;
    // Half a minute for all of `cargo bench -p peerage-micro`.
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(30);
    targets = push_and_take, push_and_share, read
}
criterion_main!(benches);
