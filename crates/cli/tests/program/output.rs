//! What becomes of commands whose output nobody takes.

use std::fs::OpenOptions;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::dht::Member;
use crate::support::{Finished, finish, program, run};

/// Runs a command whose standard output goes there.
async fn into(stdout: impl Into<Stdio>, mut command: Command) -> Finished {
    let child = command.stdout(stdout).spawn().unwrap();
    let ending = timeout(crate::support::PATIENCE, child.wait_with_output());
    let output = ending.await.expect("the program ends").unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    Finished { code: output.status.code(), stdout: String::new(), stderr }
}

/// Runs a command on a disk that is full.
async fn on_full_disk(arguments: &[&str]) -> Finished {
    into(OpenOptions::new().write(true).open("/dev/full").unwrap(), program(arguments)).await
}

#[tokio::test]
async fn what_cannot_be_written_fails_and_whoever_has_read_enough_may_go() {
    let key = tempfile::tempdir().unwrap();
    let key = key.path().join("node.key");
    let key = key.to_str().unwrap();
    assert_eq!(run(["key", "new", key]).await.code, Some(0));
    for arguments in [&["key", "show", key][..], &["limits"], &["limits", "--json"], &["--help"]] {
        let full = on_full_disk(arguments).await;
        assert!(full.error(1).starts_with("standard output cannot be written: "), "{full:?}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let closed = into(writer, program(arguments)).await;
        assert_eq!((closed.code, closed.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn no_answer_of_the_dht_is_lost_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let first = Member::start(folder.path().join("a"), 0, None, &[]).await;
    let second = Member::start(folder.path().join("b"), 0, Some(&first.address), &[]).await;
    second.knows(1).await;
    first.knows(1).await;
    first.text(&["put", "colour", "blue"]).await;
    let data = second.data.to_str().unwrap();
    for arguments in [
        &["get", first.id(), "colour"][..],
        &["get", first.id(), "colour", "--json"],
        &["get", first.id(), "colour", "--watch"],
        &["put", "--immutable", "x"],
        &["trace", "x"],
        &["held"],
    ] {
        let full = on_full_disk(&[&["dht"], arguments, &["--data", data]].concat()).await;
        assert_eq!(full.code, Some(1), "{arguments:?}: {full:?}");
        let last = full.stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: standard output cannot be written: "), "{arguments:?}: {full:?}");
    }

    // A message that nobody saw is not cleared, wherever it went.
    first.text(&["mail", second.id(), "hello\nworld"]).await;
    let mail = || program(["dht", "mail", "--data", data]);
    let mut closed = Command::new("sh");
    closed.args(["-c", "exec \"$0\" dht mail --data \"$1\" >&-", env!("CARGO_BIN_EXE_peerage"), data]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for unseen in [finish(closed).await, into(Stdio::null(), mail()).await, into(writer, mail()).await] {
        assert_eq!(unseen.code, Some(1), "{unseen:?}");
        assert!(unseen.stderr.contains("the messages stay in the mailbox"), "{unseen:?}");
    }
    // It is seen with its lines, and then it is gone.
    assert_eq!(second.text(&["mail"]).await, format!("from {}: hello\n    world\n", first.id()));
    second.until("the mailbox being empty", &["mail"], |reply: &Value| reply["messages"] == json!([])).await;
}
