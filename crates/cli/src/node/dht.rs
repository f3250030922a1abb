//! What `peerage dht` asks of the running node.

use std::fmt::Debug;
use std::time::Duration;

use peerage::dht::{
    Ad, Class, Contact, Counts, Dht, DhtCall, DhtReport, Ended, EntryId, HeldRecord, Kind, Member, Mode,
    NotStored, Place, Published, Refusal, Standing, Step, StepKind, Update,
};
use peerage::{DhtError, Node, PeerId};

use super::service::peer_id;
use crate::control::dht::{
    DEADLINES, DhtAct, DhtOptions, DhtReply, Held, HeldRow, Letter, MAX_MEMBERS, Named, Proof, PublishedRow,
    Role, Seen, Stats, StepRow, Text, Totals, Way,
};
use crate::control::millis;
use crate::term::counted;

/// Steps that are told of one lookup; how many more there were is counted.
const MAX_STEPS: usize = 2000;
/// After so long whoever watches a value is told that nothing has changed, and asks again: sooner than the program stops waiting for the node.
const WATCH_TURN: Duration = Duration::from_secs(45);

/// Carries out one command.
pub(super) async fn carry_out(node: &Node, act: DhtAct, options: DhtOptions) -> Result<DhtReply, String> {
    let dht = node.dht();
    let how = How::read(&options)?;
    match act {
        DhtAct::Find { peer } => match peer_id(&peer)? {
            // Nobody need be asked, and whoever were would not say.
            me if me == node.peer_id() => {
                let here = Contact::new(me, &node.listen_addresses());
                Ok(of_peers([Named { note: "this node".to_owned(), ..named(&here) }]))
            }
            peer => how.look(dht.find_peer(peer), |found| of_peers([named(&found)])).await,
        },
        DhtAct::Closest { key } => {
            let key = key.parse::<PeerId>().map_or(key.into_bytes(), |peer| peer.to_bytes());
            how.look(dht.closest(key), |closest| of_peers(closest.iter().map(named))).await
        }
        DhtAct::Put { name, value } => how.store(&dht, Kind::Value, dht.put(name, value.into_bytes()?)).await,
        DhtAct::Remove { name } => how.store(&dht, Kind::Value, dht.remove(name)).await,
        DhtAct::ForgetImmutable { hash } => match dht.forget_immutable(digits("a hash", &hash)?).await {
            Ok(true) => Ok(DhtReply::default()),
            Ok(false) => {
                Err(format!("this node does not renew {hash}: `peerage dht stats` shows what it does"))
            }
            Err(error) => Err(in_words(&error)),
        },
        DhtAct::PutImmutable { value } => {
            let (hash, call) = dht.put_immutable(value.into_bytes()?);
            let reply = how.store(&dht, Kind::Immutable, call).await?;
            Ok(DhtReply { hash: Some(hex::encode(hash)), ..reply })
        }
        DhtAct::Get { peer, name } => {
            how.look(dht.get(peer_id(&peer)?, name), |value| of_value(&value.body)).await
        }
        DhtAct::Watch { peer, name, after } => watch(&dht, peer_id(&peer)?, name, after).await,
        DhtAct::GetImmutable { hash } => {
            let call = dht.get_immutable(digits("a hash", &hash)?);
            how.look(call, |content| of_value(&content)).await
        }
        DhtAct::Provide { key } => how.store(&dht, Kind::Value, dht.provide(key)).await,
        DhtAct::StopProviding { key } => match dht.stop_providing(&key).await {
            Ok(true) => Ok(DhtReply::default()),
            Ok(false) => {
                Err(format!("this node does not provide {key:?}: `peerage dht stats` shows what it does"))
            }
            Err(error) => Err(in_words(&error)),
        },
        DhtAct::Providers { key, most } => {
            how.look(dht.providers(key, most), |providers| of_peers(providers.iter().map(named))).await
        }
        DhtAct::Announce { topic, brief, tags, protocols } => {
            let ad = Ad { topic, brief, tags, protocols, ..Ad::default() };
            how.store(&dht, Kind::Topic, dht.announce(&ad)).await
        }
        DhtAct::Leave { topic } => leave(node, how, &topic).await,
        DhtAct::Topic { topic, most, tags, protocols } => {
            members(&dht, how, &topic, most, &tags, &protocols).await
        }
        DhtAct::Mail { peer, text } => {
            how.store(&dht, Kind::Mailbox, dht.mail(peer_id(&peer)?, text.into_bytes()?)).await
        }
        DhtAct::Mailbox => how.look(dht.mailbox(), |letters| of_letters(&letters)).await,
        DhtAct::ClearMailbox { ids } => {
            let read = ids.iter().map(|id| digits("a message's ID", id).map(EntryId::from_bytes));
            let read = read.collect::<Result<_, _>>()?;
            // Who may write stays as it is.
            let found = dht.mailbox_policy(node.peer_id()).class(how.class).await;
            let (policy, _) = found.map_err(|error| in_words(&error))?;
            how.store(&dht, Kind::Mailbox, dht.clear_mailbox(read, policy)).await
        }
        DhtAct::Table => {
            let table = dht.table().await.map_err(|error| in_words(&error))?;
            let row = |(contact, health): &(Contact, _)| Named { note: word(health), ..named(contact) };
            Ok(of_peers(table.iter().map(row)))
        }
        DhtAct::Held { most } => {
            let held = dht.held(most).await.map_err(|error| in_words(&error))?;
            let all = dht.standing().await.map_err(|error| in_words(&error))?.held.records;
            let rows: Vec<_> = held.iter().map(held_row).collect();
            Ok(DhtReply { more: Some(all > rows.len()), held: Some(rows), ..DhtReply::default() })
        }
        DhtAct::Stats => {
            let standing = dht.standing().await.map_err(|error| in_words(&error))?;
            let published = dht.published().await.map_err(|error| in_words(&error))?;
            let provided = dht.provided().await.map_err(|error| in_words(&error))?;
            let stats = Stats {
                published: published.iter().map(published_row).collect(),
                provided: provided.iter().map(|key| Text::of(key)).collect(),
                ..stats(&standing)
            };
            Ok(DhtReply { stats: Some(stats), ..DhtReply::default() })
        }
        DhtAct::Mode { mode } => {
            let mode = match mode {
                Role::Serve => Mode::Server,
                Role::Client => Mode::Client,
            };
            dht.set_mode(mode).await.map_err(|error| error.to_string())?;
            Ok(DhtReply::default())
        }
    }
}

/// Takes this node out of a topic in which it is: as far as it knows itself, or as readers see it, for what it joined before its restart stands there for a while.
async fn leave(node: &Node, how: How, topic: &str) -> Result<DhtReply, String> {
    let dht = node.dht();
    let leaving = dht.leave(topic);
    let published = dht.published().await.map_err(|error| in_words(&error))?;
    let place = Place::of_topic(topic, 0);
    let here = |row: &Published| match (&row.place, &place) {
        (Place::Topic { topic: there, .. }, Place::Topic { topic, .. }) => there == topic && !row.tombstone,
        _ => false,
    };
    let is_bad = topic.is_empty() || topic.contains(char::is_control);
    if !is_bad && !published.iter().any(here) {
        let look = how.over(dht.topic(topic, MAX_MEMBERS));
        let (members, report) = look.await.map_err(|error| in_words(&error))?;
        // Who has not seen all of them cannot tell.
        let all = matches!(report.ended, Ended::Complete | Ended::Found) && members.len() < MAX_MEMBERS;
        if all && !members.iter().any(|member| member.peer == node.peer_id()) {
            return Err(format!("this node is not in the topic {topic:?}: nothing was done"));
        }
    }
    how.store(&dht, Kind::Topic, leaving).await
}

/// Who is in a topic: those that have all of the tags and, where any are given, one of the protocols.
async fn members(
    dht: &Dht,
    how: How,
    topic: &str,
    most: usize,
    tags: &[String],
    protocols: &[String],
) -> Result<DhtReply, String> {
    let most = most.min(MAX_MEMBERS);
    let of_all = tags.is_empty() && protocols.is_empty();
    // One more than is shown tells whether there are more.
    let wanted = if of_all { most + 1 } else { MAX_MEMBERS };
    let has_all = |member: &Member| {
        let tags: Vec<_> = tags.iter().map(String::as_str).collect();
        let protocols: Vec<_> = protocols.iter().map(String::as_str).collect();
        member.ad.matches(&tags, &protocols)
    };
    let show = |found: Vec<Member>| {
        let cut = found.len() >= wanted;
        let (matching, mut peers) = (found.iter().filter(|member| has_all(member)).count(), Vec::new());
        for Member { peer, ad, .. } in found.into_iter().filter(has_all).take(most) {
            let (note, tags, protocols) = (ad.brief, ad.tags, ad.protocols);
            peers.push(Named { peer: peer.to_string(), note, tags, protocols, ..Named::default() });
        }
        DhtReply { more: Some(cut || matching > most), ..of_peers(peers) }
    };
    how.look(dht.topic(topic, wanted), show).await
}

/// How an operation is to be done.
struct How {
    class: Class,
    quorum: Option<usize>,
    deadline: Option<Duration>,
    paths: Option<usize>,
    alpha: Option<usize>,
    trace: bool,
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
        if let Some(deadline) = deadline.filter(|deadline| !DEADLINES.contains(deadline)) {
            return Err(format!("the deadline is {deadline:?}: give 1ms to 1h"));
        }
        let DhtOptions { quorum, paths, alpha, trace, .. } = *options;
        Ok(Self { class, quorum, deadline, paths, alpha, trace })
    }

    /// Looks something up, and shows what was found.
    ///
    /// # Errors
    /// What keeps it from starting. That nothing was found is a reply.
    async fn look<T: 'static>(
        &self,
        call: DhtCall<(T, DhtReport)>,
        show: impl FnOnce(T) -> DhtReply,
    ) -> Result<DhtReply, String> {
        self.run(call, |(found, report)| DhtReply { way: Some(way(&report)), ..show(found) }).await
    }

    /// Stores something, and says how many were to have it.
    ///
    /// # Errors
    /// What keeps it from starting. That too few have stored it is a reply.
    async fn store(&self, dht: &Dht, kind: Kind, call: DhtCall<DhtReport>) -> Result<DhtReply, String> {
        let show = |report| DhtReply { way: Some(way(&report)), ..DhtReply::default() };
        let mut reply = self.run(call, show).await?;
        let known = dht.standing().await.map_err(|error| in_words(&error))?.usable;
        if let Some(way) = &mut reply.way {
            // More than its kind has copies none ever gets.
            let most = dht.replicas(kind);
            way.wanted = self.quorum.map_or(most.min(known), |quorum| quorum.min(most));
        }
        Ok(reply)
    }

    /// How fast, how wide and how long it looks.
    fn over<T>(&self, call: DhtCall<T>) -> DhtCall<T> {
        let call = self.deadline.into_iter().fold(call.class(self.class), DhtCall::deadline);
        let call = self.paths.into_iter().fold(call, DhtCall::paths);
        self.alpha.into_iter().fold(call, DhtCall::alpha)
    }

    async fn run<T: 'static>(
        &self,
        call: DhtCall<T>,
        show: impl FnOnce(T) -> DhtReply,
    ) -> Result<DhtReply, String> {
        let call = self.quorum.into_iter().fold(self.over(call), DhtCall::quorum);
        let (result, mut steps, steps_left_out) = if self.trace {
            let (call, mut watched) = call.watch();
            let steps = async {
                let (mut steps, mut more) = (Vec::new(), 0);
                while let Some(step) = watched.next().await {
                    match steps.len() < MAX_STEPS {
                        true => steps.push(row(&step)),
                        false => more += 1,
                    }
                }
                (steps, more)
            };
            let (result, (steps, more)) = tokio::join!(call.into_future(), steps);
            (result, steps, more)
        } else {
            (call.await, Vec::new(), 0)
        };
        let reply = match result {
            Ok(found) => show(found),
            Err(error) => {
                let report = match &error {
                    DhtError::NotFound { report } | DhtError::TooFewStored { report } => way(report),
                    _ => return Err(in_words(&error)),
                };
                DhtReply { way: Some(report), failed: Some(error.to_string()), ..DhtReply::default() }
            }
        };
        if let (true, Some(way)) = (self.trace, &reply.way) {
            end(&mut steps, way);
        }
        Ok(DhtReply { steps, steps_left_out, ..reply })
    }
}

/// A store goes on after its caller was told that enough have it: when that was stands among the steps, too.
fn end(steps: &mut Vec<StepRow>, way: &Way) {
    if steps.iter().any(|step| step.what == "ended") {
        return;
    }
    let at = steps.partition_point(|step| step.ms <= way.ms);
    let detail = way.ended.clone();
    steps.insert(at, StepRow { ms: way.ms, what: "ended".to_owned(), peer: None, detail });
}

/// An error with what users of the program can do about it, not what applications can.
fn in_words(error: &DhtError) -> String {
    match error {
        DhtError::TooManyKept { limit } => format!(
            "this node looks after as much as it may: take something back (`peerage dht remove`, `topic --leave`, `provide --stop`), or raise {limit}"
        ),
        error => error.to_string(),
    }
}

fn of_peers(peers: impl IntoIterator<Item = Named>) -> DhtReply {
    DhtReply { peers: Some(peers.into_iter().collect()), ..DhtReply::default() }
}

/// Waits for a while for a value that is newer than the known one.
async fn watch(dht: &Dht, peer: PeerId, name: String, after: Option<u64>) -> Result<DhtReply, String> {
    let changes = dht.watch(peer, name);
    let mut changes = after.into_iter().fold(changes, peerage::dht::Changes::after);
    let update = match tokio::time::timeout(WATCH_TURN, changes.next()).await {
        Ok(Some(update)) => update.map_err(|error| in_words(&error))?,
        Ok(None) | Err(_) => return Ok(DhtReply::default()),
    };
    let seq = Some(update.seq());
    let value = match update {
        Update::Value(value) => Some(Text::of(&value.body)),
        _ => None,
    };
    Ok(DhtReply { value, seq, ..DhtReply::default() })
}

fn of_value(bytes: &[u8]) -> DhtReply {
    DhtReply { value: Some(Text::of(bytes)), ..DhtReply::default() }
}

fn of_letters(letters: &[peerage::dht::Letter]) -> DhtReply {
    let letter = |letter: &peerage::dht::Letter| Letter {
        id: hex::encode(letter.id.to_bytes()),
        from: letter.from.to_string(),
        text: Text::of(&letter.body),
    };
    DhtReply { messages: Some(letters.iter().map(letter).collect()), ..DhtReply::default() }
}

/// So many bytes as hexadecimal digits.
fn digits<const N: usize>(what: &str, text: &str) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    match hex::decode_to_slice(text, &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(format!("{text:?} is not {what}, which has {} hexadecimal digits", 2 * N)),
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
        equivocation: report.equivocation.as_ref().map(|proof| Proof {
            publisher: proof.publisher.to_string(),
            records: proof.values.each_ref().map(hex::encode),
        }),
        not_stored: report.reasons().iter().map(|(why, count)| (reason(*why), *count)).collect(),
        wanted: 0,
        unsettled: report.unsettled,
        looked_after: report.looked_after,
        holders: report.holders,
    }
}

/// Why a copy was not stored, and what can be done.
fn reason(why: NotStored) -> String {
    match why {
        NotStored::Refused(Refusal::Quota) => format!(
            "{why}: nodes keep so much of one publisher at most (dht.store.publisher_bytes, dht.store.publisher_records there); take something back"
        ),
        why => why.to_string(),
    }
}

fn named(contact: &Contact) -> Named {
    Named {
        peer: contact.peer().to_string(),
        addresses: contact.addresses().iter().map(ToString::to_string).collect(),
        ..Named::default()
    }
}

fn published_row(published: &Published) -> PublishedRow {
    PublishedRow {
        what: published.what.clone(),
        state: word(&published.state),
        live: published.live,
        wanted: published.wanted,
        not_after_unix: published.not_after.as_secs(),
        renewed: published.renewed,
    }
}

fn held_row(held: &HeldRecord) -> HeldRow {
    HeldRow {
        what: held.what.clone(),
        publisher: held.publisher.to_string(),
        state: held.state.as_ref().map_or_else(|| "spare".to_owned(), word),
        live: held.live,
        wanted: held.wanted,
        not_after_unix: held.not_after.as_secs(),
    }
}

fn stats(standing: &Standing) -> Stats {
    let Standing { joined, peers, usable, connected, size, outage, operations, requests, .. } = *standing;
    let (seen, stats) = (standing.seen, standing.stats);
    Stats {
        mode: Some(match standing.mode {
            Mode::Server => Role::Serve,
            Mode::Client => Role::Client,
        }),
        joined,
        known: peers,
        usable,
        connected,
        size,
        outage,
        operations,
        requests,
        seen: Seen {
            hour: seen.hour,
            day: seen.day,
            week: seen.week,
            unique: seen.unique,
            at_least: seen.at_least,
        },
        held: Held {
            records: standing.held.records,
            bytes: standing.held.bytes,
            providers: standing.held_providers,
        },
        published: Vec::new(),
        provided: Vec::new(),
        totals: Totals {
            asked: stats.asked,
            answered: stats.answered,
            failed: stats.failed,
            cancelled: stats.cancelled,
            late: stats.late,
            served: stats.served,
            refused: stats.refused,
        },
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
            let values =
                if *values > 0 { format!(", {}", counted(*values as u64, "value")) } else { String::new() };
            (Some(peer), format!("in {:.1} ms: {closer} peers, {fresh} new{values}{late}", millis(*rtt)))
        }
        StepKind::Suspected { peer, after } => (Some(peer), format!("silent for {:.1} ms", millis(*after))),
        StepKind::Failed { peer, why } => (Some(peer), word(why)),
        StepKind::NotStored { peer, why } => (Some(peer), format!("{why:?}")),
        StepKind::Cancelled { peer }
        | StepKind::Implausible { peer }
        | StepKind::Storing { peer }
        | StepKind::Waiting { peer }
        | StepKind::Stored { peer } => (Some(peer), String::new()),
        StepKind::Crowded { score } => (
            None,
            format!("the closest lie where this network should have {score:.1}: all of them are heard"),
        ),
        StepKind::Ended(why) => (None, word(why)),
        StepKind::Later { peer, rtt, newer } => {
            (Some(peer), format!("in {:.1} ms: {newer} values that are newer", millis(*rtt)))
        }
        _ => (None, String::new()),
    };
    StepRow { ms: millis(step.at), what: word(&step.what), peer: peer.map(ToString::to_string), detail }
}
