//! What `peerage dht` asks of the running node.

use std::fmt::Debug;
use std::time::Duration;

use peerage::dht::{Ad, Class, Contact, Counts, DhtCall, DhtReport, MailboxPolicy, Standing, Step, StepKind};
use peerage::{DhtError, Node, PeerId};

use super::service::peer_id;
use crate::control::dht::{DhtAct, DhtOptions, DhtReply, Letter, Named, StepRow, Text, Way};
use crate::control::millis;

/// Steps that are told of one lookup; one that has more is cut, and says so.
const MAX_STEPS: usize = 2000;
/// Members of a topic that are told.
const MAX_MEMBERS: usize = 100;

/// Carries out one command.
pub(super) async fn carry_out(node: &Node, act: DhtAct, options: DhtOptions) -> Result<DhtReply, String> {
    let dht = node.dht();
    let how = How::read(&options)?;
    match act {
        DhtAct::Find { peer } => {
            let found = how.run(dht.find_peer(peer_id(&peer)?)).await?;
            Ok(found.reply(|(contact, report)| {
                (report, DhtReply { peers: vec![named(&contact)], ..DhtReply::default() })
            }))
        }
        DhtAct::Closest { key } => {
            let key = key.parse::<PeerId>().map_or(key.into_bytes(), |peer| peer.to_bytes());
            let found = how.run(dht.closest(key)).await?;
            Ok(found.reply(|(closest, report)| {
                (report, DhtReply { peers: closest.iter().map(named).collect(), ..DhtReply::default() })
            }))
        }
        DhtAct::Put { name, value } => how.run(dht.put(name, value)).await.map(Got::way),
        DhtAct::Get { peer, name } => {
            let found = how.run(dht.get(peer_id(&peer)?, name)).await?;
            Ok(found.reply(|(value, report)| {
                (report, DhtReply { value: Some(Text::of(&value.body)), ..DhtReply::default() })
            }))
        }
        DhtAct::Provide { key } => how.run(dht.provide(key)).await.map(Got::way),
        DhtAct::Providers { key, most } => {
            let found = how.run(dht.providers(key, most)).await?;
            Ok(found.reply(|(providers, report)| {
                (report, DhtReply { peers: providers.iter().map(named).collect(), ..DhtReply::default() })
            }))
        }
        DhtAct::Announce { topic, brief } => {
            how.run(dht.announce(&Ad { topic, brief, ..Ad::default() })).await.map(Got::way)
        }
        DhtAct::Topic { topic } => {
            let found = how.run(dht.topic(&topic, MAX_MEMBERS)).await?;
            Ok(found.reply(|(members, report)| {
                let peers = members.into_iter().map(|member| Named {
                    peer: member.peer.to_string(),
                    addresses: Vec::new(),
                    note: member.ad.brief,
                });
                (report, DhtReply { peers: peers.collect(), ..DhtReply::default() })
            }))
        }
        DhtAct::Mail { peer, text } => how.run(dht.mail(peer_id(&peer)?, text)).await.map(Got::way),
        DhtAct::Mailbox => mailbox(node, how).await,
        DhtAct::Table => {
            let table = dht.table().await.map_err(|error| error.to_string())?;
            let row = |(contact, health): &(Contact, _)| Named { note: word(health), ..named(contact) };
            Ok(DhtReply { peers: table.iter().map(row).collect(), ..DhtReply::default() })
        }
        DhtAct::Stats => {
            let standing = dht.standing().await.map_err(|error| error.to_string())?;
            Ok(DhtReply { facts: facts(&standing), ..DhtReply::default() })
        }
    }
}

/// Reads the mailbox, and tells its holders what was read.
async fn mailbox(node: &Node, how: How) -> Result<DhtReply, String> {
    let dht = node.dht();
    let found = how.run(dht.mailbox()).await?;
    let read: Vec<_> = found.result.iter().flat_map(|(letters, _)| letters).map(|letter| letter.id).collect();
    if !read.is_empty() {
        let policy = MailboxPolicy::Open { work_bits: dht.mailbox_work_bits() };
        if let Err(error) = dht.clear_mailbox(read, policy).await {
            tracing::warn!(%error, "the messages were read, and stay in the mailbox for now");
        }
    }
    Ok(found.reply(|(letters, report)| {
        let messages = letters
            .into_iter()
            .map(|letter| Letter { from: letter.from.to_string(), text: Text::of(&letter.body) })
            .collect();
        (report, DhtReply { messages, ..DhtReply::default() })
    }))
}

/// How an operation is to be done.
struct How {
    class: Class,
    quorum: Option<usize>,
    deadline: Option<Duration>,
    trace: bool,
}

/// What came of it, and the steps, where they were asked for.
struct Got<T> {
    result: Result<T, DhtError>,
    steps: Vec<StepRow>,
}

impl How {
    fn read(options: &DhtOptions) -> Result<Self, String> {
        let class = match options.class.as_deref() {
            None | Some("interactive") => Class::Interactive,
            Some("normal") => Class::Normal,
            Some("frugal") => Class::Frugal,
            Some(other) => return Err(format!("{other:?} is no class: give interactive, normal or frugal")),
        };
        let deadline = options.deadline_ms.map(Duration::from_millis);
        Ok(Self { class, quorum: options.quorum, deadline, trace: options.trace })
    }

    /// Awaits it, with its steps where they are to be told.
    ///
    /// # Errors
    /// What keeps it from starting. That nothing was found is a result.
    async fn run<T: 'static>(&self, call: DhtCall<T>) -> Result<Got<T>, String> {
        let call = call.class(self.class);
        let call = self.quorum.into_iter().fold(call, DhtCall::quorum);
        let call = self.deadline.into_iter().fold(call, DhtCall::deadline);
        let (result, steps) = if self.trace {
            let (call, mut watched) = call.watch();
            let steps = async {
                let mut steps = Vec::new();
                while let Some(step) = watched.next().await {
                    if steps.len() < MAX_STEPS {
                        steps.push(row(&step));
                    }
                }
                steps
            };
            tokio::join!(call.into_future(), steps)
        } else {
            (call.await, Vec::new())
        };
        match result {
            Ok(_) | Err(DhtError::NotFound { .. } | DhtError::TooFewStored { .. }) => {
                Ok(Got { result, steps })
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

impl<T> Got<T> {
    fn reply(self, show: impl FnOnce(T) -> (DhtReport, DhtReply)) -> DhtReply {
        let reply = match self.result {
            Ok(found) => {
                let (report, reply) = show(found);
                DhtReply { way: Some(way(&report)), ..reply }
            }
            Err(error) => {
                let report = match &error {
                    DhtError::NotFound { report } | DhtError::TooFewStored { report } => Some(way(report)),
                    _ => None,
                };
                DhtReply { way: report, failed: Some(error.to_string()), ..DhtReply::default() }
            }
        };
        DhtReply { steps: self.steps, ..reply }
    }
}

impl Got<DhtReport> {
    fn way(self) -> DhtReply {
        self.reply(|report| (report, DhtReply::default()))
    }
}

fn way(report: &DhtReport) -> Way {
    let Counts { asked, answered, failed, cancelled, stored, warm, .. } = report.counts;
    Way {
        ended: word(&report.ended),
        asked,
        answered,
        failed,
        cancelled,
        stored,
        warm,
        hops: report.hops,
        ms: millis(report.took),
        dense: report.dense,
    }
}

fn named(contact: &Contact) -> Named {
    Named {
        peer: contact.peer().to_string(),
        addresses: contact.addresses().iter().map(ToString::to_string).collect(),
        note: String::new(),
    }
}

/// The name of a variant in lower case.
fn word(variant: &impl Debug) -> String {
    let name = format!("{variant:?}");
    let end = name.find(['(', '{', ' ']).unwrap_or(name.len());
    let mut word = String::new();
    for (at, letter) in name[..end].chars().enumerate() {
        if letter.is_uppercase() && at > 0 {
            word.push(' ');
        }
        word.extend(letter.to_lowercase());
    }
    word
}

fn row(step: &Step) -> StepRow {
    let (peer, detail) = match &step.what {
        StepKind::Asked { peer, shared_bits, path, hops, warm, cause } => {
            let over = if *warm { "over a connection that stood" } else { "over a new connection" };
            let path = if *path > 0 { format!(", path {path}") } else { String::new() };
            (Some(peer), format!("{shared_bits} bits shared, hop {hops}{path}, {over} ({})", word(cause)))
        }
        StepKind::Answered { peer, rtt, closer, fresh, values, late } => {
            let late = if *late { ", late" } else { "" };
            let values = if *values > 0 { format!(", {values} values") } else { String::new() };
            (Some(peer), format!("in {:.1} ms: {closer} peers, {fresh} new{values}{late}", millis(*rtt)))
        }
        StepKind::Suspected { peer, after } => (Some(peer), format!("silent for {:.1} ms", millis(*after))),
        StepKind::Failed { peer, why } => (Some(peer), word(why)),
        StepKind::NotStored { peer, why } => (Some(peer), format!("{why:?}")),
        StepKind::Cancelled { peer }
        | StepKind::Implausible { peer }
        | StepKind::Storing { peer }
        | StepKind::Stored { peer } => (Some(peer), String::new()),
        StepKind::Ended(why) => (None, word(why)),
        _ => (None, String::new()),
    };
    StepRow { ms: millis(step.at), what: word(&step.what), peer: peer.map(ToString::to_string), detail }
}

fn facts(standing: &Standing) -> Vec<(String, String)> {
    let Standing {
        joined, peers, usable, connected, size, outage, operations, requests, seen, stats, ..
    } = standing;
    let size = size.map_or("not measured yet".to_owned(), |size| format!("about {size:.0} nodes"));
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    [
        ("joined", yes(*joined)),
        ("nodes known", format!("{peers}, {usable} of them can be asked")),
        ("connected", connected.to_string()),
        ("the network has", size),
        ("own network suspected", yes(*outage)),
        ("operations under way", operations.to_string()),
        ("requests under way", requests.to_string()),
        ("seen in an hour, a day, a week", format!("{}, {}, {}", seen.hour, seen.day, seen.week)),
        ("asked", stats.asked.to_string()),
        ("answered", stats.answered.to_string()),
        ("failed", stats.failed.to_string()),
        ("cancelled", stats.cancelled.to_string()),
        ("served", stats.served.to_string()),
        ("refused to serve", stats.refused.to_string()),
    ]
    .map(|(name, fact)| (name.to_owned(), fact))
    .into()
}
