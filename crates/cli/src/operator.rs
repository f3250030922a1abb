//! The commands that talk to a running node over the socket in its data folder.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::args::{AllowAction, BookAction, Operator};
use crate::control::{Call, Command, Outcome, PeerRow, Reply, Status, Why, socket};
use crate::failure::Failure;
use crate::node::data_dir;
use crate::settings::PathText;
use crate::term::{one_line, plain_table, say};

/// The longest reply that is read, in bytes: an address book of the largest size fits.
const MAX_REPLY_BYTES: u64 = 256 * 1024 * 1024;
/// How long the node may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Carries a command out at the running node and shows what it says.
pub(crate) async fn run(
    operator: &Operator,
    command: Command,
    show: fn(Value) -> Result<(), String>,
) -> Result<(), Failure> {
    let data = data_dir(operator.data.clone().map(PathText))?;
    let value = tokio::time::timeout(PATIENCE, ask(&data, &command)).await.map_err(|_| {
        Failure::failed(format!(
            "the node on {} did not answer within {} s",
            data.display(),
            PATIENCE.as_secs()
        ))
    })??;
    if operator.json {
        say(&value.to_string());
        return Ok(());
    }
    show(value).map_err(|error| Failure::failed(format!("the node's answer cannot be shown: {error}")))
}

/// Sends one command and reads its reply.
async fn ask(data: &Path, command: &Command) -> Result<Value, Failure> {
    let stream = socket::connect(data).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::failed(format!(
            "no node runs on {}: start one with `peerage node`, or name its folder with --data DIR",
            data.display()
        )),
        io::ErrorKind::PermissionDenied => Failure::failed(format!(
            "the node on {} belongs to another user: only its owner can command it",
            data.display()
        )),
        _ => Failure::failed(format!("the node on {} cannot be reached: {error}", data.display())),
    })?;
    let (input, mut output) = stream.into_split();
    let line = serde_json::to_string(&Call { id: 1, command }).expect("commands have only string keys");
    let gone =
        |error: io::Error| Failure::failed(format!("the node on {} went away: {error}", data.display()));
    output.write_all(format!("{line}\n").as_bytes()).await.map_err(gone)?;
    let mut input = BufReader::new(input).take(MAX_REPLY_BYTES);
    let mut line = String::new();
    loop {
        line.clear();
        if input.read_line(&mut line).await.map_err(gone)? == 0 {
            return Err(Failure::failed(format!(
                "the node on {} went away without an answer",
                data.display()
            )));
        }
        let reply: Value = serde_json::from_str(&line)
            .map_err(|error| Failure::failed(format!("the node's answer is not JSON: {error}")))?;
        if reply.get("event").is_some() {
            continue;
        }
        let reply: Reply = serde_json::from_value(reply)
            .map_err(|error| Failure::failed(format!("the node's answer is not understood: {error}")))?;
        return match reply.outcome {
            Outcome::Ok(value) => Ok(value),
            Outcome::Error(error) => Err(Failure::failed(error)),
        };
    }
}

/// Shows the reply to [`Command::Status`].
pub(crate) fn show_status(value: Value) -> Result<(), String> {
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
    say(&table.trim_fmt());
    Ok(())
}

/// Shows the reply to [`Command::Peers`].
pub(crate) fn show_peers(value: Value) -> Result<(), String> {
    let rows: Vec<PeerRow> = read(value)?;
    if rows.is_empty() {
        say("no peers are connected");
        return Ok(());
    }
    let mut table = plain_table();
    table.set_header(["peer", "direction", "address", "rtt", "moniker", "agent"]);
    for row in rows {
        let rtt = format!("{:.2} ms", row.ping_ms.unwrap_or(row.rtt_ms));
        table.add_row([
            row.peer,
            row.direction,
            row.address,
            rtt,
            one_line(&row.moniker),
            one_line(&row.agent),
        ]);
    }
    say(&table.trim_fmt());
    Ok(())
}

/// Shows the reply to [`Command::Why`].
pub(crate) fn show_why(value: Value) -> Result<(), String> {
    let why: Why = read(value)?;
    say(why.text.trim_end());
    Ok(())
}

/// Carries out `peerage book`.
pub(crate) async fn book(action: BookAction) -> Result<(), Failure> {
    match action {
        BookAction::Export { file: None, operator } => {
            run(&operator, Command::BookExport, |value| {
                say(read::<String>(value)?.as_str());
                Ok(())
            })
            .await
        }
        BookAction::Export { file: Some(file), operator } => {
            let data = data_dir(operator.data.clone().map(PathText))?;
            let book = ask(&data, &Command::BookExport).await?;
            let book: String = read(book).map_err(Failure::failed)?;
            tokio::fs::write(&file, book)
                .await
                .map_err(|error| Failure::failed(format!("{} cannot be written: {error}", file.display())))
        }
        BookAction::Import { file, operator } => {
            let path = std::path::absolute(&file)
                .map_err(|error| Failure::failed(format!("{} is no path: {error}", file.display())))?;
            run(&operator, Command::BookImport { path }, |value| {
                say(&format!("{} entries read", read::<usize>(value)?));
                Ok(())
            })
            .await
        }
    }
}

/// Shows the reply to [`Command::Allowed`].
pub(crate) fn show_allowed(value: Value) -> Result<(), String> {
    match read::<Option<Vec<String>>>(value)? {
        None => say("there is no allow-list: everyone is allowed"),
        Some(peers) if peers.is_empty() => say("nobody is allowed"),
        Some(peers) => peers.iter().for_each(|peer| say(peer)),
    }
    Ok(())
}

/// Carries out `peerage allow`.
pub(crate) async fn allow(action: AllowAction) -> Result<(), Failure> {
    let (operator, command) = match action {
        AllowAction::Add { peer, operator } => (operator, Command::Allow { peer: peer.to_string() }),
        AllowAction::Remove { peer, operator } => (operator, Command::Disallow { peer: peer.to_string() }),
        AllowAction::List(operator) => (operator, Command::Allowed),
    };
    run(&operator, command, show_allowed).await
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}
