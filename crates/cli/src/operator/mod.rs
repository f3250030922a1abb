//! The commands that talk to a running node over the socket in its data folder.

mod dht;
mod show;

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::args::{AllowAction, Ask, BookAction, ListenAction, Operator, SecretAction, Standing};
use crate::control::{Call, Command, Outcome, Reply, socket};
use crate::failure::Failure;
use crate::node::data_dir;
use crate::settings::PathText;
use crate::term::{self, say};
use show::Show;

/// The longest reply that is read, in bytes: an address book of the largest size fits.
const MAX_REPLY_BYTES: u64 = 256 * 1024 * 1024;
/// How long the node may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Carries out a command of the command line at the running node.
pub(crate) async fn run(what: Ask) -> Result<(), Failure> {
    let (operator, command, show): (Operator, Command, Show) = match what {
        Ask::Status(operator) => (operator, Command::Status, show::status),
        Ask::Peers { ping, operator } => (operator, Command::Peers { ping }, show::peers),
        Ask::Why { peer, operator } => (operator, Command::Why { peer: peer.to_string() }, show::text),
        Ask::Ban { target, reason, lasts, operator } => {
            let seconds = lasts.map(|lasts| lasts.as_secs().max(1));
            (operator, Command::Ban { target, reason, seconds }, show::done)
        }
        Ask::Unban { target, operator } => (operator, Command::Unban { target }, show::done),
        Ask::Bans(operator) => (operator, Command::Bans, show::bans),
        Ask::Persistent { action } => standing(action, "persistent"),
        Ask::Private { action } => standing(action, "private"),
        Ask::Unconditional { action } => standing(action, "unconditional"),
        Ask::Allow { action: AllowAction::Add { peer, operator } } => {
            (operator, Command::Allow { peer: peer.to_string() }, show::allowed)
        }
        Ask::Allow { action: AllowAction::Remove { peer, operator } } => {
            (operator, Command::Disallow { peer: peer.to_string() }, show::allowed)
        }
        Ask::Allow { action: AllowAction::List(operator) } => (operator, Command::Allowed, show::allowed),
        Ask::Book { action } => return book(action).await,
        Ask::Dht { action } => return dht::run(action).await,
        Ask::Metrics(operator) => (operator, Command::Metrics, show::text),
        Ask::Listen { action: ListenAction::Add { address, operator } } => {
            (operator, Command::Listen { address: address.to_string() }, show::listening)
        }
        Ask::Listen { action: ListenAction::Remove { address, operator } } => {
            (operator, Command::StopListening { address: address.to_string() }, show::listening)
        }
        Ask::Listen { action: ListenAction::List(operator) } => {
            (operator, Command::Listening, show::listening)
        }
        Ask::Secret { action: SecretAction::Reload(operator) } => {
            (operator, Command::SecretReload, show::secrets)
        }
    };
    let value = carry_out(&operator, &command).await?;
    if operator.json {
        say(&term::json(&value));
        return Ok(());
    }
    show(value).map_err(|error| Failure::failed(format!("the node's answer cannot be shown: {error}")))
}

fn standing(action: Standing, class: &str) -> (Operator, Command, Show) {
    let class = class.to_owned();
    match action {
        Standing::Add { peer, operator } => (operator, Command::Class { peer, class, on: true }, show::done),
        Standing::Remove { peer, operator } => {
            (operator, Command::Class { peer, class, on: false }, show::done)
        }
        Standing::List(operator) => (operator, Command::Classes { class }, show::classes),
    }
}

async fn book(action: BookAction) -> Result<(), Failure> {
    match action {
        BookAction::Export { file, operator } => {
            let book = carry_out(&operator, &Command::BookExport).await?;
            let text =
                book.as_str().ok_or_else(|| Failure::failed("the node's answer is no address book"))?;
            let Some(file) = file else {
                say(text.trim_end());
                return Ok(());
            };
            write_whole(&file, text.as_bytes())
                .map_err(|error| Failure::failed(format!("{} cannot be written: {error}", file.display())))?;
            if operator.json {
                say(&json!({ "file": file }).to_string());
            }
            Ok(())
        }
        BookAction::Import { file, operator } => {
            let path = std::path::absolute(&file)
                .map_err(|error| Failure::failed(format!("{} is no path: {error}", file.display())))?;
            let read = carry_out(&operator, &Command::BookImport { path }).await?;
            say(&if operator.json { read.to_string() } else { format!("{read} entries read") });
            Ok(())
        }
    }
}

/// Writes a file that others see whole or not at all.
fn write_whole(file: &Path, content: &[u8]) -> io::Result<()> {
    // What is no plain file, such as a pipe, cannot be replaced.
    if file.metadata().is_ok_and(|there| !there.is_file()) {
        return std::fs::write(file, content);
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut beside = tempfile::NamedTempFile::new_in(folder)?;
    beside.write_all(content)?;
    beside.as_file().sync_all()?;
    beside.persist(file).map(drop).map_err(|error| error.error)
}

async fn carry_out(operator: &Operator, command: &Command) -> Result<Value, Failure> {
    carry_out_within(operator, command, PATIENCE).await
}

async fn carry_out_within(
    operator: &Operator,
    command: &Command,
    patience: Duration,
) -> Result<Value, Failure> {
    let data = data_dir(operator.data.clone().map(PathText))?;
    let late = |_| {
        Failure::failed(format!(
            "the node on {} did not answer within {} s",
            data.display(),
            patience.as_secs()
        ))
    };
    tokio::time::timeout(patience, ask(&data, command)).await.map_err(late)?
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
    exchange(stream, data, command).await
}

/// Sends one command over a connection to the node that runs on a folder, and reads its reply.
async fn exchange(stream: UnixStream, data: &Path, command: &Command) -> Result<Value, Failure> {
    let (input, mut output) = stream.into_split();
    let line = serde_json::to_string(&Call { id: 1, command }).expect("commands have only string keys");
    let gone =
        |error: io::Error| Failure::failed(format!("the node on {} went away: {error}", data.display()));
    // A node that has too many sessions says so and closes, perhaps before it is told anything.
    let told = output.write_all(format!("{line}\n").as_bytes()).await;
    let mut input = BufReader::new(input).take(MAX_REPLY_BYTES);
    let mut line = String::new();
    loop {
        line.clear();
        if input.read_line(&mut line).await.map_err(gone)? == 0 {
            told.map_err(gone)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A node with too many sessions closes one before it has read anything.
    #[tokio::test]
    async fn what_a_node_says_before_it_closes_is_heard() {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"{\"id\":null,\"error\":\"too many\"}\n").await.unwrap();
        drop(far);
        let refused = exchange(near, Path::new("here"), &Command::Status).await.unwrap_err();
        assert_eq!(refused.message(), "too many");

        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        let gone = exchange(near, Path::new("here"), &Command::Status).await.unwrap_err();
        assert!(gone.message().starts_with("the node on here went away: "), "{gone:?}");
    }
}
