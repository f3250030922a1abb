//! Every work on the smallest peer that there is: bare TCP, a connection for each stream.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use peerage_bench_peer::{
    Client, Dialler, Done, Drive, Ended, Io, Outcome, Peer, Served, Service, Work, drive, unsupported,
};
use tokio::net::{TcpListener, TcpStream};

struct Tcp {
    /// Messages on streams of their own that the server drops: every so many.
    drops: Option<u64>,
}

impl Peer for Tcp {
    const NAME: &'static str = "tcp";
    type Dialler = Tcp;

    fn new(_: &str) -> Outcome<Self> {
        Ok(Tcp { drops: None })
    }

    async fn serve(&self) -> Outcome<Served> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let service = Service::default();
        let drops = self.drops;
        let task = tokio::spawn(async move {
            let mut accepted = 0u64;
            while let Ok((stream, _)) = listener.accept().await {
                accepted += 1;
                // The first is the client's first exchange.
                if accepted > 2 && drops.is_some_and(|every| accepted.is_multiple_of(every)) {
                    continue;
                }
                let service = service.clone();
                tokio::spawn(async move { service.serve(Io::new(stream)).await });
            }
        });
        Ok(Served { address, keep: Box::new(task) })
    }

    async fn dialler(&self) -> Outcome<Tcp> {
        Ok(Tcp { drops: None })
    }
}

impl Dialler for Tcp {
    type Client = Connected;

    async fn connect(&self, address: &str) -> Outcome<Connected> {
        Ok(Connected { address: address.to_owned() })
    }
}

struct Connected {
    address: String,
}

impl Client for Connected {
    type Stream = Io<TcpStream>;

    async fn open(&self) -> Outcome<Io<TcpStream>> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        Ok(Io::new(stream))
    }
}

async fn driven(work: Work, amount: u64, peer: &Tcp) -> Outcome<Ended> {
    let server = peer.serve().await?;
    let what = Drive {
        addresses: vec![server.address.clone()],
        work,
        amount,
        joined: false,
        server: Some(std::process::id()),
        idle: Duration::from_millis(1),
        begun: Instant::now(),
    };
    Ok(drive(peer, "default", &what).await?.ended)
}

fn done(ended: Ended) -> Done {
    match ended {
        Ended::Done(done) => *done,
        Ended::DoesNotApply { why } | Ended::Failed { why } => panic!("{why}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_work_does_its_amount_and_tells_what_it_took() {
    for (work, amount) in [
        (Work::Bulk1, 3_000_001),
        (Work::Bulk8, 3_000_001),
        (Work::Messages64, 1001),
        (Work::Messages1k, 1001),
        (Work::Messages64k, 33),
        (Work::Rtt, 50),
        (Work::Rpc1, 50),
        (Work::Rpc64, 130),
        (Work::Streams, 130),
        (Work::Handshake1, 20),
        (Work::Handshake32, 40),
        (Work::Start, 1),
    ] {
        let done = done(driven(work, amount, &Tcp { drops: None }).await.unwrap());
        assert_eq!((done.amount, done.lost, done.unit), (amount, 0, work.unit()), "{work}");
        assert!(done.seconds > 0.0 && done.client_cpu.is_some() && done.server_cpu.is_some(), "{work}");
        let latency = matches!(work.name().split('-').next(), Some("rtt" | "rpc" | "handshake"));
        assert_eq!(done.latency.map(|latency| latency.samples), latency.then_some(amount), "{work}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_other_side_drops_is_counted_and_the_wait_for_it_is_not() {
    let begun = Instant::now();
    let done = done(driven(Work::Streams, 100, &Tcp { drops: Some(50) }).await.unwrap());
    assert_eq!((done.amount, done.lost), (100, 2));
    let all = begun.elapsed().as_secs_f64();
    assert!(done.seconds + 1.0 < all, "{} of {all} s", done.seconds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_library_does_not_have_does_not_apply() {
    for work in [Work::Fanout, Work::Prio] {
        let ended = driven(work, 10, &Tcp { drops: None }).await.unwrap();
        assert!(matches!(ended, Ended::DoesNotApply { .. }), "{work}: {ended:?}");
    }
    assert!(unsupported::<()>("there is nothing").unwrap_err().to_string().contains("does not apply"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_named_with_the_step() {
    let what = Drive {
        addresses: vec!["127.0.0.1:1".to_owned()],
        work: Work::Bulk1,
        amount: 10,
        joined: false,
        server: None,
        idle: Duration::ZERO,
        begun: Instant::now(),
    };
    let error = drive(&Tcp { drops: None }, "default", &what).await.unwrap_err().to_string();
    assert!(error.starts_with("a first exchange: "), "{error}");
}
