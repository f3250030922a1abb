//! `peerage send`: whole, resumed, and never half under the final name.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::process::Signal;

use crate::support::{PATIENCE, Running, port, program, run};

/// Large enough that it is still under way when a test that saw it begin interrupts it.
const LARGE: u64 = 400 << 20;
/// How much of it has to be there before that.
const BEGUN: u64 = 1 << 20;

/// A sparse file: it costs no disk, and its sum is that of zeros.
fn large(folder: &Path) -> PathBuf {
    let path = folder.join("large.bin");
    fs::File::create(&path).unwrap().set_len(LARGE).unwrap();
    path
}

fn names(inbox: &Path) -> Vec<String> {
    fs::read_dir(inbox).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Waits until a partial file has begun to grow. The file system has no event for that without more dependencies, so this looks
/// again and again, and gives way in between.
async fn begun(inbox: &Path) -> PathBuf {
    let start = Instant::now();
    loop {
        if let Some(name) = names(inbox).first() {
            let path = inbox.join(name);
            if fs::metadata(&path).is_ok_and(|meta| meta.len() >= BEGUN) {
                return path;
            }
        }
        assert!(start.elapsed() < PATIENCE, "nothing was sent");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_file_arrives_and_a_second_time_nothing_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let inbox = folder.path().join("inbox");
    let mut node = Running::node(&folder.path().join("data"), 0, ["--inbox".as_ref(), inbox.as_os_str()]);
    let address = node.address().await;
    let file = folder.path().join("a b.txt");
    fs::write(&file, "one").unwrap();
    let send = async || run(["send", &address, file.to_str().unwrap()]).await;
    let sent = send().await;
    assert_eq!(sent.code, Some(0), "{sent:?}");
    assert!(sent.stdout.starts_with(r#"stored as "a b.txt": 3 B sent of 3 B"#), "{sent:?}");
    assert!(send().await.stdout.contains("was there already"));
    fs::write(&file, "two").unwrap();
    assert!(send().await.stdout.starts_with(r#"stored as "a b (1).txt""#));
    assert_eq!(fs::read_to_string(inbox.join("a b.txt")).unwrap(), "one");
    assert_eq!(fs::read_to_string(inbox.join("a b (1).txt")).unwrap(), "two");
}

#[tokio::test]
async fn a_file_that_the_inbox_cannot_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let inbox = folder.path().join("inbox");
    let limits = ["--inbox".as_ref(), inbox.as_os_str(), "--inbox-max-bytes".as_ref(), "1000".as_ref()];
    let mut node = Running::node(&folder.path().join("data"), 0, limits);
    let address = node.address().await;
    let file = folder.path().join("file");
    fs::write(&file, [0; 1001]).unwrap();
    let sent = run(["send", &address, file.to_str().unwrap()]).await;
    assert!(sent.error(1).contains("room for 1000 bytes"), "{sent:?}");
    assert_eq!(names(&inbox).len(), 0);
}

#[tokio::test]
async fn a_transfer_goes_on_when_the_receiver_was_killed_and_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (data, inbox) = (folder.path().join("data"), folder.path().join("inbox"));
    let start = |port| Running::node(&data, port, ["--inbox".as_ref(), inbox.as_os_str()]);
    let mut node = start(0);
    let address = node.address().await;
    let file = large(folder.path());
    let mut sending = Running::start(program(["send", "--retries", "20", &address, file.to_str().unwrap()]));
    let partial = begun(&inbox).await;
    node.child.kill().await.unwrap();
    assert!(!inbox.join("large.bin").exists());
    assert!((BEGUN..LARGE).contains(&fs::metadata(&partial).unwrap().len()));
    let mut node = start(port(&address));
    assert_eq!(node.address().await, address);
    let line = sending.line().await;
    assert_eq!(sending.end().await.code(), Some(0), "{}", sending.rest_of_stderr().await);
    let stderr = sending.rest_of_stderr().await;
    assert!(stderr.contains("attempt 1 of 20") && stderr.contains("the receiver has"), "{stderr}");
    assert!(line.unwrap().starts_with(r#"stored as "large.bin": "#));
    assert_eq!(names(&inbox), ["large.bin"]);
    assert_eq!(fs::metadata(inbox.join("large.bin")).unwrap().len(), LARGE);
}

#[tokio::test]
async fn a_sender_that_was_interrupted_goes_on_where_it_stood() {
    let folder = tempfile::tempdir().unwrap();
    let inbox = folder.path().join("inbox");
    let mut node = Running::node(&folder.path().join("data"), 0, ["--inbox".as_ref(), inbox.as_os_str()]);
    let address = node.address().await;
    let file = large(folder.path());
    let mut sending = Running::start(program(["send", &address, file.to_str().unwrap()]));
    begun(&inbox).await;
    sending.signal(Signal::INT);
    assert_eq!(sending.end().await.code(), Some(1));
    assert!(sending.rest_of_stderr().await.contains("error: interrupted by SIGINT"));
    let left = names(&inbox);
    assert!(left.len() == 1 && left[0].starts_with(".large.bin."), "{left:?}");
    let sent = run(["send", &address, file.to_str().unwrap()]).await;
    assert_eq!(sent.code, Some(0), "{sent:?}");
    assert!(sent.stderr.contains("the receiver has"), "{sent:?}");
    assert_eq!(names(&inbox), ["large.bin"]);
}
