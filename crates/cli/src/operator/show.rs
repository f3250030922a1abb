//! How the replies of a node are shown to people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::control::{BanRow, ClassRow, PeerRow, SecretReport, Status};
use crate::term::{lines, one_line, plain_table, say, size};

/// Shows a reply; an error says what was not understood.
pub(super) type Show = fn(Value) -> Result<(), String>;

/// The reply to [`crate::control::Command::Status`].
pub(super) fn status(value: Value) -> Result<(), String> {
    let status: Status = read(value)?;
    let mut table = plain_table();
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_ms / 1000)).to_string();
    table.add_row(["peer ID", &status.peer_id]);
    table.add_row(["moniker", &one_line(&status.moniker)]);
    table.add_row(["network", &status.network]);
    table.add_row(["version", &status.version]);
    table.add_row(["process", &status.pid.to_string()]);
    table.add_row(["up for", &uptime]);
    table.add_row(["connected peers", &status.peers.to_string()]);
    for address in &status.listening {
        table.add_row(["listening", address]);
    }
    for address in &status.observed {
        table.add_row(["seen by peers at", address]);
    }
    say(&table.trim_fmt());
    Ok(())
}

/// The reply to [`crate::control::Command::Peers`].
pub(super) fn peers(value: Value) -> Result<(), String> {
    let rows: Vec<PeerRow> = read(value)?;
    if rows.is_empty() {
        say("no peers are connected");
        return Ok(());
    }
    let mut table = plain_table();
    table.set_header(["peer", "direction", "address", "rtt", "loss", "sent", "received", "moniker", "agent"]);
    for row in rows {
        let rtt = format!("{:.2} ms", row.ping_ms.unwrap_or(row.rtt_ms));
        let loss = format!("{:.1} %", 100.0 * row.lost_packets as f64 / (row.sent_packets as f64).max(1.0));
        table.add_row([
            row.peer,
            row.direction,
            row.address,
            rtt,
            loss,
            size(row.sent_bytes),
            size(row.received_bytes),
            one_line(&row.moniker),
            one_line(&row.agent),
        ]);
    }
    say(&table.trim_fmt());
    Ok(())
}

/// The reply to [`crate::control::Command::Bans`].
pub(super) fn bans(value: Value) -> Result<(), String> {
    let rows: Vec<BanRow> = read(value)?;
    if rows.is_empty() {
        say("nobody is banned");
        return Ok(());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut table = plain_table();
    table.set_header(["target", "ends in", "for", "reason"]);
    for row in rows {
        let left = row.until_unix_ms.map(|until| Duration::from_millis(until).saturating_sub(now).as_secs());
        let left = left.map_or("never".to_owned(), |left| {
            humantime::format_duration(Duration::from_secs(left)).to_string()
        });
        let what = row.penalty.unwrap_or_else(|| "by the user".to_owned());
        table.add_row([row.target, left, what, one_line(&row.reason)]);
    }
    say(&table.trim_fmt());
    Ok(())
}

/// The part of the reply to [`crate::control::Command::Classes`] that has one class.
pub(super) fn classes(value: Value) -> Result<(), String> {
    let rows: Vec<ClassRow> = read(value)?;
    if rows.is_empty() {
        say("none");
    }
    rows.iter().for_each(|row| say(&row.peer));
    Ok(())
}

/// The reply to [`crate::control::Command::Allowed`].
pub(super) fn allowed(value: Value) -> Result<(), String> {
    match read::<Option<Vec<String>>>(value)? {
        None => say("there is no allow-list: everyone is allowed"),
        Some(peers) if peers.is_empty() => say("nobody is allowed"),
        Some(peers) => peers.iter().for_each(|peer| say(peer)),
    }
    Ok(())
}

/// The reply to [`crate::control::Command::Listening`].
pub(super) fn listening(value: Value) -> Result<(), String> {
    let addresses: Vec<String> = read(value)?;
    if addresses.is_empty() {
        say("the node listens nowhere");
    }
    addresses.iter().for_each(|address| say(address));
    Ok(())
}

/// The reply to [`crate::control::Command::SecretReload`].
pub(super) fn secrets(value: Value) -> Result<(), String> {
    let SecretReport { secrets } = read(value)?;
    say(&match secrets {
        1 => "one secret is taken now".to_owned(),
        many => format!("{many} secrets are taken now"),
    });
    Ok(())
}

/// A reply that has its text in a field of that name.
pub(super) fn text(value: Value) -> Result<(), String> {
    let text: Text = read(value)?;
    lines(&text.text).lines().for_each(say);
    Ok(())
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

/// A reply that is only a good word.
pub(super) fn done(_: Value) -> Result<(), String> {
    Ok(())
}

pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}
