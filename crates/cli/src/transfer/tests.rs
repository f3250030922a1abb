//! Transfers over pipes: broken at any byte and resumed, and with senders that lie.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use peerage_wire::file::{Done, Offer, Reply, done, reply};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::task::JoinHandle;

use super::inbox::{Inbox, Limits};
use super::pipe::{PipeError, Reader, Writer};
use super::receive::{ReceiveError, Received, receive};
use super::retry::{Retries, Route, send_with_retries};
use super::send::{Patience, SendError, Sent, send};
use super::source::{Source, SourceError};
use super::{ChunkRead, ChunkWrite, Progress, Sum};

impl ChunkRead for ReadHalf<DuplexStream> {
    async fn read_chunk(&mut self, most: usize) -> io::Result<Option<Bytes>> {
        let mut chunk = vec![0; most.min(1400)];
        let got = self.read(&mut chunk).await?;
        chunk.truncate(got);
        Ok((got > 0).then(|| chunk.into()))
    }
}

/// The writing half of a pipe that breaks after some bytes.
struct Breaking {
    inner: Option<WriteHalf<DuplexStream>>,
    left: usize,
}

impl ChunkWrite for Breaking {
    async fn write_chunk(&mut self, chunk: Bytes) -> io::Result<()> {
        let Some(inner) = &mut self.inner else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let part = chunk.len().min(self.left);
        self.left -= part;
        inner.write_all(&chunk[..part]).await?;
        if part < chunk.len() {
            inner.shutdown().await?;
            self.inner = None;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Some(inner) => inner.shutdown().await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

type Half = (ReadHalf<DuplexStream>, Breaking);

fn pipe(break_after: usize) -> (Half, Half) {
    let (near, far) = duplex(64 * 1024);
    let half = |stream, left| {
        let (read, write) = split(stream);
        (read, Breaking { inner: Some(write), left })
    };
    (half(near, break_after), half(far, usize::MAX))
}

struct World {
    folder: tempfile::TempDir,
    inbox: Arc<Inbox>,
}

impl World {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let inbox = Inbox::open(&folder.path().join("inbox"), limits).unwrap();
        Self { folder, inbox }
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    async fn source(&self, name: &str, content: &[u8]) -> Source {
        Source::prepare(&self.file(name, content), &|_| {}).await.unwrap()
    }

    fn receiving(&self, (read, write): Half) -> JoinHandle<Result<Received, ReceiveError>> {
        let inbox = self.inbox.clone();
        tokio::spawn(async move { receive(&inbox, "sender", read, write).await })
    }

    /// Visible files and partial ones.
    fn stored(&self) -> (Vec<String>, Vec<String>) {
        let names = fs::read_dir(self.inbox.folder()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let (mut hidden, mut visible): (Vec<_>, Vec<_>) = names.partition(|name| name.starts_with('.'));
        hidden.sort();
        visible.sort();
        (visible, hidden)
    }

    fn content(&self, name: &str) -> Vec<u8> {
        fs::read(self.inbox.folder().join(name)).unwrap()
    }

    async fn send(&self, source: &Source, break_after: usize) -> Result<Sent, SendError> {
        let (near, far) = pipe(break_after);
        let receiving = self.receiving(far);
        let sent = send(source, near, Patience::default(), &|_| {}, &mut None).await;
        let _ = receiving.await.unwrap();
        sent
    }
}

/// Breaks each attempt where the list says, and works when it is used up.
struct Flaky<'a> {
    world: &'a World,
    breaks: Vec<usize>,
    opened: u32,
    receiving: Vec<JoinHandle<Result<Received, ReceiveError>>>,
}

impl Route for Flaky<'_> {
    type Read = ReadHalf<DuplexStream>;
    type Write = Breaking;

    async fn open(&mut self) -> Result<Half, SendError> {
        for receiving in self.receiving.drain(..) {
            let _ = receiving.await.unwrap();
        }
        self.opened += 1;
        let break_after = if self.breaks.is_empty() { usize::MAX } else { self.breaks.remove(0) };
        let (near, far) = pipe(break_after);
        self.receiving.push(self.world.receiving(far));
        Ok(near)
    }
}

fn soon(most: u32) -> Retries {
    Retries { most, first_wait: Duration::from_millis(1), longest_wait: Duration::from_millis(1) }
}

fn content(length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn sum(content: &[u8]) -> Sum {
    Sum::of(Sha256::new_with_prefix(content))
}

#[tokio::test]
async fn a_file_arrives_whole_under_its_name_and_a_second_time_nothing_is_moved() {
    let world = World::new();
    for length in [0, 1, 4096, 3_000_000] {
        let content = content(length);
        let source = world.source(&format!("file-{length}"), &content).await;
        let sent = world.send(&source, usize::MAX).await.unwrap();
        assert_eq!(sent, Sent { stored_as: format!("file-{length}"), moved: length as u64 });
        assert_eq!(world.content(&sent.stored_as), content);
        assert_eq!(world.send(&source, usize::MAX).await.unwrap().moved, 0);
    }
    assert_eq!(world.stored().0.len(), 4);
    assert!(world.stored().1.is_empty());
}

#[tokio::test]
async fn another_file_of_the_same_name_gets_a_number() {
    let world = World::new();
    let first = world.source("a.txt", b"one").await;
    world.send(&first, usize::MAX).await.unwrap();
    let second = world.source("a.txt", b"two").await;
    assert_eq!(world.send(&second, usize::MAX).await.unwrap().stored_as, "a (1).txt");
    assert_eq!(world.content("a.txt"), b"one");
}

#[tokio::test]
async fn a_broken_transfer_leaves_a_private_partial_file_and_goes_on_from_it() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let content = content(2_000_000);
    let source = world.source("file", &content).await;
    let error = world.send(&source, 1_200_000).await.unwrap_err();
    assert!(matches!(error, SendError::Pipe(_)), "{error}");
    let (visible, hidden) = world.stored();
    assert!(visible.is_empty());
    let partial = world.inbox.folder().join(&hidden[0]);
    assert_eq!(fs::metadata(&partial).unwrap().permissions().mode() & 0o777, 0o600);
    let there = fs::metadata(&partial).unwrap().len();
    assert!((1_190_000..1_200_000).contains(&there), "{there}");
    assert_eq!(world.send(&source, usize::MAX).await.unwrap().moved, 2_000_000 - there);
    assert_eq!(world.content("file"), content);
    assert!(world.stored().1.is_empty());
}

#[tokio::test]
async fn retries_that_bring_nothing_are_bounded_and_those_that_bring_something_are_not_counted() {
    let world = World::new();
    let source = world.source("file", &content(2_000_000)).await;
    let flaky = |breaks: Vec<usize>| Flaky { world: &world, breaks, opened: 0, receiving: Vec::new() };
    let send = async |route: &mut Flaky<'_>| {
        send_with_retries(&source, route, soon(2), Patience::default(), &|_| {}).await
    };
    let mut stuck = flaky(vec![20; 10]);
    send(&mut stuck).await.unwrap_err();
    assert_eq!(stuck.opened, 3);
    let mut steps = flaky(vec![300_000; 6]);
    send(&mut steps).await.unwrap();
    assert_eq!(steps.opened, 7);
}

#[tokio::test]
async fn bad_bytes_of_an_earlier_attempt_are_replaced_within_the_retries() {
    let world = World::new();
    let content = content(300_000);
    let source = world.source("file", &content).await;
    world.send(&source, 200_000).await.unwrap_err();
    let partial = world.inbox.folder().join(&world.stored().1[0]);
    fs::write(&partial, vec![0; 150_000]).unwrap();
    let mut route = Flaky { world: &world, breaks: Vec::new(), opened: 0, receiving: Vec::new() };
    let steps = Mutex::new(Vec::new());
    let progress = |step| steps.lock().unwrap().push(step);
    let sent = send_with_retries(&source, &mut route, soon(1), Patience::default(), &progress).await;
    assert_eq!(sent.unwrap().moved, 300_000);
    assert_eq!(world.content("file"), content);
    let steps = steps.into_inner().unwrap();
    assert!(steps.contains(&Progress::Resuming { at: 150_000, total: 300_000 }));
    assert!(steps.iter().any(|step| matches!(step, Progress::Retrying { attempt: 1, of: 1, .. })));
}

#[tokio::test]
async fn a_file_that_changes_is_not_passed_off_as_the_offered_one() {
    let world = World::new();
    let source = world.source("file", &content(100_000)).await;
    let changed = |error| matches!(error, SendError::Source(SourceError::Changed(_)));
    world.file("file", &content(99_999));
    assert!(changed(world.send(&source, usize::MAX).await.unwrap_err()));
    // Same size and time: only the sum tells.
    let source = world.source("file", &content(100_000)).await;
    let time = fs::metadata(world.folder.path().join("file")).unwrap().modified().unwrap();
    let path = world.file("file", &vec![7; 100_000]);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    assert!(changed(world.send(&source, usize::MAX).await.unwrap_err()));
    assert!(world.stored().0.is_empty());
}

#[tokio::test]
async fn what_is_not_a_file_is_named() {
    let world = World::new();
    let error = Source::prepare(&world.folder.path().join("none"), &|_| {}).await.unwrap_err();
    assert!(error.to_string().starts_with("there is no file /"), "{error}");
    let error = Source::prepare(world.folder.path(), &|_| {}).await.unwrap_err();
    assert!(error.to_string().contains("is not a regular file"), "{error}");
}

/// A sender by hand: offers what it likes and sends what it likes.
async fn lie(
    world: &World,
    offer: Offer,
    bytes: &[u8],
) -> (Reply, Option<Done>, Result<Received, ReceiveError>) {
    let ((read, write), far) = pipe(usize::MAX);
    let receiving = world.receiving(far);
    let (mut read, mut write) = (Reader::new(read), Writer::new(write, Duration::from_secs(5)));
    write.message(&offer).await.unwrap();
    let reply = read.message(Duration::from_secs(5)).await.unwrap();
    let _ = write.bytes(Bytes::copy_from_slice(bytes)).await;
    let _ = write.finish().await;
    let done = read.message(Duration::from_secs(5)).await.ok();
    (reply, done, receiving.await.unwrap())
}

fn offer(name: &str, size: u64, sum: Sum) -> Offer {
    Offer { name: name.into(), size, sha256: sum.to_bytes() }
}

fn failure(done: Option<Done>) -> String {
    match done.unwrap().outcome {
        Some(done::Outcome::Failed(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn wrong_bytes_more_bytes_and_fewer_bytes_are_never_stored() {
    let world = World::new();
    let honest = content(10_000);
    let (_, done, _) = lie(&world, offer("a", 10_000, sum(b"other")), &honest).await;
    assert!(failure(done).contains("SHA-256"));
    assert_eq!(world.stored(), (vec![], vec![]));
    let (_, done, _) = lie(&world, offer("a", 9_999, sum(&honest[..9_999])), &honest).await;
    assert!(failure(done).contains("more than the 9999 bytes"));
    assert_eq!(world.stored(), (vec![], vec![]));
    let (_, done, received) = lie(&world, offer("a", 10_000, sum(&honest)), &honest[..4_000]).await;
    assert!(done.is_none() && received.unwrap_err().to_string().contains("after 4000 of 10000"));
    let (visible, hidden) = world.stored();
    assert_eq!((visible.len(), hidden.len()), (0, 1));
}

#[tokio::test]
async fn what_no_inbox_can_take_is_refused_with_the_reason() {
    let world = World::with(Limits { max_bytes: 1_000_000, ..Limits::default() });
    let any = sum(b"");
    let offers = [
        (offer("../../evil", 1, any), "starts with a dot"),
        (offer("evil/../..", 1, any), "has '/' in it"),
        (offer(".bashrc", 1, any), "starts with a dot"),
        (offer("a\u{1b}[2J", 1, any), "in it"),
        (offer(&"x".repeat(300), 1, any), "300 bytes"),
        (offer("big", 1_000_001, any), "room for 1000000 bytes"),
        (offer("huge", u64::MAX, any), "room for 1000000 bytes"),
        (Offer { sha256: vec![1; 20].into(), ..offer("a", 1, any) }, "no SHA-256"),
        (Offer::default(), "is empty"),
    ];
    for (offer, expected) in offers {
        let (reply, _, received) = lie(&world, offer, b"").await;
        let Some(reply::Answer::Refused(reason)) = reply.answer else { panic!("{reply:?}") };
        assert!(reason.contains(expected), "{reason}");
        assert!(matches!(received, Err(ReceiveError::Refused(_))));
    }
    assert_eq!(world.stored(), (vec![], vec![]));
}

#[tokio::test]
async fn a_file_that_is_being_received_is_refused_politely_to_the_next_sender() {
    let world = World::with(Limits { claim_wait: Duration::from_millis(1), ..Limits::default() });
    let whole = content(100_000);
    let ((read, write), far) = pipe(usize::MAX);
    let receiving = world.receiving(far);
    let (mut read, mut write) = (Reader::new(read), Writer::new(write, Duration::from_secs(5)));
    write.message(&offer("file", 100_000, sum(&whole))).await.unwrap();
    read.message::<Reply>(Duration::from_secs(5)).await.unwrap();
    let source = world.source("file", &whole).await;
    let error = world.send(&source, usize::MAX).await.unwrap_err();
    assert!(error.to_string().contains("being received already"), "{error}");
    write.bytes(whole.into()).await.unwrap();
    write.finish().await.unwrap();
    receiving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_silent_sender_loses_its_place_before_and_after_the_offer() {
    let world =
        World::with(Limits { max_transfers: 1, idle: Duration::from_millis(50), ..Limits::default() });
    let (_near, far) = pipe(usize::MAX);
    let error = world.receiving(far).await.unwrap().unwrap_err();
    assert!(matches!(error, ReceiveError::Pipe(PipeError::Silent(_))), "{error}");
    let ((_read, write), far) = pipe(usize::MAX);
    let receiving = world.receiving(far);
    let mut write = Writer::new(write, Duration::from_secs(5));
    write.message(&offer("file", 100, sum(b""))).await.unwrap();
    let error = receiving.await.unwrap().unwrap_err();
    assert!(matches!(error, ReceiveError::Pipe(PipeError::Silent(_))), "{error}");
    assert!(world.inbox.slot("other").is_ok());
}

#[tokio::test]
async fn a_receiver_that_asks_for_more_than_there_is_is_not_believed() {
    let world = World::new();
    let source = world.source("file", &content(100)).await;
    let (near, (read, write)) = pipe(usize::MAX);
    let receiver = tokio::spawn(async move {
        let (mut read, mut write) = (Reader::new(read), Writer::new(write, Duration::from_secs(5)));
        read.message::<Offer>(Duration::from_secs(5)).await.unwrap();
        write.message(&Reply { answer: Some(reply::Answer::Offset(101)) }).await.unwrap();
    });
    let error = send(&source, near, Patience::default(), &|_| {}, &mut None).await.unwrap_err();
    assert!(error.to_string().contains("makes no sense"), "{error}");
    receiver.await.unwrap();
}

#[tokio::test]
async fn garbage_in_place_of_an_offer_is_an_error() {
    let world = World::new();
    for garbage in [&[0xff; 40][..], b"\x05hello", b"\x80\x80\x80\x08", b""] {
        let ((_read, mut write), far) = pipe(usize::MAX);
        let receiving = world.receiving(far);
        write.write_chunk(Bytes::copy_from_slice(garbage)).await.unwrap();
        write.finish().await.unwrap();
        assert!(matches!(receiving.await.unwrap(), Err(ReceiveError::Pipe(_))), "{garbage:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever breaks where: in the end the file is there, whole, once, and never was under its name before.
    #[test]
    fn a_transfer_broken_at_any_points_ends_whole(
        length in 0usize..1_000_000,
        breaks in prop::collection::vec(0usize..400_000, 0..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let content = content(length);
            let source = world.source("file", &content).await;
            for at in breaks {
                if world.send(&source, at).await.is_err() {
                    assert!(world.stored().0.is_empty());
                }
            }
            world.send(&source, usize::MAX).await.unwrap();
            assert_eq!(world.content("file"), content);
            assert_eq!(world.stored(), (vec!["file".to_owned()], vec![]));
        });
    }
}
