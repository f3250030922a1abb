//! The peer manager: events in, outputs out, beside 100 peers and beside 1,000.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use peerage_micro::Overlay;

const SIZES: [usize; 2] = [100, 1000];

/// A peer comes, is admitted, and leaves: four events.
fn come_and_go(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("manager/come-and-go");
    for peers in SIZES {
        let mut overlay = Overlay::new(peers);
        group.throughput(Throughput::Elements(4));
        group.bench_function(BenchmarkId::from_parameter(peers), |b| b.iter(|| overlay.come_and_go()));
    }
}

/// The event that comes most often: a round trip was measured.
fn measured(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("manager/measured");
    for peers in SIZES {
        let (mut overlay, mut number) = (Overlay::new(peers), 0);
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(peers), |b| {
            b.iter(|| {
                number += 1;
                assert_eq!(overlay.measured(number), 0, "nothing is to be done");
            });
        });
    }
}

/// The timer fires a tenth of a second later.
fn timeout(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("manager/timeout");
    for peers in SIZES {
        let mut overlay = Overlay::new(peers);
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(peers), |b| b.iter(|| black_box(overlay.timeout())));
    }
}

criterion_group! {
    name = benches;
    // Half a minute for all of `cargo bench -p peerage-micro`.
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(30);
    targets = come_and_go, measured, timeout
}
criterion_main!(benches);
