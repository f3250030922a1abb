//! One reader of commands and writer of replies: from the first line to the last.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::lines::{Line, Lines};
use super::{Command, Event, Outcome, Reply};
use crate::transfer::Progress;

/// The longest command, in bytes.
pub(crate) const MAX_LINE_BYTES: usize = 64 * 1024;
/// Commands that run at once; another one is answered with an error.
pub(crate) const MAX_RUNNING: usize = 32;
/// Replies and events that wait for a slow reader.
pub(crate) const MAX_WAITING_LINES: usize = 256;
/// The least time between two progress events of one command.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// How long the last lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Whoever carries commands out.
pub(crate) trait Commands: Send + Sync + 'static {
    /// Events that a new session is told first: how things stand. Asked for after [`Commands::events`], so that no change falls between.
    fn greeting(&self) -> Vec<Event>;

    /// Events from now on.
    fn events(&self) -> broadcast::Receiver<Event>;

    /// Carries out any command but [`Command::Detach`] and [`Command::Stop`], which are the session's.
    fn carry_out(
        &self,
        command: Command,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> impl Future<Output = Result<Value, String>> + Send;
}

/// What a session is told besides the replies to its commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tell {
    /// How things stand, and every event.
    Events,
    /// Nothing but the progress of its own commands.
    Replies,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// There are no more commands.
    Input {
        /// The node was told to keep running.
        detached: bool,
    },
    /// The node was told to stop.
    Stop,
}

/// Serves commands until their end, or until one says stop. Commands that still run then are dropped.
pub(crate) async fn serve<C: Commands>(
    commands: Arc<C>,
    input: impl AsyncBufRead + Unpin,
    output: impl AsyncWrite + Unpin + Send + 'static,
    tell: Tell,
) -> End {
    let (out, waiting) = mpsc::channel(MAX_WAITING_LINES);
    let mut aside = JoinSet::new();
    if tell == Tell::Events {
        let events = commands.events();
        aside.spawn(tell_events(commands.greeting(), events, out.clone()));
    }
    let writer = tokio::spawn(write(output, waiting));
    let end = Session { commands, out, running: JoinSet::new(), detached: false }.run(input).await;
    aside.shutdown().await;
    let stopper = writer.abort_handle();
    if tokio::time::timeout(LAST_LINES, writer).await.is_err() {
        stopper.abort();
    }
    end
}

async fn tell_events(
    greeting: Vec<Event>,
    mut events: broadcast::Receiver<Event>,
    out: mpsc::Sender<String>,
) {
    for event in greeting {
        send(&out, &event).await;
    }
    loop {
        match events.recv().await {
            Ok(event) => send(&out, &event).await,
            Err(broadcast::error::RecvError::Lagged(events)) => send(&out, &Event::Missed { events }).await,
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

struct Session<C> {
    commands: Arc<C>,
    out: mpsc::Sender<String>,
    running: JoinSet<()>,
    detached: bool,
}

impl<C: Commands> Session<C> {
    async fn run(mut self, input: impl AsyncBufRead + Unpin) -> End {
        let mut lines = Lines::new(input, MAX_LINE_BYTES);
        loop {
            let line = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return End::Input { detached: self.detached },
                Err(error) => {
                    tracing::warn!(%error, "commands can't be read any more");
                    return End::Input { detached: self.detached };
                }
            };
            while self.running.try_join_next().is_some() {}
            match parse(line) {
                Ok(None) => {}
                Ok(Some((id, Command::Stop))) => {
                    self.reply(Some(id), Ok(json!({}))).await;
                    return End::Stop;
                }
                Ok(Some((id, Command::Detach))) => {
                    self.detached = true;
                    self.reply(Some(id), Ok(json!({}))).await;
                }
                Ok(Some((id, _))) if self.running.len() >= MAX_RUNNING => {
                    let error = format!("{MAX_RUNNING} commands are running already: wait for a reply");
                    self.reply(Some(id), Err(error)).await;
                }
                Ok(Some((id, command))) => self.spawn(id, command),
                Err((id, error)) => self.reply(id, Err(error)).await,
            }
        }
    }

    fn spawn(&mut self, id: u64, command: Command) {
        let (commands, out) = (self.commands.clone(), self.out.clone());
        self.running.spawn(async move {
            let reporter =
                Reporter { id, out: out.clone(), start: Instant::now(), next_ms: AtomicU64::new(0) };
            let result = commands.carry_out(command, &|progress| reporter.report(progress)).await;
            send(&out, &reply_of(Some(id), result)).await;
        });
    }

    async fn reply(&self, id: Option<u64>, result: Result<Value, String>) {
        send(&self.out, &reply_of(id, result)).await;
    }
}

/// Passes the progress of one command on, but not every step.
struct Reporter {
    id: u64,
    out: mpsc::Sender<String>,
    start: Instant,
    next_ms: AtomicU64,
}

impl Reporter {
    fn report(&self, progress: Progress) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let is_step = matches!(progress, Progress::Hashing { .. } | Progress::Sending { .. });
        if is_step && now < self.next_ms.load(Ordering::Relaxed) {
            return;
        }
        let interval = u64::try_from(PROGRESS_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        self.next_ms.store(now.saturating_add(interval), Ordering::Relaxed);
        // A reader that is behind can do without.
        let _ = self.out.try_send(to_line(&Event::Progress { id: self.id, progress }));
    }
}

type Parsed = Result<Option<(u64, Command)>, (Option<u64>, String)>;

/// A line as a command; `None` for an empty one. An error has the command's number when that could be read.
fn parse(line: Line) -> Parsed {
    let text = match line {
        Line::Text(text) if text.trim().is_empty() => return Ok(None),
        Line::Text(text) => text,
        Line::TooLong => return Err((None, format!("the line has more than {MAX_LINE_BYTES} bytes"))),
        Line::NotText => return Err((None, "the line is not UTF-8".to_owned())),
    };
    let value =
        serde_json::from_str(&text).map_err(|error| (None, format!("the line is not JSON: {error}")))?;
    let Value::Object(mut fields) = value else {
        return Err((None, "the line is not a JSON object".to_owned()));
    };
    let Some(id) = fields.remove("id").and_then(|id| id.as_u64()) else {
        return Err((None, "the command has no id: give it a whole number".to_owned()));
    };
    match serde_json::from_value(Value::Object(fields)) {
        Ok(command) => Ok(Some((id, command))),
        Err(error) => Err((Some(id), format!("not a command: {error}"))),
    }
}

fn reply_of(id: Option<u64>, result: Result<Value, String>) -> Reply {
    let outcome = match result {
        Ok(value) => Outcome::Ok(value),
        Err(error) => Outcome::Error(crate::term::one_line(&error)),
    };
    Reply { id, outcome }
}

async fn send(out: &mpsc::Sender<String>, message: &impl serde::Serialize) {
    // When nobody reads any more, there is nobody to tell.
    let _ = out.send(to_line(message)).await;
}

fn to_line(message: &impl serde::Serialize) -> String {
    let mut line = serde_json::to_string(message).expect("replies and events have only string keys");
    line.push('\n');
    line
}

async fn write(mut output: impl AsyncWrite + Unpin, mut waiting: mpsc::Receiver<String>) -> io::Result<()> {
    while let Some(line) = waiting.recv().await {
        output.write_all(line.as_bytes()).await?;
        if waiting.is_empty() {
            output.flush().await?;
        }
    }
    output.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream, ReadHalf, WriteHalf, duplex, split};
    use tokio::task::JoinHandle;

    /// Echoes the texts of requests; `wait` takes for ever; peers are unknown.
    struct Echoing(broadcast::Sender<Event>);

    impl Commands for Echoing {
        fn greeting(&self) -> Vec<Event> {
            vec![Event::Listening { address: "here".into() }]
        }
        fn events(&self) -> broadcast::Receiver<Event> {
            self.0.subscribe()
        }
        async fn carry_out(
            &self,
            command: Command,
            progress: &(dyn Fn(Progress) + Send + Sync),
        ) -> Result<Value, String> {
            match command {
                Command::Request { text, .. } if text == "wait" => std::future::pending().await,
                Command::Request { text, .. } => Ok(json!(text)),
                Command::SendFile { .. } => {
                    for done in 0..1000 {
                        progress(Progress::Sending { done, total: 1000 });
                    }
                    Ok(json!({}))
                }
                _ => Err("unknown\npeer".into()),
            }
        }
    }

    struct Client {
        write: WriteHalf<DuplexStream>,
        read: tokio::io::Lines<BufReader<ReadHalf<DuplexStream>>>,
        events: broadcast::Sender<Event>,
        serving: JoinHandle<End>,
    }

    fn start() -> Client {
        let (near, far) = duplex(4096);
        let (input, output) = split(far);
        let events = broadcast::Sender::new(4);
        let serving = tokio::spawn(serve(
            Arc::new(Echoing(events.clone())),
            BufReader::new(input),
            output,
            Tell::Events,
        ));
        let (read, write) = split(near);
        Client { write, read: BufReader::new(read).lines(), events, serving }
    }

    impl Client {
        async fn say(&mut self, line: &str) {
            self.write.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        }
        async fn hear(&mut self) -> Value {
            serde_json::from_str(&self.read.next_line().await.unwrap().unwrap()).unwrap()
        }
    }

    #[tokio::test]
    async fn commands_are_answered_and_bad_lines_end_nothing() {
        let mut client = start();
        assert_eq!(client.hear().await, json!({"event": "listening", "address": "here"}));
        let long = format!("\"{}\"", "x".repeat(MAX_LINE_BYTES));
        for (line, id, error) in [
            ("hello", json!(null), "not JSON"),
            ("[]", json!(null), "not a JSON object"),
            (r#"{"command":"status"}"#, json!(null), "no id"),
            (r#"{"id":-1,"command":"status"}"#, json!(null), "no id"),
            (r#"{"id":7,"command":"dance"}"#, json!(7), "unknown variant"),
            (r#"{"id":8,"command":"connect"}"#, json!(8), "missing field"),
            (r#"{"id":9,"command":"connect","address":"a","now":true}"#, json!(9), "not a command"),
            (r#"{"id":10,"command":"peers"}"#, json!(10), "unknown peer"),
            (&long, json!(null), "more than 65536 bytes"),
            (&"[".repeat(1000), json!(null), "not JSON"),
        ] {
            client.say(line).await;
            let reply = client.hear().await;
            assert_eq!(reply["id"], id, "{line:.50}");
            assert!(reply["error"].as_str().unwrap().contains(error), "{reply}");
        }
        client.say(r#"{"id":11,"command":"request","peer":"p","text":"hi"}"#).await;
        assert_eq!(client.hear().await, json!({"id": 11, "ok": "hi"}));
        client.say(r#"{"id":12,"command":"stop"}"#).await;
        assert_eq!(client.hear().await, json!({"id": 12, "ok": {}}));
        assert_eq!(client.serving.await.unwrap(), End::Stop);
    }

    #[tokio::test]
    async fn a_slow_command_holds_up_no_other_and_too_many_are_refused() {
        let mut client = start();
        client.hear().await;
        for id in 0..=MAX_RUNNING {
            client.say(&format!(r#"{{"id":{id},"command":"request","peer":"p","text":"wait"}}"#)).await;
        }
        let refused = client.hear().await;
        assert_eq!(refused["id"], json!(MAX_RUNNING));
        assert!(refused["error"].as_str().unwrap().contains("32 commands"));
        client.say(r#"{"id":99,"command":"stop"}"#).await;
        assert_eq!(client.hear().await["id"], json!(99));
        assert_eq!(client.serving.await.unwrap(), End::Stop);
    }

    #[tokio::test]
    async fn events_that_a_slow_reader_missed_are_counted() {
        let mut client = start();
        client.hear().await;
        // No await in between: the session can't take any of them before the last is there.
        for n in 0..10 {
            client.events.send(Event::Message { from: "p".into(), text: n.to_string() }).unwrap();
        }
        assert_eq!(client.hear().await, json!({"event": "missed", "events": 6}));
        assert_eq!(client.hear().await["text"], "6");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_reads_no_replies_is_heard_no_more_until_it_does() {
        let mut client = start();
        client.hear().await;
        // So long that hardly any fit into the pipe.
        let (line, patience) = ("x".repeat(1000), std::time::Duration::from_millis(300));
        let mut taken = 0;
        while taken < 4 * MAX_WAITING_LINES && tokio::time::timeout(patience, client.say(&line)).await.is_ok()
        {
            taken += 1;
        }
        let most = MAX_WAITING_LINES + 100;
        assert!((MAX_WAITING_LINES..most).contains(&taken), "{taken} lines were taken, unread");
        for _ in 0..taken {
            assert!(client.hear().await["error"].as_str().unwrap().contains("not JSON"));
        }
    }

    #[tokio::test]
    async fn progress_is_thinned_out() {
        let mut client = start();
        client.hear().await;
        client.say(r#"{"id":1,"command":"send_file","peer":"p","path":"x"}"#).await;
        let mut events = 0;
        while client.hear().await.get("event").is_some() {
            events += 1;
        }
        assert!((1..50).contains(&events), "{events}");
    }

    #[tokio::test]
    async fn the_end_of_the_commands_says_whether_to_go_on() {
        for (line, detached) in [("", false), (r#"{"id":1,"command":"detach"}"#, true)] {
            let mut client = start();
            client.say(line).await;
            client.write.shutdown().await.unwrap();
            assert_eq!(client.serving.await.unwrap(), End::Input { detached });
        }
    }
}
