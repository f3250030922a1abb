//! What idle connections keep in memory.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};

use crate::drive::{CONNECT_DEADLINE, Came, Drive, connect, done};
use crate::report::{Done, Memory};
use crate::usage::{Usage, resident_bytes};
use crate::{Client, Dialler, Outcome, Peer, within};

/// Connections that are there before those that are counted: they pay for what a process needs once.
pub const FIRST_CONNECTIONS: usize = 100;
/// Readings of one state, and the time between two; the median counts.
const SAMPLES: usize = 5;
const BETWEEN: Duration = Duration::from_millis(700);
/// Connections that are made at the same time.
const AT_ONCE: usize = 16;

/// What lives as long as a connection is to stay.
type Kept<D> = (Option<D>, <D as Dialler>::Client, Box<dyn std::any::Any + Send>);

/// A first lot of connections, then `amount` more; what these add, when all have been idle for a while, on each side.
///
/// With one server address many clients lead to one server, whose side is the one to read; with many addresses one client leads to many servers.
pub(crate) async fn run<P: Peer>(peer: &P, what: &Drive) -> Outcome<Done> {
    let server = what.server.ok_or("the work memory needs --server-pid: it reads the server's memory")?;
    let one_to_many = what.addresses.len() > 1;
    let own = P::ONE_CONNECTION_PER_PAIR && !one_to_many;
    let shared = within("the start of the client", CONNECT_DEADLINE, peer.dialler()).await?;
    let usage = Usage::now(what.server);
    let mut kept: Vec<Kept<P::Dialler>> = Vec::new();
    let count = what.amount as usize;
    let mut read = Vec::new();
    for (begin, end) in [(0, FIRST_CONNECTIONS), (FIRST_CONNECTIONS, FIRST_CONNECTIONS + count)] {
        let shared = &shared;
        let made = stream::iter(begin..end).map(|index| async move {
            let dialler = if own { Some(peer.dialler().await?) } else { None };
            let address = what.address(index)?;
            let client = connect(dialler.as_ref().unwrap_or(shared), address).await?;
            let open = within("a first exchange", CONNECT_DEADLINE, client.settle()).await?;
            Ok::<Kept<P::Dialler>, Box<dyn std::error::Error + Send + Sync>>((dialler, client, open))
        });
        kept.extend(made.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?);
        let own_pid = std::process::id();
        read.push(resident_when_idle([own_pid, server], what.idle).await?);
    }
    let each = |side: usize| (read[1][side] - read[0][side]) / count as f64;
    let memory =
        Memory { client_bytes: (!own).then(|| each(0)), server_bytes: (!one_to_many).then(|| each(1)) };
    let negotiated = kept.first().map(|(_, client, _)| client.negotiated()).unwrap_or_default();
    let came = Came { amount: what.amount, memory: Some(memory), negotiated, ..Came::default() };
    Ok(done(what, usage, came))
}

/// The resident bytes of two processes whose connections have been left alone for so long.
///
/// # Errors
/// One of the processes has ended.
pub async fn resident_when_idle(pids: [u32; 2], idle: Duration) -> Outcome<[f64; 2]> {
    tokio::time::sleep(idle).await;
    let mut samples: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..SAMPLES {
        tokio::time::sleep(BETWEEN.min(idle)).await;
        for (samples, pid) in samples.iter_mut().zip(pids) {
            samples.push(resident_bytes(pid)?);
        }
    }
    Ok(samples.map(|mut samples| {
        samples.sort_unstable();
        samples[SAMPLES / 2] as f64
    }))
}
