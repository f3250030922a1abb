//! `peerage dht`: what is asked of the running node, and how its answers are shown.

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{PATIENCE, carry_out_within, write_whole};
use crate::args::{DhtAction, DhtClass, DhtHow, DhtPace, HeldBy, Operator};
use crate::control::Command;
use crate::control::dht::{
    DhtAct, DhtOptions, DhtReply, HeldRow, MAX_MEMBERS, Named, PublishedRow, Role, Stats, StepRow, Text, Way,
};
use crate::failure::Failure;
use crate::term::{self, complain, counted, one_line, plain_table, print, say};

/// Members of a topic that are shown, unless the caller says otherwise.
const MEMBERS: usize = 100;
/// No record holds more, whatever the network's settings are; the node knows its own limits, which are lower.
const MAX_VALUE_BYTES: usize = 10 * 1024;
/// The width of a timeline's bar.
const BAR: usize = 25;

/// What is asked, and what is done with the answer.
struct Question {
    operator: Operator,
    act: DhtAct,
    options: DhtOptions,
    show: fn(&DhtReply) -> Vec<String>,
    then: Then,
}

/// What is done when the answer has been shown.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    Nothing,
    /// The value goes here, too.
    Write(std::path::PathBuf),
    /// The messages that were shown are cleared.
    Clear,
}

/// Carries out `peerage dht`.
pub(super) async fn run(action: DhtAction) -> Result<(), Failure> {
    if let DhtAction::Get { held_by: HeldBy::Peer(peer), name: Some(name), watch: true, how, .. } = action {
        return watch(&how.operator, &peer.to_string(), &name).await;
    }
    let Question { operator, act, options, show, then } = question(action)?;
    let (patience, quorum) = (patience(options.deadline_ms), options.quorum);
    let command = Command::Dht { act, options: options.clone() };
    let value = answer(&operator, &command, patience).await?;
    let reply: DhtReply = serde_json::from_value(value.clone())
        .map_err(|error| Failure::failed(format!("the node's answer is not understood: {error}")))?;
    if let (Then::Write(path), Some(value)) = (&then, &reply.value) {
        write_value(path, value)?;
    }
    let shown = match operator.json {
        true => print(&[term::json(&value)]),
        false => {
            let mut lines = timeline(&reply);
            if !matches!(then, Then::Write(_)) {
                lines.extend(show(&reply));
            }
            print(&lines)
        }
    };
    if let Some(failed) = reply.failed {
        return Err(Failure::failed(failed));
    }
    if let (false, Some(way)) = (operator.json, &reply.way) {
        told(way, quorum).iter().for_each(|line| complain(line));
    }
    match then {
        Then::Clear => clear(&operator, options, &reply, shown).await,
        Then::Nothing | Then::Write(_) => Ok(()),
    }
}

/// Shows a value now and whenever it changes, until the node is gone or the command is interrupted.
async fn watch(operator: &Operator, peer: &str, name: &str) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let act = DhtAct::Watch { peer: peer.to_owned(), name: name.to_owned(), after };
        let command = Command::Dht { act, options: DhtOptions::default() };
        let told = answer(operator, &command, PATIENCE).await?;
        let text = term::json(&told);
        let reply: DhtReply = serde_json::from_value(told)
            .map_err(|error| Failure::failed(format!("the node's answer is not understood: {error}")))?;
        if let Some(failed) = reply.failed {
            return Err(Failure::failed(failed));
        }
        let Some(seq) = reply.seq else { continue };
        after = Some(seq);
        let shown = match (operator.json, reply.value.is_some()) {
            (true, _) => print(&[text]),
            (false, true) => print(&value(&reply)),
            (false, false) => {
                complain("it was taken away");
                Ok(())
            }
        };
        if shown.is_err() {
            // Nobody reads it any more; the program says why where that was not meant.
            return Ok(());
        }
    }
}

/// The node's answer. Whoever reads JSON finds a failure there, too.
async fn answer(operator: &Operator, command: &Command, patience: Duration) -> Result<Value, Failure> {
    let answered = carry_out_within(operator, command, patience).await;
    answered.inspect_err(|failure| {
        if operator.json {
            say(&term::json(&json!({ "failed": failure.message() })));
        }
    })
}

/// How long the node may take: longer than the operation.
fn patience(deadline_ms: Option<u64>) -> Duration {
    PATIENCE + deadline_ms.map_or(Duration::ZERO, Duration::from_millis)
}

/// Takes the messages that were shown out of the mailbox.
async fn clear(
    operator: &Operator,
    options: DhtOptions,
    reply: &DhtReply,
    shown: io::Result<()>,
) -> Result<(), Failure> {
    let ids: Vec<_> = reply.messages.iter().flatten().map(|letter| letter.id.clone()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let stay = |why: String| {
        Failure::failed(format!("the messages stay in the mailbox, and are shown again next time: {why}"))
    };
    shown.map_err(|error| stay(format!("they cannot be shown: {error}")))?;
    if !term::is_read() {
        return Err(stay("standard output is closed, or is the null device".to_owned()));
    }
    let patience = patience(options.deadline_ms);
    let options = DhtOptions { trace: false, ..options };
    let command = Command::Dht { act: DhtAct::ClearMailbox { ids }, options };
    let value = carry_out_within(operator, &command, patience).await;
    let value = value.map_err(|failure| stay(failure.message().to_owned()))?;
    let failed = serde_json::from_value(value).map(|reply: DhtReply| reply.failed);
    match failed {
        Ok(None) => Ok(()),
        Ok(Some(why)) => Err(stay(why)),
        Err(error) => Err(stay(error.to_string())),
    }
}

/// What is asked of the node, how its reply is shown, and what comes then.
fn question(action: DhtAction) -> Result<Question, Failure> {
    let nothing = |_: &DhtReply| Vec::new();
    Ok(match action {
        DhtAction::Put { name, value, file, immutable, stored, how } => {
            let act = put(name, value, file.as_deref(), immutable)?;
            ask(how, stored.quorum, act, hash)
        }
        DhtAction::Remove { name, immutable: true, how, .. } => {
            plain(how.operator, DhtAct::ForgetImmutable { hash: name }, nothing)
        }
        DhtAction::Remove { name, stored, how, .. } => {
            ask(how, stored.quorum, DhtAct::Remove { name }, nothing)
        }
        DhtAction::Get { held_by, name, file, quorum, how, watch: _ } => {
            let asked = ask(how, quorum, get(held_by, name, quorum)?, value);
            Question { then: file.map_or(Then::Nothing, Then::Write), ..asked }
        }
        DhtAction::Find { peer, how } => ask(how, None, DhtAct::Find { peer: peer.to_string() }, peers),
        DhtAction::Closest { key, how } => ask(how, None, DhtAct::Closest { key }, peers),
        DhtAction::Provide { key, stop: true, how, .. } => {
            plain(how.operator, DhtAct::StopProviding { key }, nothing)
        }
        DhtAction::Provide { key, stored, how, .. } => {
            ask(how, stored.quorum, DhtAct::Provide { key }, nothing)
        }
        DhtAction::Providers { key, most, how } => {
            ask(how, None, DhtAct::Providers { key, most: most.into() }, peers)
        }
        DhtAction::Topic { topic, leave: true, quorum, how, .. } => {
            ask(how, quorum, DhtAct::Leave { topic }, nothing)
        }
        DhtAction::Topic { join: None, quorum: Some(_), .. } => {
            return Err(Failure::usage("--quorum is of use with --join and --leave: to read needs none"));
        }
        DhtAction::Topic { topic, join, tag, protocol, most, quorum, how, .. } => {
            let (tags, protocols) = (tag, protocol);
            match join {
                Some(brief) => ask(how, quorum, DhtAct::Announce { topic, brief, tags, protocols }, nothing),
                None => {
                    let most = most.map_or(MEMBERS, usize::from).min(MAX_MEMBERS);
                    ask(how, None, DhtAct::Topic { topic, most, tags, protocols }, peers)
                }
            }
        }
        DhtAction::Mail { peer: Some(peer), text, quorum, how, .. } => {
            let text = Text::of(&content(text, None)?);
            ask(how, quorum, DhtAct::Mail { peer: peer.to_string(), text }, nothing)
        }
        DhtAction::Mail { peer: None, keep, how, .. } => {
            let then = if keep { Then::Nothing } else { Then::Clear };
            Question { then, ..ask(how, None, DhtAct::Mailbox, letters) }
        }
        DhtAction::Trace { key, pace, operator } => {
            ask(DhtHow { pace, trace: true, operator }, None, DhtAct::Closest { key }, peers)
        }
        DhtAction::Table(operator) => plain(operator, DhtAct::Table, table),
        DhtAction::Held { most, operator } => plain(operator, DhtAct::Held { most: most.into() }, held),
        DhtAction::Stats(operator) => plain(operator, DhtAct::Stats, stats),
        DhtAction::Mode { mode, operator } => plain(operator, DhtAct::Mode { mode }, nothing),
    })
}

fn plain(operator: Operator, act: DhtAct, show: fn(&DhtReply) -> Vec<String>) -> Question {
    Question { operator, act, options: DhtOptions::default(), show, then: Then::Nothing }
}

fn ask(how: DhtHow, quorum: Option<u16>, act: DhtAct, show: fn(&DhtReply) -> Vec<String>) -> Question {
    let DhtHow { pace: DhtPace { class, deadline, paths, alpha }, trace, operator } = how;
    let class = match class {
        DhtClass::Interactive => "interactive",
        DhtClass::Normal => "normal",
        DhtClass::Frugal => "frugal",
    };
    let options = DhtOptions {
        class: Some(class.to_owned()),
        quorum: quorum.map(usize::from),
        deadline_ms: deadline.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        paths: paths.map(usize::from),
        alpha: alpha.map(usize::from),
        trace,
    };
    Question { operator, act, options, show, then: Then::Nothing }
}

fn put(
    name: Option<String>,
    value: Option<String>,
    file: Option<&Path>,
    immutable: bool,
) -> Result<DhtAct, Failure> {
    // Content that its hash names has no other name: what comes first is the value.
    let (name, value) = match (immutable, value) {
        (true, None) => (None, name),
        (true, Some(_)) => {
            return Err(Failure::usage("--immutable takes a value and no name: its hash names it"));
        }
        (false, value) => (name, value),
    };
    let value = Text::of(&content(value, file)?);
    Ok(match name {
        Some(name) => DhtAct::Put { name, value },
        None => DhtAct::PutImmutable { value },
    })
}

fn get(held_by: HeldBy, name: Option<String>, quorum: Option<u16>) -> Result<DhtAct, Failure> {
    match (held_by, name) {
        (HeldBy::Peer(peer), Some(name)) => Ok(DhtAct::Get { peer: peer.to_string(), name }),
        (HeldBy::Peer(_), None) => {
            Err(Failure::usage("a peer keeps several values: say what this one is called"))
        }
        (HeldBy::Hash(hash), None) if quorum.is_none() => Ok(DhtAct::GetImmutable { hash }),
        (HeldBy::Hash(_), None) => Err(Failure::usage(
            "--quorum is of no use with a hash: content that it names needs nobody else's word",
        )),
        (HeldBy::Hash(_), Some(_)) => Err(Failure::usage("content that its hash names has no other name")),
    }
}

/// What is to be kept or sent: the argument, a file or standard input. No more is read than a record can hold.
fn content(argument: Option<String>, file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let (name, content) = match (argument, file) {
        (Some(_), Some(_)) => {
            return Err(Failure::usage("there are two values: give one as an argument or with --file"));
        }
        (None, None) => {
            return Err(Failure::usage("there is no value: give one as an argument or with --file"));
        }
        (Some(text), None) if text != "-" => ("the value".to_owned(), Ok(text.into_bytes())),
        (_, Some(file)) if file.as_os_str() != "-" => {
            let opened = std::fs::File::open(file);
            (file.display().to_string(), opened.and_then(read_some))
        }
        _ => ("standard input".to_owned(), read_some(io::stdin().lock())),
    };
    let content = content.map_err(|error| Failure::failed(format!("{name} cannot be read: {error}")))?;
    if content.len() <= MAX_VALUE_BYTES {
        return Ok(content);
    }
    Err(Failure::failed(format!("{name} has more than {MAX_VALUE_BYTES} bytes, which no record holds")))
}

fn read_some(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_VALUE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write_value(path: &Path, value: &Text) -> Result<(), Failure> {
    let bytes = value
        .clone()
        .into_bytes()
        .map_err(|error| Failure::failed(format!("the node's answer is not understood: {error}")))?;
    if path.as_os_str() == "-" {
        term::bytes(&bytes);
        return Ok(());
    }
    write_whole(path, &bytes)
        .map_err(|error| Failure::failed(format!("{} cannot be written: {error}", path.display())))
}

/// How a lookup went: first why it is not whole, if it isn't.
fn told(way: &Way, quorum: Option<usize>) -> Vec<String> {
    let Way { asked, answered, failed, cancelled, stored, warm, hops, ms, dense, not_stored, .. } = way;
    let partial = match way.ended.as_str() {
        "deadline" => Some("the time was up: there may be more (--deadline)"),
        "cancelled" => Some("it was cancelled: there may be more"),
        "too many" => Some(
            "too many operations were under way to look everywhere: there may be more (dht.lookup.max_operations)",
        ),
        "no contacts" => Some("nobody was known any more before all was seen: there may be more"),
        "exhausted" => Some(
            "as many nodes were asked as one lookup may ask: there may be more (dht.lookup.max_requests)",
        ),
        _ => None,
    };
    let stored = if *stored > 0 { format!("stored at {stored}; ") } else { String::new() };
    let under_way = match asked.saturating_sub(answered.saturating_add(*failed).saturating_add(*cancelled)) {
        0 => String::new(),
        some => format!(", {some} under way"),
    };
    let hops = counted(u64::from(*hops), "hop");
    let mut lines = vec![format!(
        "{stored}{asked} asked ({warm} over connections that stood), {answered} answered, {failed} failed, {cancelled} cancelled{under_way}; {hops}, {ms:.1} ms"
    )];
    lines.extend(partial.map(str::to_owned));
    lines.extend(too_few(way, quorum));
    lines.extend(not_stored.iter().map(|(why, count)| format!("not stored at {count}: {why}")));
    if *dense {
        let dense = "the nodes around the key are denser than an honest network has them: somebody may be hiding something";
        lines.push(dense.to_owned());
    }
    if let Some(proof) = &way.equivocation {
        let publisher = &proof.publisher;
        lines.push(format!(
            "{publisher} has signed two things under one number: --json shows both, as a proof"
        ));
    }
    lines
}

/// That fewer nodes have something than should: what was stored, or what was found with a quorum.
fn too_few(way: &Way, quorum: Option<usize>) -> Option<String> {
    let Way { stored, wanted, unsettled, looked_after, holders, .. } = way;
    let stored = usize::try_from(*stored).unwrap_or(usize::MAX);
    // Half of them are enough for now while others are being told.
    let enough = if *unsettled { wanted.div_ceil(2) } else { *wanted };
    if *wanted > 0 && stored < enough {
        let then = match looked_after {
            true => "the node tries on",
            false => "send it again if it matters",
        };
        return Some(format!("warning: only {stored} of the {wanted} nodes that should have it do: {then}"));
    }
    let quorum = quorum.filter(|_| *wanted == 0 && *holders > 0 && way.ended != "found")?;
    let nodes = counted(*holders as u64, "node");
    Some(format!(
        "warning: the quorum of {quorum} was not met: {nodes} had it, and those of one network count as one"
    ))
}

/// A value: as it is for whatever reads it, and so that it does nothing but be seen on a terminal.
fn value(reply: &DhtReply) -> Vec<String> {
    let shown = |value: &Text| match term::is_terminal() {
        true => term::lines(value.as_str()),
        false => value.as_str().to_owned(),
    };
    reply.value.iter().map(shown).collect()
}

/// The name of content.
fn hash(reply: &DhtReply) -> Vec<String> {
    reply.hash.iter().filter(|_| reply.failed.is_none()).cloned().collect()
}

/// Peers, and where they can be reached.
fn peers(reply: &DhtReply) -> Vec<String> {
    let Some(peers) = &reply.peers else { return Vec::new() };
    let mut lines = Vec::new();
    for Named { peer, addresses, note, tags, protocols } in peers {
        let words = [note].into_iter().chain(tags).chain(protocols).filter(|word| !word.is_empty());
        let words: Vec<_> = words.map(|word| one_line(word)).collect();
        lines.push(format!("{peer}  {}", words.join("  ")).trim_end().to_owned());
        lines.extend(addresses.iter().map(|address| format!("  {address}")));
    }
    if peers.is_empty() {
        lines.push("nobody".to_owned());
    }
    if reply.more == Some(true) {
        lines.push(format!("there are more than these {}: --most N shows more of them", peers.len()));
    }
    lines
}

/// Messages of a mailbox.
fn letters(reply: &DhtReply) -> Vec<String> {
    match reply.messages.as_deref() {
        None => Vec::new(),
        Some([]) => vec!["no messages".to_owned()],
        Some(letters) => {
            // What a message has below its first line stands aside, so that it is not taken for another message.
            let line = |from: &str, text: &Text| {
                let text = term::lines(text.as_str().trim_end()).replace('\n', "\n    ");
                format!("from {from}: {text}")
            };
            letters.iter().map(|letter| line(&letter.from, &letter.text)).collect()
        }
    }
}

/// How the DHT is.
fn stats(reply: &DhtReply) -> Vec<String> {
    let Some(stats) = &reply.stats else { return Vec::new() };
    let Stats { known, usable, connected, operations, requests, seen, held, totals, .. } = stats;
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let size = stats.size.map_or("not measured yet".to_owned(), |size| format!("about {size:.0} nodes"));
    let least = if seen.at_least { "at least " } else { "" };
    let mut table = plain_table();
    let role = match stats.mode {
        Some(Role::Serve) => "serves",
        Some(Role::Client) => "only asks",
        None => "does not say whether it serves",
    };
    for (name, fact) in [
        ("the node", role.to_owned()),
        ("joined", yes(stats.joined)),
        ("nodes known", format!("{known}, {usable} of them can be asked")),
        ("connected", connected.to_string()),
        ("the network has", size),
        ("own network suspected", yes(stats.outage)),
        ("operations under way", operations.to_string()),
        ("requests under way", requests.to_string()),
        ("seen in an hour, a day, a week", format!("{least}{}, {}, {}", seen.hour, seen.day, seen.week)),
        ("records held", format!("{} of {} bytes, {} providers", held.records, held.bytes, held.providers)),
        ("asked", totals.asked.to_string()),
        ("answered", totals.answered.to_string()),
        ("failed", totals.failed.to_string()),
        ("cancelled", totals.cancelled.to_string()),
        ("served", totals.served.to_string()),
        ("refused to serve", totals.refused.to_string()),
    ] {
        table.add_row([name, &fact]);
    }
    for PublishedRow { what, state, live, wanted, .. } in &stats.published {
        let what = format!("published: {}", one_line(what));
        table.add_row([&what, &format!("{state}, at {live} of {wanted} nodes")]);
    }
    for key in &stats.provided {
        table.add_row(["provided", &one_line(key.as_str())]);
    }
    vec![table.trim_fmt()]
}

/// The routing table.
fn table(reply: &DhtReply) -> Vec<String> {
    let Some(peers) = reply.peers.as_deref().filter(|peers| !peers.is_empty()) else {
        return vec!["nobody is known".to_owned()];
    };
    let mut table = plain_table();
    table.set_header(["peer", "state", "address"]);
    for Named { peer, addresses, note, .. } in peers {
        let address = addresses.first().map_or("", String::as_str);
        table.add_row([peer.as_str(), note, address]);
    }
    vec![table.trim_fmt()]
}

/// What is kept.
fn held(reply: &DhtReply) -> Vec<String> {
    let Some(held) = reply.held.as_deref().filter(|held| !held.is_empty()) else {
        return vec!["no record is kept".to_owned()];
    };
    let mut table = plain_table();
    table.set_header(["record", "of", "state", "copies"]);
    for HeldRow { what, publisher, state, live, wanted, .. } in held {
        table.add_row([&one_line(what), publisher, state, &format!("{live} of {wanted} known")]);
    }
    let more = (reply.more == Some(true)).then(|| format!("there are more than these {}", held.len()));
    [table.trim_fmt()].into_iter().chain(more).collect()
}

/// An operation as a timeline: when each node was asked and how long it took.
fn timeline(reply: &DhtReply) -> Vec<String> {
    let last = reply.steps.last().map_or(0.0, |step| step.ms).max(0.001);
    let row = |StepRow { ms, what, peer, detail }: &StepRow| {
        let place = ((ms / last) * (BAR - 1) as f64).clamp(0.0, (BAR - 1) as f64) as usize;
        let bar: String = (0..BAR).map(|at| if at == place { '|' } else { '.' }).collect();
        let peer = peer.as_deref().unwrap_or_default();
        let short = peer.get(peer.len().saturating_sub(8)..).unwrap_or(peer);
        format!("{ms:>9.1} ms {bar} {what:<10} {short:<8} {detail}").trim_end().to_owned()
    };
    let more = (reply.steps_left_out > 0).then(|| format!("and {} further steps", reply.steps_left_out));
    reply.steps.iter().map(row).chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::dht::Proof;

    #[test]
    fn the_program_waits_longer_than_the_operation_may_take() {
        for deadline in [1, 10_000, 60_000, 3_600_000] {
            assert!(patience(Some(deadline)) >= Duration::from_millis(deadline) + PATIENCE);
        }
        assert!(patience(None) >= Duration::from_secs(60));
    }

    #[test]
    fn what_is_not_whole_says_why_and_who_contradicts_himself_is_named() {
        let way = |ended: &str| Way { ended: ended.to_owned(), ..Way::default() };
        assert_eq!(told(&way("complete"), None).len(), 1);
        for (ended, why) in
            [("deadline", "--deadline"), ("exhausted", "dht.lookup.max_requests"), ("cancelled", "more")]
        {
            let lines = told(&way(ended), None);
            assert!(lines.len() == 2 && lines[1].contains(why), "{lines:?}");
        }
        let proof = Proof { publisher: "somebody".to_owned(), ..Proof::default() };
        let lines = told(&Way { equivocation: Some(proof), dense: true, ..way("found") }, None);
        assert!(lines[1].contains("denser") && lines[2].starts_with("somebody has signed two"), "{lines:?}");
    }

    #[test]
    fn what_too_few_have_says_so() {
        let stored = |stored, wanted, unsettled| {
            let way = Way { ended: "stored".to_owned(), stored, wanted, unsettled, ..Way::default() };
            told(&way, None)
        };
        for (have, wanted, unsettled) in [(7, 7, false), (4, 7, true), (1, 1, false), (12, 0, false)] {
            assert_eq!(stored(have, wanted, unsettled).len(), 1);
        }
        for unsettled in [false, true] {
            let lines = stored(1, 7, unsettled);
            assert!(lines[1].starts_with("warning: only 1 of the 7 nodes"), "{lines:?}");
        }
        let found = |ended: &str, quorum| {
            told(&Way { ended: ended.to_owned(), holders: 1, ..Way::default() }, quorum)
        };
        assert_eq!((found("found", Some(1)).len(), found("complete", None).len()), (1, 1));
        let lines = found("complete", Some(3));
        assert!(lines[1].contains("quorum of 3 was not met: 1 node had it"), "{lines:?}");
        let way = Way { asked: 14, answered: 11, hops: 1, ..Way::default() };
        assert!(told(&way, None)[0].contains("0 cancelled, 3 under way; 1 hop, "), "{:?}", told(&way, None));
    }

    #[test]
    fn a_list_that_was_cut_says_so() {
        let named = |peer: &str| Named { peer: peer.to_owned(), ..Named::default() };
        let mut reply = DhtReply { peers: Some(vec![named("a"), named("b")]), ..DhtReply::default() };
        assert_eq!(peers(&reply), ["a", "b"]);
        reply.more = Some(false);
        assert_eq!(peers(&reply), ["a", "b"]);
        reply.more = Some(true);
        let lines = peers(&reply);
        assert!(lines[2].contains("more than these 2") && lines[2].contains("--most"), "{lines:?}");
        assert_eq!(peers(&DhtReply { peers: Some(Vec::new()), ..DhtReply::default() }), ["nobody"]);
    }

    #[test]
    fn a_timeline_that_was_cut_says_so() {
        let step = |ms| StepRow { ms, what: "asked".into(), peer: None, detail: String::new() };
        let reply = DhtReply { steps: vec![step(0.0), step(5.0)], steps_left_out: 7, ..DhtReply::default() };
        let lines = timeline(&reply);
        assert_eq!(lines.len(), 3);
        assert!(lines[2].contains('7'), "{lines:?}");
        assert!(lines[0].contains(&format!("|{}", ".".repeat(BAR - 1))), "{lines:?}");
        assert!(lines[1].contains(&format!("{}|", ".".repeat(BAR - 1))), "{lines:?}");
    }
}
