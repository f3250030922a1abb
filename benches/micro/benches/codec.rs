//! Framing: messages of a protocol written and read, and the chunks of a stream cut into messages.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use peerage_wire::chat::Chat;
use peerage_wire::frame::{self, Decoder};
use peerage_wire::uvarint;

const MOST: usize = 1 << 20;

/// A message with a text of so many bytes, in its frame.
fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec/encode");
    for length in [64, 1024] {
        let chat = Chat { id: 7, text: "x".repeat(length), ..Default::default() };
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(length), |b| {
            b.iter(|| frame::encode(black_box(&chat)))
        });
    }
}

/// The same message out of its frame.
fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec/decode");
    for length in [64, 1024] {
        let chat = Chat { id: 7, text: "x".repeat(length), ..Default::default() };
        let bytes = frame::encode(&chat);
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(length), |b| {
            b.iter(|| {
                let mut decoder = Decoder::new(MOST);
                decoder.push(bytes.clone());
                let read: Chat = decoder.next_message().unwrap().unwrap();
                assert_eq!(read.id, 7);
                read
            });
        });
    }
}

/// A chunk of 32 KiB that holds whole frames, cut into them without a copy.
fn cut(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec/cut-32k");
    for length in [64, 1024, 16 * 1024] {
        let (chunk, count) = frames(length, 32 * 1024);
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::from_parameter(length), |b| {
            b.iter(|| {
                let mut decoder = Decoder::new(MOST);
                decoder.push(chunk.clone());
                let mut found = 0;
                while let Some(frame) = decoder.next_frame().unwrap() {
                    found += u64::from(black_box(frame).len() == length);
                }
                assert_eq!(found, count);
            });
        });
    }
}

/// A frame of 64 KiB that comes in chunks of a packet's size: it is joined.
fn join(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec/join-packets");
    let (whole, _) = frames(64 * 1024, 64 * 1024 + 4);
    group.throughput(Throughput::Bytes(whole.len() as u64));
    group.bench_function("65536", |b| {
        b.iter(|| {
            let mut decoder = Decoder::new(MOST);
            let mut rest = whole.clone();
            while !rest.is_empty() {
                decoder.push(rest.split_to(rest.len().min(1200)));
                if let Some(frame) = decoder.next_frame().unwrap() {
                    assert_eq!(frame.len(), 64 * 1024);
                    return frame;
                }
            }
            unreachable!("the frame was whole");
        });
    });
}

/// As many frames of one length as fit into so many bytes, and how many they are.
fn frames(length: usize, most: usize) -> (Bytes, u64) {
    let framed = uvarint::len(length as u64) + length;
    let count = most / framed;
    let mut bytes = BytesMut::with_capacity(count * framed);
    for _ in 0..count {
        uvarint::put(length as u64, &mut bytes);
        bytes.resize(bytes.len() + length, 7);
    }
    (bytes.freeze(), count as u64)
}

criterion_group! {
    name = benches;
    // Half a minute for all of `cargo bench -p peerage-micro`.
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(30);
    targets = encode, decode, cut, join
}
criterion_main!(benches);
