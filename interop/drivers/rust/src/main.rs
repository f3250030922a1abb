//! Interop driver: a rust-libp2p node on `quic-v1` that obeys JSON commands on standard input.
//!
//! The contract that it keeps, the same for every driver, is in `../README.md`.
//!
//! Build: `./build.sh` (needs cargo). Run: `./run.sh [--key ed25519|secp256k1|ecdsa|rsa] [--kad client|server [--kad-protocol NAME]]`.
//! Logs go to standard error; `RUST_LOG` chooses how much (default `warn`).
//!
//! Everything that Peerage is judged by is the library's own: QUIC, TLS, multistream, identify with push, ping, kad.
//! Ours are `/interop/echo/1` and `/perf/1.0.0` in `streams.rs`, and `/interop/chan/1` in `channel.rs`.

mod channel;
mod commands;
mod kad;
mod node;
mod served;
mod streams;

use std::{error::Error, io::BufRead, time::Duration};

use libp2p::{identity::Keypair, StreamProtocol};
use serde_json::{json, Value};
use tokio::sync::mpsc;

/// The rust-libp2p release in `Cargo.toml`.
const VERSION: &str = "0.57.1";

/// Prints one line of the contract. Rust flushes standard output at each newline.
fn say(line: Value) {
    println!("{line}");
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .init();

    let options = Options::of_arguments(std::env::args().skip(1))?;
    let mut input = lines_of_stdin();
    let node = node::start(key_of_type(&options.key)?, options.kad).await?;
    say(json!({
        "event": "listening", "addr": node.address, "peer": node.peer.to_string(),
        "implementation": "rust-libp2p", "version": VERSION,
    }));

    while let Some(line) = input.recv().await {
        let command: Value = match serde_json::from_str(&line) {
            Ok(command) => command,
            Err(error) => {
                say(json!({"id": null, "error": format!("not JSON: {error}")}));
                continue;
            }
        };
        if command["do"] == "quit" {
            if !command["id"].is_null() {
                say(json!({"id": command["id"], "ok": {}}));
            }
            break;
        }
        // Commands run side by side, so that a slow one holds up no other.
        let node = node.clone();
        tokio::spawn(async move { say(commands::answer(&node, &command).await) });
    }

    node.shut_down().await;
    Ok(())
}

/// Lines from standard input, read on a thread of their own: a blocking read would hold up the runtime's end.
fn lines_of_stdin() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if !line.trim().is_empty() && sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

const USAGE: &str =
    "usage: driver [--key ed25519|secp256k1|ecdsa|rsa] [--kad client|server [--kad-protocol NAME]]";

struct Options {
    key: String,
    kad: Option<kad::Options>,
}

impl Options {
    fn of_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let (mut key, mut mode, mut protocol) = ("ed25519".into(), None, "/interop/kad/1.0.0".into());
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            match name.as_str() {
                "--key" => key = value,
                "--kad" if value == "client" => mode = Some(kad::Mode::Client),
                "--kad" if value == "server" => mode = Some(kad::Mode::Server),
                "--kad-protocol" => protocol = value,
                _ => return Err(USAGE.into()),
            }
        }
        let protocol = StreamProtocol::try_from_owned(protocol)?;
        Ok(Self { key, kad: mode.map(|mode| kad::Options { mode, protocol }) })
    }
}

fn key_of_type(kind: &str) -> Result<Keypair, Box<dyn Error>> {
    Ok(match kind {
        "ed25519" => Keypair::generate_ed25519(),
        "secp256k1" => Keypair::generate_secp256k1(),
        "ecdsa" => Keypair::generate_ecdsa(),
        "rsa" => {
            use rsa::pkcs8::EncodePrivateKey;
            let key = rsa::RsaPrivateKey::new(&mut rand::rngs::OsRng, 2048)?;
            Keypair::rsa_from_pkcs8(&mut key.to_pkcs8_der()?.as_bytes().to_vec())?
        }
        other => return Err(format!("unknown key type {other}").into()),
    })
}

/// Time for the last packets (the connections' closes) to leave the socket.
const LAST_PACKETS: Duration = Duration::from_millis(100);
