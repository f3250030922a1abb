//! Random operations on a handful of nodes, against a model that fits on a screen. A failure is shrunk to the shortest story that still fails.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use peerage::{Channel, ChannelConfig, PeerId, Raw};
use peerage_sim::{Failed, Link, SimNode, World, ensure, simulate};
use proptest::prelude::*;

const NODES: usize = 4;
const CHANNEL: &str = "/sim/model/1";
/// Longer than any connection lives without a packet, and than any dial and hello takes.
const SETTLED: Duration = Duration::from_secs(50);

#[derive(Debug, Clone)]
enum Operation {
    Crash(usize),
    Stop(usize),
    Restart(usize),
    Connect(usize, usize),
    Disconnect(usize, usize),
    Send(usize, usize, u64),
    /// The nodes whose bit is set lose sight of the others.
    Partition(u8),
    Heal,
    /// A moment, in milliseconds: too short for anybody to notice a silence.
    Wait(u64),
    Settle,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let (node, other) = (0..NODES, 0..NODES);
    let pair = (node.clone(), other).prop_filter("two nodes", |(a, b)| a != b);
    prop_oneof![
        2 => node.clone().prop_map(Crash),
        1 => node.clone().prop_map(Stop),
        3 => node.prop_map(Restart),
        6 => pair.clone().prop_map(|(a, b)| Connect(a, b)),
        2 => pair.clone().prop_map(|(a, b)| Disconnect(a, b)),
        4 => (pair, 1..30u64).prop_map(|((a, b), count)| Send(a, b, count)),
        1 => (1..(1u8 << NODES) - 1).prop_map(Partition),
        2 => Just(Heal),
        2 => (1..5_000u64).prop_map(Wait),
        2 => Just(Settle),
    ]
}

/// What the model says of two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Connected,
    Apart,
    /// Something happened that one of them may not have noticed yet.
    Open,
}

/// The model: who is up, who sees whom, which pairs are connected.
#[derive(Debug)]
struct Model {
    up: [bool; NODES],
    group: [bool; NODES],
    pairs: BTreeMap<(usize, usize), Expected>,
}

impl Model {
    fn new() -> Self {
        let pairs = (0..NODES).flat_map(|a| (a + 1..NODES).map(move |b| ((a, b), Expected::Apart)));
        Self { up: [true; NODES], group: [false; NODES], pairs: pairs.collect() }
    }

    fn pair(&mut self, a: usize, b: usize) -> &mut Expected {
        self.pairs.get_mut(&(a.min(b), a.max(b))).expect("every pair is there")
    }

    fn reach(&self, a: usize, b: usize) -> bool {
        self.up[a] && self.up[b] && self.group[a] == self.group[b]
    }

    /// Pairs with something on one side that the other may not know yet.
    fn unsettle(&mut self, concerned: impl Fn(usize, usize) -> bool) {
        for (&(a, b), expected) in &mut self.pairs {
            if concerned(a, b) && *expected == Expected::Connected {
                *expected = Expected::Open;
            }
        }
    }
}

struct Story {
    world: World,
    nodes: Vec<SimNode>,
    model: Model,
    channels: Vec<Option<Channel<Raw>>>,
    /// The highest number that each node got from each other.
    got: Arc<Mutex<BTreeMap<(usize, PeerId), u64>>>,
    faults: Arc<Mutex<Vec<String>>>,
    next: u64,
}

impl Story {
    async fn begin(world: World) -> Result<Self, Failed> {
        world.default_link(Link::between_ms(5, 60));
        let mut nodes = Vec::new();
        for number in 0..NODES {
            // Nobody dials by itself.
            nodes.push(world.node(format!("n{number}"), |builder| builder.max_outbound(0)).await?);
        }
        let mut story = Self {
            world,
            nodes,
            model: Model::new(),
            channels: (0..NODES).map(|_| None).collect(),
            got: Arc::default(),
            faults: Arc::default(),
            next: 0,
        };
        (0..NODES).try_for_each(|at| story.listen(at))?;
        Ok(story)
    }

    /// Gives a node its channel, and somebody who reads it.
    fn listen(&mut self, at: usize) -> Result<(), Failed> {
        let channel = self.nodes[at].node().channel::<Raw>(ChannelConfig::new(CHANNEL))?;
        self.channels[at] = Some(channel.clone());
        let (got, faults) = (self.got.clone(), self.faults.clone());
        tokio::spawn(async move {
            while let Some((peer, Raw(body))) = channel.recv().await {
                let number = u64::from_be_bytes(body[..8].try_into().unwrap());
                let before = got.lock().unwrap().insert((at, peer), number);
                if before >= Some(number) {
                    faults.lock().unwrap().push(format!("n{at} got {number} of {peer} after {before:?}"));
                }
            }
        });
        Ok(())
    }

    async fn apply(&mut self, operation: &Operation) -> Result<(), Failed> {
        match *operation {
            Operation::Crash(at) if self.model.up[at] => {
                self.world.crash(&self.nodes[at]);
                (self.model.up[at], self.channels[at]) = (false, None);
                self.model.unsettle(|a, b| a == at || b == at);
            }
            Operation::Stop(at) if self.model.up[at] => {
                self.channels[at] = None;
                self.world.stop(&self.nodes[at]).await;
                self.model.up[at] = false;
                self.model.unsettle(|a, b| a == at || b == at);
            }
            Operation::Restart(at) if !self.model.up[at] => {
                self.world.restart(&self.nodes[at]).await?;
                self.model.up[at] = true;
                self.listen(at)?;
            }
            Operation::Connect(from, to) if self.model.up[from] => self.connect(from, to).await?,
            Operation::Disconnect(from, to) if self.model.up[from] => {
                self.nodes[from].node().peers().disconnect(self.nodes[to].peer_id()).await;
                let reached = self.model.reach(from, to);
                let expected = self.model.pair(from, to);
                // The one who disconnects may not know of a connection that the other has not missed yet: then it tells nobody.
                if *expected == Expected::Connected {
                    *expected = if reached { Expected::Apart } else { Expected::Open };
                }
                self.world.run_for(Duration::from_secs(1)).await;
            }
            Operation::Send(from, to, count) => self.send(from, to, count).await?,
            Operation::Partition(bits) => {
                let group: [bool; NODES] = std::array::from_fn(|at| bits >> at & 1 == 1);
                let apart =
                    self.nodes.iter().zip(group).filter(|(_, set)| *set).map(|(node, _)| node.clone());
                let apart: Vec<_> = apart.collect();
                self.world.partition(&[&apart]);
                self.model.group = group;
                self.model.unsettle(|a, b| group[a] != group[b]);
            }
            Operation::Heal => {
                self.world.heal();
                self.model.group = [false; NODES];
            }
            Operation::Wait(ms) => self.world.run_for(Duration::from_millis(ms)).await,
            Operation::Settle => self.settle().await,
            _ => {}
        }
        self.check(operation)
    }

    async fn connect(&mut self, from: usize, to: usize) -> Result<(), Failed> {
        let connected = self.nodes[from].node().connect(self.nodes[to].address()).await;
        // The other side admits when it has read that this one has.
        self.world.run_for(Duration::from_secs(1)).await;
        let reached = self.model.reach(from, to);
        let expected = self.model.pair(from, to);
        match (connected, *expected, reached) {
            (Ok(_), Expected::Apart, false) => {
                Err(Failed::new(format!("n{from} connected to n{to}, out of reach")))
            }
            (Err(error), Expected::Apart | Expected::Connected, true) => {
                Err(Failed::new(format!("n{from} could not connect to n{to}: {error}")))
            }
            (Ok(_), Expected::Apart, true) => {
                *expected = Expected::Connected;
                Ok(())
            }
            // Perhaps a connection that one side has not yet missed.
            _ => Ok(()),
        }
    }

    /// Over a connection that both have, and that nothing disturbs, everything arrives.
    async fn send(&mut self, from: usize, to: usize, count: u64) -> Result<(), Failed> {
        let Some(channel) = self.channels[from].clone() else { return Ok(()) };
        let connected = *self.model.pair(from, to) == Expected::Connected && self.model.reach(from, to);
        let to_peer = self.nodes[to].peer_id();
        for _ in 0..count {
            self.next += 1;
            let message = Raw(Bytes::copy_from_slice(&self.next.to_be_bytes()));
            let sending = channel.send(to_peer, &message);
            match tokio::time::timeout(Duration::from_secs(5), sending).await {
                Ok(Ok(())) => {}
                refused if connected => {
                    return Err(Failed::new(format!("n{from} could not send to n{to}: {refused:?}")));
                }
                _ => return Ok(()),
            }
        }
        self.world.run_for(Duration::from_secs(1)).await;
        let last = self.got.lock().unwrap().get(&(to, self.nodes[from].peer_id())).copied();
        ensure!(
            !connected || last == Some(self.next),
            "of n{from}'s messages up to {} n{to} got {last:?}",
            self.next
        );
        Ok(())
    }

    /// After that, everybody has noticed everything.
    async fn settle(&mut self) {
        self.world.run_for(SETTLED).await;
        let Model { up, group, pairs } = &mut self.model;
        for (&(a, b), expected) in pairs {
            if !(up[a] && up[b] && group[a] == group[b]) {
                *expected = Expected::Apart;
            } else if *expected == Expected::Open {
                // It survived or it didn't, but both must think the same.
                let both = self.nodes[a].is_connected_to(&self.nodes[b]);
                *expected = if both { Expected::Connected } else { Expected::Apart };
            }
        }
    }

    fn check(&self, after: &Operation) -> Result<(), Failed> {
        let faults = self.faults.lock().unwrap().clone();
        ensure!(faults.is_empty(), "after {after:?}: {faults:?}");
        for (&(a, b), expected) in &self.model.pairs {
            let sees = |a: usize, b: usize| self.nodes[a].connected().contains(&self.nodes[b].peer_id());
            let seen = [sees(a, b), sees(b, a)];
            let right = match expected {
                Expected::Connected => seen == [true, true],
                Expected::Apart => seen == [false, false],
                Expected::Open => true,
            };
            ensure!(
                right,
                "after {after:?}: n{a} and n{b} should be {expected:?} and see each other as {seen:?}"
            );
        }
        Ok(())
    }

    /// In the end everybody is there, and can talk to everybody.
    async fn end(mut self) -> Result<(), Failed> {
        self.apply(&Operation::Heal).await?;
        for at in 0..NODES {
            self.apply(&Operation::Restart(at)).await?;
        }
        self.apply(&Operation::Settle).await?;
        for (a, b) in self.model.pairs.keys().copied().collect::<Vec<_>>() {
            self.apply(&Operation::Connect(a, b)).await?;
            ensure!(*self.model.pair(a, b) == Expected::Connected, "n{a} and n{b} are apart in the end");
            self.apply(&Operation::Send(a, b, 3)).await?;
            self.apply(&Operation::Send(b, a, 3)).await?;
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nodes_do_what_the_model_says(seed: u64, operations in prop::collection::vec(operation(), 1..25)) {
        let told = simulate(seed, async |world| {
            let mut story = Story::begin(world).await?;
            for operation in &operations {
                story.apply(operation).await?;
            }
            story.end().await
        });
        prop_assert!(told.is_ok(), "{:?}", told);
    }
}
