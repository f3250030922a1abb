//! The server's side.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage::{Channel, ChannelConfig, Incoming, Node, Raw, ServeError};
use peerage_bench_peer::{Outcome, Served, Service};
use tokio::sync::Notify;

use super::stream::OurStream;
use super::{COUNTED, ECHO, INTRODUCE, MESSAGES, PINGS, STREAMS, prio_channels};

/// The longest that messages may be on their way after the last was sent.
pub(super) const COUNT_DEADLINE: Duration = Duration::from_secs(120);

/// The most messages that are received at once.
const AT_ONCE: usize = 256;

/// Serves all that the works need, until what is returned is dropped.
pub(super) fn serve(node: Node) -> Outcome<Served> {
    let address = node.listen_addresses().into_iter().next().ok_or("the node does not listen")?.to_string();
    node.serve(ECHO, |_, question: Raw| async move { Ok(question) })?;
    let introduced = node.clone();
    node.serve(INTRODUCE, move |peer, question: Raw| {
        let node = introduced.clone();
        async move {
            node.identify(peer)
                .await
                .map_err(|error| ServeError::new(ServeError::FAILED, error.to_string()))?;
            Ok(question)
        }
    })?;
    count_messages(&node)?;
    tokio::spawn(serve_streams(node.accept(STREAMS)?));
    let [urgent, bulk] = prio_channels(false);
    let [equal_urgent, equal_bulk] = prio_channels(true);
    for config in [ChannelConfig::new(PINGS), urgent, equal_urgent] {
        tokio::spawn(echo(node.channel(config)?));
    }
    for config in [bulk, equal_bulk] {
        let channel = node.channel::<Raw>(config)?;
        tokio::spawn(async move { while channel.recv().await.is_some() {} });
    }
    Ok(Served { address, keep: Box::new(node) })
}

/// Messages that have come, and how many somebody waits for.
#[derive(Debug, Default)]
struct Count {
    came: AtomicU64,
    wanted: AtomicU64,
    reached: Notify,
}

fn count_messages(node: &Node) -> Outcome<()> {
    let messages = node.channel::<Raw>(ChannelConfig::new(MESSAGES))?;
    let count = Arc::new(Count { wanted: AtomicU64::new(u64::MAX), ..Count::default() });
    let asked = count.clone();
    let config = peerage::ServeConfig::default();
    node.serve_with(COUNTED, config, move |request: peerage::Request<Raw>| {
        let count = asked.clone();
        async move {
            let wanted = request.body.0.as_ref().try_into().map_or(0, u64::from_be_bytes);
            count.wanted.store(wanted, Ordering::SeqCst);
            while count.came.load(Ordering::SeqCst) < wanted {
                count.reached.notified().await;
            }
            Ok(Raw(Bytes::copy_from_slice(&count.came.load(Ordering::SeqCst).to_be_bytes())))
        }
    })?;
    tokio::spawn(async move {
        let mut some = Vec::new();
        while messages.recv_many(&mut some, AT_ONCE).await.is_some() {
            let more = some.len() as u64;
            some.clear();
            let came = count.came.fetch_add(more, Ordering::SeqCst) + more;
            if came >= count.wanted.load(Ordering::SeqCst) {
                count.reached.notify_one();
            }
        }
    });
    Ok(())
}

async fn serve_streams(incoming: Incoming) {
    let service = Service::default();
    while let Some((_, stream)) = incoming.recv().await {
        let service = service.clone();
        // Streams that end with their connection are no news.
        tokio::spawn(async move { service.serve(OurStream::new(stream)).await.ok() });
    }
}

/// Sends each message back. A client that has gone in between is no fault.
async fn echo(channel: Channel<Raw>) {
    while let Some((peer, message)) = channel.recv().await {
        if channel.send(peer, &message).await.is_err() {
            continue;
        }
    }
}
