//! The control socket in its in-thread form: the session over a pipe in memory, with the program's own commands, on nodes of a simulated network. So a small
//! overlay is operated on virtual time; each scenario runs twice with each seed, and every line that a session says must be the same.

mod answers;
mod books;
mod sessions;
mod standings;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peerage::PeerId;
use peerage_sim::{Failed, Link, SimNode, World, ensure, seeds, simulate, transport_settings};
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf, duplex, split,
};
use tokio::task::JoinHandle;

use super::service::Service;
use crate::control::session::{End, Tell, serve};
use crate::settings::Settings;

const SECOND: Duration = Duration::from_secs(1);
/// What a session may leave unread, unless a test says otherwise, in bytes.
const PIPE: usize = 64 * 1024;

/// A world, and what was said in it.
#[derive(Clone)]
struct Stage {
    world: World,
    said: Arc<Mutex<Vec<String>>>,
}

/// A node as `peerage node` runs it, without a process, a folder and a socket.
struct Member {
    sim: SimNode,
    service: Arc<Service>,
}

/// One session of commands, from the side of whoever gives them.
struct Console {
    stage: Stage,
    name: String,
    read: tokio::io::Lines<BufReader<ReadHalf<DuplexStream>>>,
    write: WriteHalf<DuplexStream>,
    next_id: u64,
    /// Replies that came before they were asked for.
    replies: BTreeMap<u64, Value>,
    events: Vec<Value>,
    serving: JoinHandle<End>,
}

/// Runs a scenario twice with each of three seeds. Every line of every session, and every packet, must be the same.
fn operate(scenario: impl AsyncFn(Stage) -> Result<(), Failed>) -> Result<(), Failed> {
    for seed in seeds(0..3) {
        let once = || {
            simulate(seed, async |world| {
                world.default_link(Link::between_ms(5, 40));
                let stage = Stage { world, said: Arc::default() };
                scenario(stage.clone()).await?;
                let said = std::mem::take(&mut *stage.said.lock().unwrap());
                Ok::<_, Failed>((said, stage.world.hash()))
            })
            .map_err(|error| Failed::new(format!("seed {seed}: {error}")))
        };
        let (first, second) = (once()?, once()?);
        ensure!(!first.0.is_empty(), "nothing was said");
        for (one, other) in first.0.iter().zip(&second.0) {
            ensure!(one == other, "seed {seed}: two runs differ:\n{one}\n{other}");
        }
        ensure!(first == second, "seed {seed}: two runs differ in what was said or sent");
    }
    Ok(())
}

/// The settings of a node that is called so.
fn named(name: &str) -> Settings {
    let mut settings = Settings::default();
    settings.node.moniker = Some(name.to_owned());
    settings.transport = transport_settings();
    settings
}

impl Stage {
    /// Starts a node with such settings.
    async fn start(&self, settings: Settings) -> Result<Member, Failed> {
        let name = settings.node.moniker.clone().unwrap_or_default();
        let given = settings.clone();
        let configure =
            move |builder| super::describe(builder, &given, None).expect("the settings name no file");
        let sim = self.world.describe(name).start(configure).await?;
        self.serve(sim, &settings).await
    }

    /// Starts a node again that was killed.
    async fn restart(&self, member: &Member, settings: &Settings) -> Result<Member, Failed> {
        self.world.restart(&member.sim).await?;
        self.serve(member.sim.clone(), settings).await
    }

    async fn serve(&self, sim: SimNode, settings: &Settings) -> Result<Member, Failed> {
        let service = Service::start(&sim.node(), settings, None).await?;
        Ok(Member { sim, service })
    }

    /// So many nodes; all but the first know the first.
    async fn overlay(&self, count: usize) -> Result<Vec<Member>, Failed> {
        let mut members = vec![self.start(named("n0")).await?];
        for number in 1..count {
            let mut settings = named(&format!("n{number}"));
            settings.node.seed = vec![members[0].sim.address().parse()?];
            members.push(self.start(settings).await?);
        }
        let all = || members.iter().all(|member| member.sim.connected().len() == count - 1);
        self.world.until("everybody has met everybody", 60 * SECOND, all).await?;
        Ok(members)
    }

    /// Ends a node as a power cut does.
    fn kill(&self, member: &Member) {
        member.service.end();
        self.world.crash(&member.sim);
    }

    /// Opens a session as the socket does.
    fn console(&self, member: &Member) -> Console {
        self.session(member, Tell::Replies, PIPE)
    }

    fn session(&self, member: &Member, tell: Tell, pipe: usize) -> Console {
        let (near, far) = duplex(pipe);
        let (input, output) = split(far);
        let serving = tokio::spawn(serve(member.service.clone(), BufReader::new(input), output, tell));
        let (read, write) = split(near);
        Console {
            stage: self.clone(),
            name: member.sim.name().to_owned(),
            read: BufReader::new(read).lines(),
            write,
            next_id: 1,
            replies: BTreeMap::new(),
            events: Vec::new(),
            serving,
        }
    }
}

impl Member {
    fn id(&self) -> PeerId {
        self.sim.peer_id()
    }

    /// Its peer ID as it stands in answers.
    fn text(&self) -> Value {
        json!(self.id().to_string())
    }

    fn has(&self, other: &Member) -> bool {
        self.sim.is_connected_to(&other.sim)
    }
}

impl Console {
    /// Gives a command, and tells its number.
    async fn say(&mut self, mut command: Value) -> Result<u64, Failed> {
        let id = self.next_id;
        self.next_id += 1;
        command["id"] = json!(id);
        self.write.write_all(format!("{command}\n").as_bytes()).await?;
        Ok(id)
    }

    /// The next line; `None` at the end.
    async fn hear(&mut self) -> Result<Option<Value>, Failed> {
        let line = tokio::time::timeout(60 * SECOND, self.read.next_line()).await;
        let line = line.map_err(|_| Failed::new(format!("{} says nothing for a minute", self.name)))??;
        let Some(line) = line else { return Ok(None) };
        let said = format!("{:?} {}: {line}", self.stage.world.now(), self.name);
        self.stage.said.lock().unwrap().push(said);
        Ok(Some(serde_json::from_str(&line)?))
    }

    /// The reply to a command, whatever comes before it.
    async fn reply(&mut self, id: u64) -> Result<Result<Value, String>, Failed> {
        let reply = loop {
            if let Some(reply) = self.replies.remove(&id) {
                break reply;
            }
            let line = self.hear().await?.ok_or(Failed::new("the session ended without a reply"))?;
            match line["id"].as_u64() {
                Some(id) if line.get("event").is_none() => drop(self.replies.insert(id, line)),
                _ => self.events.push(line),
            }
        };
        Ok(match reply.get("ok") {
            Some(value) => Ok(value.clone()),
            None => Err(reply["error"].as_str().unwrap_or_default().to_owned()),
        })
    }

    /// Gives a command that is carried out.
    async fn ask(&mut self, command: Value) -> Result<Value, Failed> {
        let id = self.say(command.clone()).await?;
        let reply = self.reply(id).await?;
        reply.map_err(|error| Failed::new(format!("{} to {command}: {error}", self.name)))
    }

    /// Gives a command that is refused, and tells why.
    async fn refused(&mut self, command: Value) -> Result<String, Failed> {
        let id = self.say(command.clone()).await?;
        match self.reply(id).await? {
            Ok(value) => Err(Failed::new(format!("{command} was answered by {value}"))),
            Err(error) => Ok(error),
        }
    }
}
