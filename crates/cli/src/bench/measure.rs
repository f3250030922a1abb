//! Doing the works: with what `peerage::bench` names at a node that serves it, and with `/perf/1.0.0` at any libp2p node.
//!
//! A work ends when its amount is moved or its time is up, and counts what the other side has by then. Nothing is waited for without an end: each answer has
//! [`PATIENCE`], and a work as a whole is given up when nothing moves for as long.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage::bench::{COUNT, ECHO, MESSAGES, REQUEST, RUN, STREAM};
use peerage::{Channel, ChannelConfig, Node, PeerId, Raw, RequestError, Stream};
use peerage_wire::bench::{CountRequest, CountResponse, RunRequest, RunResponse};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::figures::{Figure, Gauge, Losses, quantiles};
use super::work::Work;

/// How long one answer is waited for, and how long nothing at all may move.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// What a work may take beyond its time, however much still moves: what was sent has to arrive.
const GRACE: Duration = Duration::from_secs(300);
/// A connection that moves less in [`PATIENCE`] is only kept alive, in bytes.
const LEAST_MOVED: u64 = 16 * 1024;
/// Bytes of one bulk write.
const CHUNK: usize = 64 * 1024;
/// What is sent, whatever it is.
static ZEROS: [u8; CHUNK] = [0; CHUNK];
/// Bytes of a ping and of a request.
const SMALL: usize = 32;
/// Bytes of the message that a stream is opened for.
const STREAM_MESSAGE: usize = 64;
/// Pings and requests before the first one that counts.
const WARM_UP: u64 = 10;
/// Requests, or streams, at a time.
const AT_A_TIME: usize = 64;
/// Exchanges of nothing with `/perf/1.0.0`.
const MAX_EXCHANGES: u64 = 1000;

/// How much of each work is done at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Bytes of a bulk work, and of the works of messages together.
    pub(crate) bytes: u64,
    /// Messages.
    pub(crate) messages: u64,
    /// Pings, requests, and streams.
    pub(crate) requests: u64,
    /// How long a work goes on at most.
    pub(crate) within: Duration,
}

impl Plan {
    /// How much of a work that is: items where the work counts them, else bytes.
    pub(super) fn most(&self, work: Work) -> u64 {
        match work {
            Work::Msgs64 | Work::Msgs1k | Work::Msgs64k => self.messages_of(length(work)),
            Work::PerfRtt => self.requests.min(MAX_EXCHANGES),
            _ if work.counts().is_some() => self.requests,
            _ => self.bytes,
        }
    }

    fn messages_of(&self, length: usize) -> u64 {
        self.messages.min(self.bytes / length as u64).max(1)
    }
}

/// The length of a message of a work of messages.
fn length(work: Work) -> usize {
    match work {
        Work::Msgs64k => 64 * 1024,
        Work::Msgs1k => 1024,
        _ => 64,
    }
}

/// What the other side can be measured with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served {
    pub(super) bench: bool,
    pub(super) perf: bool,
    /// It is a Peerage node.
    pub(super) ours: bool,
}

/// The side that measures.
#[derive(Debug, Clone)]
pub(super) struct Client {
    node: Node,
    peer: PeerId,
    plan: Plan,
    messages: Channel<Raw>,
    echo: Channel<Raw>,
}

impl Client {
    pub(super) fn new(node: &Node, peer: PeerId, plan: Plan) -> Result<Self, String> {
        let channel = |name: &str| {
            node.channel::<Raw>(ChannelConfig::new(name).linger(Duration::ZERO)).map_err(|e| e.to_string())
        };
        Ok(Self { messages: channel(MESSAGES)?, echo: channel(ECHO)?, node: node.clone(), peer, plan })
    }

    /// Asks what the other side serves.
    ///
    /// # Errors
    /// When it serves it and does not let itself be measured now, or says nothing.
    pub(super) async fn ask(&self) -> Result<Served, String> {
        let info = self.node.peers().get(self.peer).ok_or_else(|| self.is_gone())?;
        let bench = !info.foreign && self.begin().await?;
        let nothing = self.node.perf_within(self.peer, 0, 0, PATIENCE, |_| {});
        let perf = match timeout(PATIENCE, nothing).await {
            Ok(Ok(_)) => true,
            Ok(Err(RequestError::NotSupported { .. })) => false,
            // Beside works that can be done, its own rows tell what is wrong with it.
            _ if bench => true,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(self.is_silent("/perf/1.0.0")),
        };
        Ok(Served { bench, perf, ours: !info.foreign })
    }

    /// Asks for a run. False where there is no such thing.
    async fn begin(&self) -> Result<bool, String> {
        let asking =
            self.node.request_within::<_, RunResponse>(self.peer, RUN, &RunRequest {}, PATIENCE).await;
        match asking {
            Ok(_) => Ok(true),
            Err(RequestError::NotSupported { .. }) => Ok(false),
            Err(RequestError::Overloaded { text, retry_after, .. }) => {
                let when = retry_after.map(|wait| format!(": try again in {} s", wait.as_secs().max(1)));
                Err(format!("{} can't be measured now: {text}{}", self.peer, when.unwrap_or_default()))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Does a work.
    ///
    /// # Errors
    /// What it failed with, in words.
    pub(super) async fn measure(&self, work: Work, gauge: &Arc<Gauge>) -> Result<Figure, String> {
        if !work.is_perf() && !self.begin().await? {
            return Err(format!("{} no longer serves {RUN}", self.peer));
        }
        let working = async {
            match work {
                Work::Bulk1 => self.bulk(1, gauge).await,
                Work::Bulk8 => self.bulk(8, gauge).await,
                Work::Msgs64 | Work::Msgs1k | Work::Msgs64k => self.send(length(work), gauge).await,
                Work::Rtt => self.ping_pong(gauge).await,
                Work::Rpc1 => self.ask_each(1, gauge).await,
                Work::Rpc64 => self.ask_each(AT_A_TIME, gauge).await,
                Work::Streams => self.each(One::Stream, AT_A_TIME, STREAM_MESSAGE, gauge).await,
                Work::PerfUp | Work::PerfDown => self.perf(work == Work::PerfUp, gauge).await,
                Work::PerfRtt => self.exchange_nothing(gauge).await,
            }
        };
        let result = self.while_moving(gauge, working).await;
        // A stream is refused without words: those are in the answer to the request for a run.
        match result {
            Err(error) if !work.is_perf() && self.node.peers().get(self.peer).is_some() => {
                self.begin().await?;
                Err(error)
            }
            result => result,
        }
    }

    /// Runs `working` as long as it, or the connection, gets anywhere.
    async fn while_moving(
        &self,
        gauge: &Gauge,
        working: impl Future<Output = Result<Figure, String>>,
    ) -> Result<Figure, String> {
        let (mut working, start) = (pin!(working), Instant::now());
        let mut before = (gauge.read(), self.moved());
        loop {
            if let Ok(result) = timeout(PATIENCE, &mut working).await {
                return result;
            }
            let now = (gauge.read(), self.moved());
            let still = now.0 == before.0 && now.1 < before.1 + LEAST_MOVED;
            if self.node.peers().get(self.peer).is_none() {
                return Err(self.is_gone());
            }
            if still || start.elapsed() > self.plan.within + GRACE {
                return Err(self.is_silent("any of it"));
            }
            before = now;
        }
    }

    /// Bytes on the path, both ways.
    fn moved(&self) -> u64 {
        self.node
            .peers()
            .stats(self.peer)
            .map_or(0, |stats| stats.path.sent_bytes + stats.path.received_bytes)
    }

    fn is_gone(&self) -> String {
        format!("the connection to {} is lost", self.peer)
    }

    fn is_silent(&self, what: &str) -> String {
        format!("{} has not answered {what} for {} s", self.peer, PATIENCE.as_secs())
    }

    async fn bulk(&self, streams: u64, gauge: &Arc<Gauge>) -> Result<Figure, String> {
        let (mut tasks, start) = (JoinSet::new(), Instant::now());
        for number in 0..streams {
            let bytes = self.plan.bytes / streams + u64::from(number < self.plan.bytes % streams);
            let (client, gauge) = (self.clone(), gauge.clone());
            tasks.spawn(async move { client.upload(bytes, start, &gauge).await });
        }
        let mut bytes = 0;
        while let Some(uploaded) = tasks.join_next().await {
            bytes += uploaded.map_err(|error| error.to_string())??;
        }
        Ok(Figure { bytes, time: start.elapsed(), ..Figure::default() })
    }

    /// Sends so many bytes on a stream, or as many as the time allows, and hears how many came.
    async fn upload(&self, bytes: u64, start: Instant, gauge: &Gauge) -> Result<u64, String> {
        let mut stream = self.node.open(self.peer, STREAM).await.map_err(|error| error.to_string())?;
        let (mut sent, chunk) = (0, Bytes::from_static(&ZEROS));
        while sent < bytes && start.elapsed() < self.plan.within {
            let part = chunk.slice(..(bytes - sent).min(CHUNK as u64) as usize);
            let length = part.len() as u64;
            if stream.send.write_chunk(part).await.is_err() {
                break;
            }
            sent += length;
            gauge.add(0, length);
        }
        let _ = stream.send.finish();
        counted(&mut stream, sent).await
    }

    async fn send(&self, length: usize, gauge: &Arc<Gauge>) -> Result<Figure, String> {
        let most = self.plan.messages_of(length);
        let before = self.count(0).await?;
        let message = Raw(Bytes::from_static(&ZEROS[..length]));
        let sender = self.messages.to(self.peer).map_err(|error| error.to_string())?;
        let (mut sent, start) = (0, Instant::now());
        while sent < most && (sent % 64 != 0 || start.elapsed() < self.plan.within) {
            sender.send(&message).await.map_err(|error| error.to_string())?;
            sent += 1;
            gauge.add(1, length as u64);
        }
        let mut arrived = 0;
        while arrived < sent {
            let now = self.count(before + sent).await?.saturating_sub(before);
            if now == arrived {
                return Err(format!("of {sent} messages {arrived} arrived"));
            }
            arrived = now;
        }
        Ok(Figure { bytes: sent * length as u64, items: sent, time: start.elapsed(), ..Figure::default() })
    }

    /// How many messages of this run have come, at the latest when it is so many.
    async fn count(&self, messages: u64) -> Result<u64, String> {
        let asked = CountRequest { messages };
        let count = self.node.request_within::<_, CountResponse>(self.peer, COUNT, &asked, PATIENCE).await;
        count.map(|count| count.messages).map_err(|error| error.to_string())
    }

    async fn ping_pong(&self, gauge: &Arc<Gauge>) -> Result<Figure, String> {
        let sender = self.echo.to(self.peer).map_err(|error| error.to_string())?;
        let (mut times, mut start) = (Vec::new(), Instant::now());
        for number in 0..self.plan.requests + WARM_UP {
            if number == WARM_UP {
                start = Instant::now();
            }
            if number > WARM_UP && start.elapsed() >= self.plan.within {
                break;
            }
            let mut ping = [0; SMALL];
            ping[..8].copy_from_slice(&number.to_be_bytes());
            let (ping, sent) = (Raw(Bytes::copy_from_slice(&ping)), Instant::now());
            let pong = async {
                sender.send(&ping).await.map_err(|error| error.to_string())?;
                loop {
                    match self.echo.recv().await {
                        // One that comes late, after a work that was given up, is nobody's.
                        Some((from, pong)) if from != self.peer || pong != ping => {}
                        Some(_) => return Ok(()),
                        None => return Err("this node has stopped".to_owned()),
                    }
                }
            };
            timeout(PATIENCE, pong).await.map_err(|_| self.is_silent("a message"))??;
            if number >= WARM_UP {
                times.push(sent.elapsed());
                gauge.add(1, SMALL as u64);
            }
        }
        Ok(timed(times, SMALL, start))
    }

    async fn ask_each(&self, at_a_time: usize, gauge: &Arc<Gauge>) -> Result<Figure, String> {
        for _ in 0..WARM_UP {
            self.request().await?;
        }
        self.each(One::Request, at_a_time, SMALL, gauge).await
    }

    async fn request(&self) -> Result<(), String> {
        let question = Raw(Bytes::from_static(&ZEROS[..SMALL]));
        let answer = self.node.request_within::<_, Raw>(self.peer, REQUEST, &question, PATIENCE).await;
        match answer {
            Ok(answer) if answer == question => Ok(()),
            Ok(_) => Err(format!("{} answered something else than it was asked", self.peer)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// One stream with one message, which the other side has to have counted.
    async fn open_one(&self) -> Result<(), String> {
        let mut stream = self.node.open(self.peer, STREAM).await.map_err(|error| error.to_string())?;
        let _ = stream.send.write_chunk(Bytes::from_static(&ZEROS[..STREAM_MESSAGE])).await;
        let _ = stream.send.finish();
        counted(&mut stream, STREAM_MESSAGE as u64).await.map(|_| ())
    }

    /// Does as many of these as the plan says, so many at a time, and takes the time of each.
    async fn each(
        &self,
        one: One,
        at_a_time: usize,
        length: usize,
        gauge: &Arc<Gauge>,
    ) -> Result<Figure, String> {
        let (begun, start) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let mut tasks = JoinSet::new();
        for _ in 0..at_a_time {
            let (client, gauge, begun) = (self.clone(), gauge.clone(), begun.clone());
            tasks.spawn(async move {
                let (mut times, mut losses) = (Vec::new(), Losses::default());
                while begun.fetch_add(1, Ordering::Relaxed) < client.plan.requests
                    && start.elapsed() < client.plan.within
                {
                    let sent = Instant::now();
                    match client.do_one(one).await {
                        Ok(()) => times.push(sent.elapsed()),
                        Err(Fault::Loss(reason)) => losses.add(&reason),
                        Err(Fault::Ends(reason)) => return Err(reason),
                    }
                    gauge.add(1, length as u64);
                }
                Ok((times, losses))
            });
        }
        let (mut times, mut losses) = (Vec::new(), Losses::default());
        while let Some(done) = tasks.join_next().await {
            let (of_one, lost) = done.map_err(|error| error.to_string())??;
            times.extend(of_one);
            losses.merge(lost);
        }
        Ok(Figure { losses, ..timed(times, length, start) })
    }

    async fn do_one(&self, one: One) -> Result<(), Fault> {
        if one == One::Request {
            return self.request().await.map_err(Fault::Ends);
        }
        let sent = timeout(PATIENCE, self.open_one()).await;
        let sent = sent.unwrap_or_else(|_| Err(self.is_silent("a stream")));
        // What gets lost is counted; where no connection is, there is nothing to count.
        let is_here = self.node.peers().get(self.peer).is_some();
        sent.map_err(if is_here { Fault::Loss } else { Fault::Ends })
    }

    async fn perf(&self, up: bool, gauge: &Arc<Gauge>) -> Result<Figure, String> {
        let (upload, download) = if up { (self.plan.bytes, 0) } else { (0, self.plan.bytes) };
        let told = gauge.clone();
        let perf = self.node.perf_within(self.peer, upload, download, self.plan.within, move |bytes| {
            told.set_bytes(bytes);
        });
        let times = perf.await.map_err(|error| error.to_string())?;
        let bytes = times.uploaded + times.downloaded;
        Ok(Figure { bytes, time: times.upload + times.download, ..Figure::default() })
    }

    async fn exchange_nothing(&self, gauge: &Arc<Gauge>) -> Result<Figure, String> {
        let (mut times, start) = (Vec::new(), Instant::now());
        while (times.len() as u64) < self.plan.requests.min(MAX_EXCHANGES)
            && start.elapsed() < self.plan.within
        {
            let exchange = self.node.perf_within(self.peer, 0, 0, PATIENCE, |_| {});
            let exchanged = timeout(PATIENCE, exchange).await.map_err(|_| self.is_silent("/perf/1.0.0"))?;
            let took = exchanged.map_err(|error| error.to_string())?;
            times.push(took.upload + took.download);
            gauge.add(1, 0);
        }
        Ok(timed(times, 0, start))
    }
}

/// What many of are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum One {
    Request,
    Stream,
}

/// What became of one of many.
enum Fault {
    /// It got lost; the next one may not.
    Loss(String),
    /// There is no next one.
    Ends(String),
}

/// What a work gave that counts single ones of such a length.
fn timed(times: Vec<Duration>, length: usize, start: Instant) -> Figure {
    let items = times.len() as u64;
    Figure {
        items,
        bytes: items * length as u64,
        time: start.elapsed(),
        quantiles: quantiles(times),
        losses: Losses::default(),
    }
}

/// How many bytes of a stream the other side has counted, which must be all.
async fn counted(stream: &mut Stream, sent: u64) -> Result<u64, String> {
    let mut answer = Vec::with_capacity(8);
    while let Some(chunk) = stream.recv.read_chunk(8).await.map_err(|error| error.to_string())? {
        answer.extend_from_slice(&chunk);
        if answer.len() > 8 {
            break;
        }
    }
    match answer.try_into().map(u64::from_be_bytes) {
        Ok(counted) if counted == sent => Ok(counted),
        Ok(counted) => Err(format!("of {sent} bytes {counted} arrived")),
        Err(_) => Err("the stream ended without a count".to_owned()),
    }
}
