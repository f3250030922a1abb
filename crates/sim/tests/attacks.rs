//! An admitted peer, with a key of its own and every stream in its hands, abuses hello, exchange, channels and requests. Whatever it does, nothing panics or
//! hangs, an honest peer is served meanwhile, and when the attacker has gone nothing of it is left.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peerage::{Channel, ChannelConfig, NodeKey, PeerId, Raw, Verdict};
use peerage_identity::SignedPeerRecord;
use peerage_sim::{Failed, Link, SimNode, World, ensure, simulate, transport_settings};
use peerage_transport::{Connection, Endpoint, EndpointConfig, Stream};
use peerage_wire::channel::Account;
use peerage_wire::frame;
use peerage_wire::hello::{self, Accept, Answer, Hello, answer};

const SECOND: Duration = Duration::from_secs(1);
const HELLO: &str = "/peerage/hello/1";
const EXCHANGE: &str = "/peerage/exchange/1";
const PUSH: &str = "/ipfs/id/push/1.0.0";
const PING: &str = "/ipfs/ping/1.0.0";
const FEED: &str = "/sim/feed/1";
const ECHO: &str = "/sim/echo/1";
const RAW: &str = "/sim/raw/1";
/// 2^60 as an unsigned varint.
const ENORMOUS: [u8; 9] = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
/// `u64::MAX` as one.
const MOST: [u8; 10] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];

struct Attacker {
    id: PeerId,
    connection: Connection,
    _endpoint: Endpoint,
}

impl Attacker {
    /// Connects to `victim`, and is admitted as a node that speaks both versions and has the channel.
    async fn new(world: &World, number: u8, victim: &SimNode) -> Result<Self, Failed> {
        let (net, host) = (world.net().clone(), world.net().host());
        let key = NodeKey::from_seed([number + 100; 32]);
        let mut config = EndpointConfig::new(key.clone());
        config.settings = transport_settings();
        config.seed = Some([number; 32]);
        config.time = Some(Arc::new(move || Duration::from_secs(1_893_456_000) + net.now()));
        let address = (world.net().ip(host), 4400).into();
        let endpoint = Endpoint::over(config, vec![world.net().bind(host, address)?]).await?;
        let connection = endpoint.dial(victim.socket_address(), Some(victim.peer_id())).await?;
        let channel =
            hello::Channel { name: FEED.to_owned(), max_message_bytes: 1024, ..hello::Channel::default() };
        let hello = Hello {
            network: "main".to_owned(),
            versions: vec![1, 2],
            boot_nonce: 4711,
            order: 1,
            signed_record: SignedPeerRecord::sign(&key, 1_893_456_000_000, &[])?.as_bytes().clone(),
            channels: vec![channel],
            ..Hello::default()
        };
        let mut stream = connection.open_lazy(HELLO).await?;
        stream.send.write_frame(&hello).await?;
        stream.send.finish()?;
        let mut theirs = next(&connection, HELLO).await?;
        let _: Option<Hello> = theirs.recv.read_message(100_000).await?;
        let verdict = answer::Verdict::Accept(Accept { order: 2, version: 2, stay: false });
        theirs.send.write_frame(&Answer { verdict: Some(verdict) }).await?;
        theirs.send.finish()?;
        let id = key.peer_id();
        world.until("the attacker is admitted", 10 * SECOND, || victim.connected().contains(&id)).await?;
        Ok(Self { id, connection, _endpoint: endpoint })
    }

    /// A stream for `name` on which `bytes` were written, if the connection lives and gives one within a second.
    async fn begin(&self, name: &str, bytes: &[u8]) -> Option<Stream> {
        let opening = tokio::time::timeout(SECOND, self.connection.open_lazy(name)).await;
        let mut stream = opening.ok()?.ok()?;
        let _ = tokio::time::timeout(SECOND, stream.send.write_all(bytes)).await;
        Some(stream)
    }
}

/// The next stream that the other side opens under a name.
async fn next(connection: &Connection, wanted: &str) -> Result<Stream, Failed> {
    loop {
        let (name, stream) = connection.accept_stream().await?.negotiate(|_| true, 5 * SECOND).await?;
        if &*name == wanted {
            return Ok(stream);
        }
    }
}

struct Scene {
    world: World,
    victim: SimNode,
    honest: SimNode,
    feed: Channel<Raw>,
}

impl Scene {
    async fn new(world: World) -> Result<Self, Failed> {
        world.default_link(Link::latency_ms(10));
        let victim = world.node("victim", |builder| builder.serve_perf().max_outbound(0)).await?;
        let feed = victim
            .node()
            .channel::<Raw>(ChannelConfig::new(FEED).max_message_bytes(1024).receive_queue(65_536, 500))?;
        victim.node().serve::<Raw, Raw, _, _>(ECHO, |_, question| async move { Ok(question) })?;
        let incoming = victim.node().accept(RAW)?;
        tokio::spawn(async move { while incoming.recv().await.is_some() {} });
        let address = victim.address();
        let honest =
            world.node("honest", move |builder| builder.persistent(&address).max_outbound(0)).await?;
        world.until("the honest peer is there", 10 * SECOND, || honest.is_connected_to(&victim)).await?;
        Ok(Self { world, victim, honest, feed })
    }

    /// The honest peer is pinged and answered as ever.
    async fn serves(&self, when: &str) -> Result<(), Failed> {
        let took = self.honest.node().ping(self.victim.peer_id()).await;
        let took = took.map_err(|error| Failed::new(format!("{when}: the honest peer's ping: {error}")))?;
        ensure!(took < Duration::from_millis(100), "{when}: the honest peer's ping took {took:?}");
        let start = self.world.now();
        let question = Raw(Bytes::from_static(b"echo"));
        let echo: Raw = self.honest.node().request(self.victim.peer_id(), ECHO, &question).await?;
        let took = self.world.now() - start;
        ensure!(echo == question && took < Duration::from_millis(200), "{when}: the echo took {took:?}");
        Ok(())
    }

    /// The attacker goes; a minute later nothing of it is left.
    async fn is_clean(&self, attack: &str, tasks: usize) -> Result<(), Failed> {
        self.world.run_for(60 * SECOND).await;
        while self.feed.try_recv().is_some() {}
        self.world.run_for(SECOND).await;
        let left = self.feed.totals().accounted_bytes;
        ensure!(left <= 64 * 1024, "{attack}: {left} bytes stay accounted for");
        let now = alive_tasks();
        ensure!(now <= tasks, "{attack}: {tasks} tasks before, {now} after");
        ensure!(self.victim.connected() == [self.honest.peer_id()], "{attack}: the attacker is still there");
        Ok(())
    }
}

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Runs an attack on a victim that serves an honest peer at the same time, and afterwards; then the attacker hangs up.
fn attack<F>(name: &'static str, act: impl Fn(Arc<Scene>, Arc<Attacker>) -> F) -> Result<(), Failed>
where
    F: Future<Output = Result<(), Failed>> + Send + 'static,
{
    simulate(17, async |world| {
        let scene = Arc::new(Scene::new(world.clone()).await?);
        scene.serves("before").await?;
        world.run_for(10 * SECOND).await;
        let tasks = alive_tasks();
        for round in 0..2 {
            let attacker = Arc::new(Attacker::new(&world, round, &scene.victim).await?);
            let attacking = tokio::spawn(act(scene.clone(), attacker.clone()));
            while !attacking.is_finished() {
                scene.serves(name).await?;
                world.run_for(SECOND / 10).await;
            }
            attacking.await??;
            attacker.connection.close(peerage_transport::CloseCode::Normal, "done");
            drop(attacker);
            scene.is_clean(name, tasks).await?;
        }
        Ok(())
    })
}

const ALL: [&str; 8] = [HELLO, EXCHANGE, PUSH, PING, FEED, ECHO, RAW, "/sim/undeclared/1"];

#[test]
fn thousands_of_streams_that_are_begun_and_given_up_leave_nothing() -> Result<(), Failed> {
    attack("half-open streams", |_, attacker| async move {
        let starts: [&[u8]; 4] = [&[], &[0x80], &[0x05, 1, 2], &ENORMOUS];
        let (mut held, mut begun) = (Vec::new(), 0);
        for number in 0..4000 {
            let (name, start) = (ALL[number % ALL.len()], starts[number / ALL.len() % starts.len()]);
            let Some(stream) = attacker.begin(name, start).await else {
                // No more are allowed: those that are held are reset, in whatever state they are.
                ensure!(!held.is_empty() || attacker.connection.close_cause().is_some(), "no stream at all");
                held.clear();
                continue;
            };
            begun += 1;
            if number % 3 == 0 {
                held.push(stream)
            } else {
                drop(stream)
            }
            ensure!(held.len() <= 200, "{} streams at once", held.len());
        }
        ensure!(begun > 3000, "only {begun} streams were begun");
        Ok(())
    })
}

/// no length that a peer names takes memory before its bytes have come.
#[test]
fn a_length_of_two_to_the_sixtieth_takes_nothing_on_any_protocol() -> Result<(), Failed> {
    attack("enormous lengths", |scene, attacker| async move {
        let mut held = Vec::new();
        for name in ALL {
            let (Some(short), Some(long)) =
                (attacker.begin(name, &ENORMOUS).await, attacker.begin(name, &[0xff; 40]).await)
            else {
                continue;
            };
            held.push((short, long));
        }
        let held_bytes = scene.feed.totals().accounted_bytes;
        ensure!(held_bytes < 300_000, "a length alone holds {held_bytes} bytes");
        scene.world.run_for(5 * SECOND).await;
        Ok(())
    })
}

#[test]
fn accounts_that_lie_end_the_stream_and_the_sender_is_told() -> Result<(), Failed> {
    attack("lying accounts", |scene, attacker| async move {
        let account = |account: Account| frame::encode(&account).to_vec();
        let lies: Vec<Vec<u8>> = vec![
            account(Account { accepted: u64::MAX, messages: 1, limit: u64::MAX, ..Account::default() }),
            account(Account { accepted: 1, messages: u64::MAX, limit: 1 << 20, ..Account::default() }),
            account(Account { accepted: 0, messages: 0, limit: u64::MAX, ..Account::default() }),
            [
                account(Account { limit: 1 << 30, ..Account::default() }),
                account(Account { limit: 1, ..Account::default() }),
            ]
            .concat(),
            ENORMOUS.to_vec(),
            [&[11, 8][..], &MOST[..]].concat(),
            vec![0x55; 600],
            account(Account { end: Some(Default::default()), ..Account::default() }),
        ];
        let victim = scene.victim.node();
        for (number, lie) in lies.into_iter().enumerate() {
            let feed = scene.feed.clone();
            let Ok(receipt) = feed.queue_confirmed(attacker.id, &Raw(Bytes::from(vec![7; 500]))).await else {
                ensure!(
                    victim.peers().get(attacker.id).is_none(),
                    "lie {number}: refused to a peer that is there"
                );
                return Ok(());
            };
            let mut stream = tokio::time::timeout(10 * SECOND, next(&attacker.connection, FEED)).await??;
            let _ = stream.send.write_all(&lie).await;
            let mut got = 0;
            for _ in 0..200 {
                let _ = tokio::time::timeout(
                    SECOND / 100,
                    feed.send(attacker.id, &Raw(Bytes::from(vec![8; 1000]))),
                )
                .await;
            }
            while let Ok(Ok(Some(chunk))) =
                tokio::time::timeout(SECOND / 5, stream.recv.read_chunk(65_536)).await
            {
                got += chunk.len();
            }
            drop(stream);
            let verdict = tokio::time::timeout(30 * SECOND, receipt).await;
            let verdict =
                verdict.map_err(|_| Failed::new(format!("lie {number}: no verdict, {got} bytes came")))?;
            ensure!(!matches!(verdict, Verdict::Delivered) || number == 1, "lie {number} was believed");
        }
        Ok(())
    })
}

#[test]
fn deadlines_of_nothing_and_of_everything_and_answers_before_the_question_do_no_harm() -> Result<(), Failed> {
    attack("odd requests", |scene, attacker| async move {
        let question = [4, b'a', b's', b'k', b'?'];
        let options: Vec<Vec<u8>> = vec![
            vec![2, 8, 0],
            [&[11, 8][..], &MOST].concat(),
            [&[22, 8][..], &MOST, &[16], &MOST].concat(),
            ENORMOUS.to_vec(),
            [&[2, 16, 1][..], &[10], &MOST, &[10], &MOST].concat(),
        ];
        for (number, options) in options.into_iter().enumerate() {
            let stream = attacker.begin(ECHO, &[&question[..], &options].concat()).await;
            let Some(mut stream) = stream else { return Err(Failed::new(format!("no stream for {number}"))) };
            let _ = stream.send.finish();
            let reading = async { while let Ok(Some(_)) = stream.recv.read_chunk(65_536).await {} };
            let ended = tokio::time::timeout(40 * SECOND, reading).await;
            ensure!(ended.is_ok(), "the request with options {number} never ended");
        }
        // What the victim asks is answered before it is read, with lies of each kind, or never.
        let answers: [&[u8]; 5] = [&[0, 2, 1, 1], &ENORMOUS, &[1, 0xff, 3], &[0], &[]];
        for (number, lie) in answers.into_iter().enumerate() {
            let (node, to) = (scene.victim.node(), attacker.id);
            // More than the attacker's window takes unread, or so little that the answer is looked at at once.
            let question = Raw(Bytes::from(vec![1; if number == 4 { 200_000 } else { 1000 }]));
            let asking =
                tokio::spawn(async move { node.request::<Raw, Raw>(to, "/sim/asks/1", &question).await });
            let mut stream =
                tokio::time::timeout(10 * SECOND, next(&attacker.connection, "/sim/asks/1")).await??;
            let _ = stream.send.write_all(lie).await;
            if number % 2 == 0 {
                let _ = stream.send.finish();
            }
            let ended = tokio::time::timeout(60 * SECOND, asking).await;
            let ended =
                ended.map_err(|_| Failed::new(format!("lie {number}: the question never ended")))??;
            ensure!(ended.is_ok() == (number == 0), "lie {number} led to {ended:?}");
        }
        Ok(())
    })
}

/// bytes that come one by one make the same messages.
#[test]
fn bytes_that_come_one_by_one_hold_up_nobody_and_make_the_same_messages() -> Result<(), Failed> {
    attack("dribbling", |scene, attacker| async move {
        let message = frame::encode(&Account { accepted: 77, ..Account::default() });
        let mut streams = Vec::new();
        for name in [FEED, ECHO, EXCHANGE, PUSH, RAW] {
            streams.extend(attacker.begin(name, &[]).await);
        }
        ensure!(streams.len() == 5, "{} streams", streams.len());
        let slow: Vec<u8> = message.iter().copied().cycle().take(message.len() * 20).collect();
        for byte in slow {
            for stream in &mut streams {
                let _ = tokio::time::timeout(SECOND / 100, stream.send.write_all(&[byte])).await;
            }
            scene.world.run_for(SECOND / 50).await;
        }
        let mut whole = 0;
        scene.world.run_for(SECOND).await;
        while let Some((_, Raw(body))) = scene.feed.try_recv() {
            ensure!(body[..] == message[1..], "another message than was sent: {body:?}");
            whole += 1;
        }
        ensure!(whole == 20, "{whole} of 20 messages arrived");
        Ok(())
    })
}

/// bad content costs the offender.
#[test]
fn floods_of_hellos_and_questions_cost_the_attacker_and_nobody_else() -> Result<(), Failed> {
    attack("floods", |scene, attacker| async move {
        let mut refused = 0;
        for number in 0..600 {
            let (name, bytes): (_, &[u8]) =
                if number % 2 == 0 { (EXCHANGE, &[2, 8, 30]) } else { (HELLO, &[0]) };
            let Some(mut stream) = attacker.begin(name, bytes).await else {
                refused += 1;
                continue;
            };
            let _ = stream.send.finish();
        }
        scene.world.run_for(SECOND).await;
        let there = scene.victim.connected().contains(&attacker.id);
        ensure!(!there && refused > 0, "after 300 questions at once the attacker is still a peer");
        let banned = scene.victim.node().peers().bans().await;
        ensure!(banned.len() == 1, "{banned:?}");
        // So that the next attacker, of another key, is heard.
        scene.victim.node().peers().unban(banned[0].target).await;
        Ok(())
    })
}
