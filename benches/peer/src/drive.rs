//! Does one work once, and takes the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::report::{Done, Ended, Memory, Report};
use crate::stream::Kind;
use crate::usage::Usage;
use crate::{
    Client, Dialler, Echo, Latency, Messages, Negotiated, Outcome, Peer, SMALL, Unsupported, Work,
    handshakes, idle, within,
};

/// The longest that a connection may take.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(20);
/// The longest that the pings of one state of a connection may take; those that came count.
const PINGS_DEADLINE: Duration = Duration::from_secs(10);
/// How long a bulk channel fills the connection before the control channel is measured.
const FILL: Duration = Duration::from_millis(300);
/// Which of the saturated connections, one after the other, have equal priorities. A later one of a process differs from an earlier one by more than
/// the priority does, so either kind is measured at both ends.
const EQUAL_AT: [bool; 4] = [false, true, true, false];

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Drive {
    /// Where the servers are: one, or as many as the work connects to.
    pub addresses: Vec<String>,
    /// What.
    pub work: Work,
    /// How much of it.
    pub amount: u64,
    /// Whether the caller joins small messages.
    pub joined: bool,
    /// The server's process, whose processor time and memory are read.
    pub server: Option<u32>,
    /// How long connections are left alone before their memory is read.
    pub idle: Duration,
    /// When this process began.
    pub begun: Instant,
}

impl Drive {
    pub(crate) fn address(&self, index: usize) -> Outcome<&str> {
        let index = index % self.addresses.len().max(1);
        Ok(self.addresses.get(index).ok_or("no address was given")?)
    }
}

/// What a work came to, beside what the clocks say.
#[derive(Debug, Default)]
pub(crate) struct Came {
    pub(crate) amount: u64,
    pub(crate) lost: u64,
    /// For so long both sides only waited for what had been lost.
    pub(crate) waited: Duration,
    pub(crate) latency: Option<Latency>,
    pub(crate) phases: BTreeMap<String, Latency>,
    pub(crate) memory: Option<Memory>,
    pub(crate) negotiated: Negotiated,
}

/// Does one work once.
///
/// # Errors
/// What went wrong, and in which step. That a work does not apply is no error.
pub async fn drive<P: Peer>(peer: &P, form: &str, what: &Drive) -> Outcome<Report> {
    let ended = match measured(peer, what).await {
        Ok(done) => Ended::Done(Box::new(done)),
        Err(error) => match error.downcast::<Unsupported>() {
            Ok(unsupported) => Ended::DoesNotApply { why: unsupported.0 },
            Err(error) => return Err(error),
        },
    };
    let (peer, form) = (P::NAME.to_owned(), form.to_owned());
    Ok(Report { peer, form, work: what.work, joined: what.joined, ended })
}

async fn measured<P: Peer>(peer: &P, what: &Drive) -> Outcome<Done> {
    match what.work {
        Work::Handshake1 | Work::Handshake32 => return handshakes::run(peer, what).await,
        Work::Memory => return idle::run(peer, what).await,
        Work::Start => return start(peer, what).await,
        _ => {}
    }
    let dialler = within("the start of the client", CONNECT_DEADLINE, peer.dialler()).await?;
    match what.work {
        Work::Fanout => return fanout(&dialler, what).await,
        Work::Prio => return priorities(&dialler, what).await,
        _ => {}
    }
    let client = connect(&dialler, what.address(0)?).await?;
    let negotiated = client.negotiated();
    let client = Arc::new(client);
    // Both sides are ready, and whatever is lazily made is there.
    within("a first exchange", CONNECT_DEADLINE, settled(&*client, what.work)).await?;
    let usage = Usage::now(what.server);
    let came = match what.work {
        Work::Bulk1 | Work::Bulk8 => bulk(client, what).await?,
        Work::Messages64 | Work::Messages1k | Work::Messages64k => messages(&*client, what).await?,
        Work::Rtt => pings(&*client, what).await?,
        Work::Rpc1 | Work::Rpc64 => requests(client, what).await?,
        Work::Streams => streams(client, what).await?,
        Work::Handshake1 | Work::Handshake32 | Work::Memory | Work::Start | Work::Fanout | Work::Prio => {
            return Err("done above".into());
        }
    };
    Ok(done(what, usage, Came { negotiated, ..came }))
}

/// Reads the clocks at the end of the measured part.
pub(crate) fn done(what: &Drive, usage: Usage, came: Came) -> Done {
    let used = usage.since(what.server, came.waited);
    Done {
        amount: came.amount,
        unit: what.work.unit(),
        seconds: used.seconds,
        lost: came.lost,
        client_cpu: used.client,
        server_cpu: used.server,
        elsewhere: used.elsewhere,
        latency: came.latency,
        phases: came.phases,
        memory: came.memory,
        negotiated: came.negotiated,
    }
}

pub(crate) async fn connect<D: Dialler>(dialler: &D, address: &str) -> Outcome<D::Client> {
    within("the connection", CONNECT_DEADLINE, dialler.connect(address)).await
}

/// Exchanges something, in a way that every client has.
async fn settled<C: Client>(client: &C, work: Work) -> Outcome<()> {
    match work {
        Work::Rpc1 | Work::Rpc64 => client.request().await,
        _ => client.first_answer().await,
    }
}

/// Waits for all, and ends the others when one fails.
pub(crate) async fn all<T: 'static>(mut tasks: JoinSet<Outcome<T>>) -> Outcome<Vec<T>> {
    let mut values = Vec::with_capacity(tasks.len());
    while let Some(ended) = tasks.join_next().await {
        values.push(ended??);
    }
    Ok(values)
}

/// How much each of so many lanes does: all of the amount together.
pub(crate) fn share(amount: u64, lanes: u64, lane: u64) -> u64 {
    amount / lanes + u64::from(lane < amount % lanes)
}

async fn bulk<C: Client>(client: Arc<C>, what: &Drive) -> Outcome<Came> {
    let lanes = what.work.lanes();
    let mut tasks = JoinSet::new();
    for bytes in (0..lanes).map(|lane| share(what.amount, lanes, lane)).filter(|bytes| *bytes > 0) {
        let client = client.clone();
        tasks.spawn(async move { client.bulk(bytes).await });
    }
    all(tasks).await?;
    Ok(Came { amount: what.amount, ..Came::default() })
}

async fn messages<C: Client>(client: &C, what: &Drive) -> Outcome<Came> {
    let bytes = what.work.message_bytes();
    client.messages(Messages { count: what.amount, bytes, joined: what.joined }).await?;
    Ok(Came { amount: what.amount, ..Came::default() })
}

async fn pings<C: Client>(client: &C, what: &Drive) -> Outcome<Came> {
    let mut echo = client.echo().await?;
    let mut times = Vec::with_capacity(what.amount as usize);
    for _ in 0..what.amount {
        let start = Instant::now();
        echo.ping().await?;
        times.push(start.elapsed());
    }
    Ok(Came { amount: what.amount, latency: Latency::of(times), ..Came::default() })
}

async fn requests<C: Client>(client: Arc<C>, what: &Drive) -> Outcome<Came> {
    let lanes = what.work.lanes();
    let mut tasks = JoinSet::new();
    for count in (0..lanes).map(|lane| share(what.amount, lanes, lane)) {
        let client = client.clone();
        tasks.spawn(async move {
            let mut times = Vec::with_capacity(count as usize);
            for _ in 0..count {
                let start = Instant::now();
                client.request().await?;
                times.push(start.elapsed());
            }
            Ok(times)
        });
    }
    let times = all(tasks).await?.concat();
    Ok(Came { amount: what.amount, latency: Latency::of(times), ..Came::default() })
}

async fn streams<C: Client>(client: Arc<C>, what: &Drive) -> Outcome<Came> {
    let before = client.arrived(0).await?.count;
    let lanes = what.work.lanes();
    let mut tasks = JoinSet::new();
    for count in (0..lanes).map(|lane| share(what.amount, lanes, lane)) {
        let client = client.clone();
        tasks.spawn(async move {
            let message = Kind::OneWay.message(SMALL);
            for _ in 0..count {
                // A refusal is a loss, which is seen when the other side is asked what arrived.
                let _ = client.one_way(message.clone()).await;
            }
            Ok(())
        });
    }
    all(tasks).await?;
    let arrived = client.arrived(before + what.amount).await?;
    let lost = (before + what.amount).saturating_sub(arrived.count);
    let waited = if lost > 0 { arrived.since } else { Duration::ZERO };
    Ok(Came { amount: what.amount, lost, waited, ..Came::default() })
}

async fn fanout<D: Dialler>(dialler: &D, what: &Drive) -> Outcome<Done> {
    let mut clients = Vec::new();
    for address in &what.addresses {
        let client = connect(dialler, address).await?;
        within("a first exchange", CONNECT_DEADLINE, client.first_answer()).await?;
        clients.push(client);
    }
    let count = (what.amount / clients.len().max(1) as u64).max(1);
    let usage = Usage::now(what.server);
    dialler.broadcast(&clients, count, what.work.message_bytes()).await?;
    let amount = count * clients.len() as u64;
    let negotiated = clients.first().map(Client::negotiated).unwrap_or_default();
    Ok(done(what, usage, Came { amount, negotiated, ..Came::default() }))
}

/// The control channel of an idle connection, of connections that are saturated, and of such on which all have the same priority.
async fn priorities<D: Dialler>(dialler: &D, what: &Drive) -> Outcome<Done> {
    let client = connect(dialler, what.address(0)?).await?;
    within("a first exchange", CONNECT_DEADLINE, client.first_answer()).await?;
    let negotiated = client.negotiated();
    let usage = Usage::now(what.server);
    let mut beside = client.priorities(false).await?;
    let idle = while_open(&mut *beside.control, what.amount).await?;
    drop(beside);
    client.close().await;
    let mut loaded = [Vec::new(), Vec::new()];
    for (position, equal) in EQUAL_AT.into_iter().enumerate() {
        let client = connect(dialler, what.address(0)?).await?;
        within("a first exchange", CONNECT_DEADLINE, client.first_answer()).await?;
        let count = share(what.amount, 2, position as u64 / 2);
        loaded[usize::from(equal)].extend(while_saturated(client.priorities(equal).await?, count).await?);
        // What is still queued is not to be sent beside the next one.
        client.close().await;
    }
    let [busy, equal] = loaded.map(Latency::of);
    let all = [("idle", Latency::of(idle)), ("busy", busy), ("equal", equal)];
    let phases = all.map(|(name, latency)| Some((name.to_owned(), latency?))).into_iter().flatten();
    let phases: BTreeMap<_, _> = phases.collect();
    let amount = phases.values().map(|latency| latency.samples).sum();
    Ok(done(what, usage, Came { amount, latency: busy, phases, negotiated, ..Came::default() }))
}

async fn while_saturated(beside: crate::Priorities, count: u64) -> Outcome<Vec<Duration>> {
    let crate::Priorities { mut control, saturate } = beside;
    let mut load = JoinSet::new();
    load.spawn(saturate);
    tokio::time::sleep(FILL).await;
    tokio::select! {
        biased;
        ended = load.join_next() => Err(match ended {
            Some(Ok(Err(error))) => format!("the bulk channel ended: {error}").into(),
            _ => "the bulk channel ended before the control channel was measured".into(),
        }),
        times = while_open(&mut *control, count) => times,
    }
}

/// So many pings, or as many as there is time for.
async fn while_open(echo: &mut dyn Echo, count: u64) -> Outcome<Vec<Duration>> {
    let mut times = Vec::with_capacity(count as usize);
    let begin = Instant::now();
    while (times.len() as u64) < count && begin.elapsed() < PINGS_DEADLINE {
        let start = Instant::now();
        within("a ping", PINGS_DEADLINE, echo.ping()).await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

async fn start<P: Peer>(peer: &P, what: &Drive) -> Outcome<Done> {
    let usage = Usage::now(what.server);
    let dialler = within("the start of the client", CONNECT_DEADLINE, peer.dialler()).await?;
    let client = connect(&dialler, what.address(0)?).await?;
    within("the first answer", CONNECT_DEADLINE, client.first_answer()).await?;
    let seconds = what.begun.elapsed().as_secs_f64();
    let negotiated = client.negotiated();
    let done = done(what, usage, Came { amount: 1, negotiated, ..Came::default() });
    Ok(Done { seconds, ..done })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lanes_do_all_of_the_amount_together() {
        for (amount, lanes) in [(2 << 30, 8), (100, 64), (7, 8), (1, 1), (65, 64)] {
            let shares: Vec<u64> = (0..lanes).map(|lane| share(amount, lanes, lane)).collect();
            assert_eq!(shares.iter().sum::<u64>(), amount);
            let (least, most) = (shares.iter().min(), shares.iter().max());
            assert!(least.zip(most).is_some_and(|(least, most)| most - least <= 1), "{shares:?}");
        }
    }
}
