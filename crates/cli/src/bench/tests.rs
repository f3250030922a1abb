//! Nodes that measure one another, on simulated networks and virtual time; and a foreign one that has only libp2p's protocol.

use bytes::Bytes;
use peerage::bench::{RUN, STREAM};
use peerage::{BenchLimits, NodeBuilder, NodeKey, ReadError};
use peerage_sim::{Failed, Link, SimNode, World, ensure, seeds, simulate, transport_settings};
use peerage_transport::{Endpoint, EndpointConfig, StreamCode};
use peerage_wire::bench::{RunRequest, RunResponse};

use super::figures::Figure;
use super::measure::PATIENCE;
use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// Little of everything.
const LITTLE: Plan =
    Plan { bytes: 256 * 1024 + 3, messages: 500, requests: 130, within: Duration::from_secs(600) };

/// Runs a scenario with a measured node and one that measures, 20 ms apart, with each of three seeds.
fn play(
    configure: impl Fn(NodeBuilder) -> NodeBuilder + Send + Sync + Clone + 'static,
    scenario: impl AsyncFn(World, SimNode, Node) -> Result<(), Failed>,
) -> Result<(), Failed> {
    for seed in seeds(0..3) {
        let configure = configure.clone();
        simulate(seed, async |world| {
            world.default_link(Link::latency_ms(20));
            let settings = || transport_settings();
            let served = world
                .describe("served")
                .start(move |builder| configure(builder.transport_settings(settings())).max_outbound(0));
            let served = served.await?;
            let visitor = world.describe("visitor").dial_only().start(|builder| {
                builder.transport_settings(transport_settings()).max_outbound(0).idle_timeout(10 * SECOND)
            });
            let visitor = visitor.await?.node();
            visitor.connect(&served.address()).await?;
            scenario(world.clone(), served, visitor).await
        })
        .map_err(|error| Failed::new(format!("seed {seed}: {error}")))?;
    }
    Ok(())
}

fn rows(peer: PeerId) -> Rows {
    Rows { peer, json: false, line: Line::Silent, done: Vec::new(), running: None, left: Vec::new() }
}

/// Does these works, or all. What each gave, and what the whole ended with.
async fn measure(node: &Node, peer: PeerId, plan: Plan, works: &[Work]) -> (Rows, Result<(), String>) {
    let mut rows = rows(peer);
    let result = measure_all(node, peer, plan, works.to_vec(), &mut rows).await;
    (rows, result.map_err(|failure| format!("{failure:?}")))
}

impl Rows {
    fn figure(&self, work: Work) -> Result<&Figure, Failed> {
        match self.outcome(work)? {
            Outcome::Measured(figure) => Ok(figure),
            other => Err(Failed::new(format!("{}: {other:?}", work.name()))),
        }
    }

    fn outcome(&self, work: Work) -> Result<&Outcome, Failed> {
        let row = self.done.iter().find(|(done, _)| *done == work);
        row.map(|(_, outcome)| outcome).ok_or(Failed::new(format!("{} has no row", work.name())))
    }
}

#[test]
fn every_work_is_measured_whole_and_with_the_time_that_it_takes() -> Result<(), Failed> {
    play(NodeBuilder::serve_bench, async |_world, served, visitor| {
        let (rows, result) = measure(&visitor, served.peer_id(), LITTLE, &[]).await;
        result.map_err(Failed::new)?;
        let order: Vec<_> = rows.done.iter().map(|(work, _)| *work).collect();
        ensure!(order == Work::value_variants(), "{order:?}");
        for (work, bytes, items) in [
            (Work::Bulk1, LITTLE.bytes, 0),
            (Work::Bulk8, LITTLE.bytes, 0),
            (Work::Msgs64, 500 * 64, 500),
            (Work::Msgs1k, 256 * 1024, 256),
            (Work::Msgs64k, 256 * 1024, 4),
            (Work::Rtt, 130 * 32, 130),
            (Work::Rpc1, 130 * 32, 130),
            (Work::Rpc64, 130 * 32, 130),
            (Work::Streams, 130 * 64, 130),
            (Work::PerfUp, LITTLE.bytes, 0),
            (Work::PerfDown, LITTLE.bytes, 0),
            (Work::PerfRtt, 0, 130),
        ] {
            let figure = rows.figure(work)?;
            ensure!((figure.bytes, figure.items) == (bytes, items), "{}: {figure:?}", work.name());
            // There and back are 40 ms.
            ensure!(figure.time >= 2 * SECOND / 50, "{}: {figure:?}", work.name());
            ensure!(figure.losses.count() == 0, "{}: {figure:?}", work.name());
        }
        for work in [Work::Rtt, Work::Rpc1, Work::Rpc64, Work::Streams, Work::PerfRtt] {
            let (p50, p99) = rows.figure(work)?.quantiles.ok_or(Failed::new("no quantiles"))?;
            ensure!(
                p50 >= 2 * SECOND / 50 && p50 < SECOND / 5 && p99 >= p50,
                "{}: {p50:?}, {p99:?}",
                work.name()
            );
        }
        // 130 of them one by one, and in three rounds of 64.
        let (one, many) = (rows.figure(Work::Rpc1)?.time, rows.figure(Work::Rpc64)?.time);
        ensure!(one > 5 * SECOND && many < SECOND, "{one:?}, {many:?}");
        Ok(())
    })
}

#[test]
fn a_work_ends_when_its_time_is_up_and_tells_what_came() -> Result<(), Failed> {
    play(NodeBuilder::serve_bench, async |_world, served, visitor| {
        let plan = Plan { bytes: 1 << 40, messages: 1 << 40, requests: 1 << 40, within: SECOND / 4 };
        let works = [Work::Rtt, Work::Rpc1, Work::Rpc64, Work::Streams, Work::PerfRtt];
        let (rows, result) = measure(&visitor, served.peer_id(), plan, &works).await;
        result.map_err(Failed::new)?;
        for work in works {
            let figure = rows.figure(work)?;
            ensure!(figure.items > 0 && figure.time >= SECOND / 4, "{}: {figure:?}", work.name());
            ensure!(figure.time < SECOND, "{}: {figure:?}", work.name());
        }
        Ok(())
    })
}

#[test]
fn what_a_node_does_not_serve_has_a_row_that_says_so_or_an_error_with_the_remedy() -> Result<(), Failed> {
    play(NodeBuilder::serve_perf, async |_world, served, visitor| {
        let (rows, result) = measure(&visitor, served.peer_id(), LITTLE, &[]).await;
        result.map_err(Failed::new)?;
        for work in Work::value_variants() {
            match rows.outcome(*work)? {
                Outcome::Measured(_) => ensure!(work.is_perf(), "{}", work.name()),
                other => ensure!(!work.is_perf() && *other == Outcome::NotServed(SERVE_BENCH), "{other:?}"),
            }
        }
        let (rows, result) = measure(&visitor, served.peer_id(), LITTLE, &[Work::Rtt]).await;
        let error = result.err().ok_or(Failed::new("rtt was measured"))?;
        ensure!(error.contains("serves nothing for rtt") && error.contains("--serve-bench"), "{error}");
        ensure!(error.contains("perf-up") && rows.done.is_empty(), "{error}");
        Ok(())
    })?;
    play(
        |builder| builder,
        async |_world, served, visitor| {
            let (rows, result) = measure(&visitor, served.peer_id(), LITTLE, &[]).await;
            let error = result.err().ok_or(Failed::new("something was measured"))?;
            ensure!(
                error.contains("does not let itself be measured") && error.contains("--serve-bench"),
                "{error}"
            );
            ensure!(rows.done.is_empty(), "there are rows");
            Ok(())
        },
    )
}

#[test]
fn a_peer_that_goes_away_in_the_middle_leaves_the_rows_before_and_says_how_far_it_was() -> Result<(), Failed>
{
    play(NodeBuilder::serve_bench, async |world, served, visitor| {
        let (peer, start) = (served.peer_id(), world.now());
        let mut rows = rows(peer);
        let plan = Plan { requests: 1 << 40, ..LITTLE };
        let works = vec![Work::Msgs64, Work::Rpc1, Work::Streams];
        let crash = async {
            world.run_for(5 * SECOND).await;
            world.crash(&served);
            std::future::pending::<()>().await;
        };
        let result = tokio::select! {
            result = measure_all(&visitor, peer, plan, works, &mut rows) => result,
            () = crash => Ok(()),
        };
        let error = format!("{:?}", result.err().ok_or(Failed::new("no error"))?);
        ensure!(error.contains("rpc-1, after ") && error.contains(" requests: "), "{error}");
        ensure!(world.now() - start < 60 * SECOND, "it took {:?}", world.now() - start);
        rows.figure(Work::Msgs64)?;
        let failed = rows.outcome(Work::Rpc1)?.clone();
        ensure!(matches!(&failed, Outcome::Failed { reached, .. } if reached != "0 requests"), "{failed:?}");
        ensure!(rows.left == [Work::Streams], "what is left is not told: {:?}", rows.left);
        Ok(())
    })
}

/// Its QUIC still answers, so no idle timeout ends this.
#[test]
fn a_peer_that_stops_answering_is_given_up() -> Result<(), Failed> {
    play(
        |builder| builder,
        async |world, served, visitor| {
            let mute = served.node();
            mute.serve::<RunRequest, RunResponse, _, _>(RUN, |_, _| async { Ok(RunResponse::default()) })?;
            let unread = mute.accept(STREAM)?;
            let start = world.now();
            let (rows, result) =
                measure(&visitor, served.peer_id(), Plan { bytes: 1 << 30, ..LITTLE }, &[Work::Bulk1]).await;
            let error = result.err().ok_or(Failed::new("no error"))?;
            ensure!(error.contains("bulk-1, after ") && error.contains("has not answered"), "{error}");
            ensure!(world.now() - start < 4 * PATIENCE, "it took {:?}", world.now() - start);
            ensure!(matches!(rows.outcome(Work::Bulk1)?, Outcome::Failed { .. }), "it was measured");
            drop(unread);
            Ok(())
        },
    )
}

#[test]
fn a_limit_of_the_other_side_is_told_in_its_words() -> Result<(), Failed> {
    let configure = |builder: NodeBuilder| {
        let mut limits = BenchLimits::default();
        (limits.max_runs, limits.max_run_bytes) = (1, 200 * 1024);
        builder.serve_bench().bench_limits(limits)
    };
    play(configure, async |world, served, visitor| {
        let (rows, result) = measure(&visitor, served.peer_id(), LITTLE, &[Work::Rtt, Work::Bulk1]).await;
        let error = result.err().ok_or(Failed::new("no error"))?;
        ensure!(error.contains("bulk-1") && error.contains("bench.max_run_bytes"), "{error}");
        rows.figure(Work::Rtt)?;
        let (_, again) = measure(&visitor, served.peer_id(), LITTLE, &[Work::Rtt]).await;
        let error = again.err().ok_or(Failed::new("no error"))?;
        ensure!(error.contains("can't be measured now") && error.contains("try again in"), "{error}");
        // Its run is over; another peer's begins, and holds the only place.
        let [second, third] = ["second", "third"].map(|name| world.describe(name).dial_only());
        let [second, third] = [second.start(|builder| builder).await?, third.start(|builder| builder).await?];
        for node in [&second, &third] {
            node.node().connect(&served.address()).await?;
        }
        measure(&second.node(), served.peer_id(), LITTLE, &[Work::Rtt]).await.1.map_err(Failed::new)?;
        let (_, full) = measure(&third.node(), served.peer_id(), LITTLE, &[Work::Rtt]).await;
        let error = full.err().ok_or(Failed::new("no error"))?;
        ensure!(error.contains("measure already: 1,"), "{error}");
        Ok(())
    })
}

/// Streams that get lost are counted by reason, and the others measured.
#[test]
fn lost_streams_are_counted_and_named() -> Result<(), Failed> {
    play(
        |builder| builder,
        async |_world, served, visitor| {
            let odd = served.node();
            odd.serve::<RunRequest, RunResponse, _, _>(RUN, |_, _| async { Ok(RunResponse::default()) })?;
            let incoming = odd.accept(STREAM)?;
            tokio::spawn(async move {
                let mut number = 0u64;
                while let Some((_, mut stream)) = incoming.recv().await {
                    number += 1;
                    while let Ok(Some(_)) = stream.recv.read_chunk(1024).await {}
                    match number % 4 {
                        0 => stream.abort(StreamCode::Internal),
                        1 => {
                            let _ = stream.send.write_all(&63u64.to_be_bytes()).await;
                            let _ = stream.send.finish();
                        }
                        _ => {
                            let _ = stream.send.write_all(&64u64.to_be_bytes()).await;
                            let _ = stream.send.finish();
                        }
                    }
                }
            });
            let plan = Plan { requests: 100, ..LITTLE };
            let (rows, result) = measure(&visitor, served.peer_id(), plan, &[Work::Streams]).await;
            result.map_err(Failed::new)?;
            let figure = rows.figure(Work::Streams)?;
            ensure!((figure.items, figure.losses.count()) == (50, 50), "{figure:?}");
            let losses = figure.losses.to_string();
            ensure!(
                losses.contains("25 × of 64 bytes 63 arrived") && losses.contains("internal"),
                "{losses}"
            );
            Ok(())
        },
    )
}

/// A libp2p node that has `/perf/1.0.0` and nothing of ours, on loopback.
async fn foreign() -> (Endpoint, String) {
    let key = NodeKey::generate();
    let endpoint =
        Endpoint::bind(EndpointConfig::new(key.clone()), &["127.0.0.1:0".parse().unwrap()]).await.unwrap();
    let port = endpoint.local_addresses()[0].port();
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            let Ok(connection) = incoming.accept().await else { continue };
            connection.admit();
            tokio::spawn(async move {
                while let Ok(stream) = connection.accept_stream().await {
                    tokio::spawn(async move {
                        let Ok((_, mut stream)) =
                            stream.negotiate(|name| name == "/perf/1.0.0", 10 * SECOND).await
                        else {
                            return Ok(());
                        };
                        let mut all = Vec::new();
                        while let Some(chunk) = stream.recv.read_chunk(usize::MAX).await? {
                            all.extend_from_slice(&chunk);
                        }
                        let wanted = u64::from_be_bytes(all[..8].try_into().unwrap());
                        let _ = stream.send.write_chunk(Bytes::from(vec![0; wanted as usize])).await;
                        let _ = stream.send.finish();
                        Ok::<_, ReadError>(())
                    });
                }
            });
        }
    });
    (endpoint, format!("/ip4/127.0.0.1/udp/{port}/quic-v1/p2p/{}", key.peer_id()))
}

#[tokio::test]
async fn a_foreign_node_is_measured_with_what_it_has() {
    let (_endpoint, address) = foreign().await;
    let visitor = Node::builder().max_inbound(0).start().await.unwrap();
    let peer = visitor.connect(&address).await.unwrap();
    let (rows, result) = measure(&visitor, peer, LITTLE, &[]).await;
    result.unwrap();
    for work in Work::value_variants() {
        match rows.outcome(*work).unwrap() {
            Outcome::Measured(figure) => {
                assert!(work.is_perf() && figure.time > Duration::ZERO, "{figure:?}")
            }
            other => assert!(!work.is_perf() && *other == Outcome::NotServed(ONLY_OURS), "{other:?}"),
        }
    }
    assert_eq!(rows.figure(Work::PerfUp).unwrap().bytes, LITTLE.bytes);
    assert_eq!(rows.figure(Work::PerfDown).unwrap().bytes, LITTLE.bytes);
    let (_, result) = measure(&visitor, peer, LITTLE, &[Work::Bulk1]).await;
    let error = result.unwrap_err();
    assert!(error.contains("serves nothing for bulk-1") && error.contains("perf-up"), "{error}");
}
