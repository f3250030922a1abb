//! Requests through layers of tower, on both sides: a time limit, a bound on how many run at once, authorisation by peer ID, and tracing.
//!
//! ```text
//! cargo run -p peerage --example tower
//! ```

use std::collections::HashSet;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use peerage::{Node, PeerId, Raw, Request, RequestError, ServeError};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tracing::Instrument;

const PROTOCOL: &str = "/acme/shout/1";
const LISTEN: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// A layer that lets only some peers through.
#[derive(Clone)]
struct Allow(Arc<HashSet<PeerId>>);

impl<S> Layer<S> for Allow {
    type Service = Allowed<S>;

    fn layer(&self, inner: S) -> Allowed<S> {
        Allowed { inner, peers: self.0.clone() }
    }
}

#[derive(Clone)]
struct Allowed<S> {
    inner: S,
    peers: Arc<HashSet<PeerId>>,
}

type Answering<A> = Pin<Box<dyn Future<Output = Result<A, BoxError>> + Send>>;

impl<S, Q> Service<Request<Q>> for Allowed<S>
where
    S: Service<Request<Q>>,
    S::Response: Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Answering<S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        if self.peers.contains(&request.peer) {
            let answering = self.inner.call(request);
            Box::pin(async move { answering.await.map_err(Into::into) })
        } else {
            let denied = ServeError::denied(format!("{} may not ask this", request.peer));
            Box::pin(std::future::ready(Err(denied.into())))
        }
    }
}

/// A layer that gives each request a span.
#[derive(Clone)]
struct Traced<S>(S);

impl<S, Q> Service<Request<Q>> for Traced<S>
where
    S: Service<Request<Q>>,
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = tracing::instrument::Instrumented<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let span = tracing::info_span!("request", peer = %request.peer, protocol = %request.protocol);
        self.0.call(request).instrument(span)
    }
}

/// The application: it knows nothing of the layers.
async fn shout(request: Request<Raw>) -> Result<Raw, ServeError> {
    tracing::info!(bytes = request.body.0.len(), "asked");
    if request.body.0.is_empty() {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    Ok(Raw(request.body.0.to_ascii_uppercase().into()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let builder = || Node::builder().network("acme").listen(LISTEN);
    let (alice, bob, eve) = (builder().start().await?, builder().start().await?, builder().start().await?);
    for node in [&bob, &eve] {
        node.connect(&alice.listen_addresses()[0]).await?;
    }

    // The one that serves: tracing around all, then authorisation, a time limit, and at most 16 at once.
    let service = ServiceBuilder::new()
        .layer_fn(Traced)
        .layer(Allow(Arc::new(HashSet::from([bob.peer_id()]))))
        .map_err(|error: BoxError| match error.is::<tower::timeout::error::Elapsed>() {
            true => ServeError::new(ServeError::DEADLINE, "it took over 300 ms").into(),
            false => error,
        })
        .timeout(Duration::from_millis(300))
        .concurrency_limit(16)
        .service_fn(shout);
    alice.serve_service(PROTOCOL, service)?;

    // The one that asks: a time limit of its own, and at most two at once.
    let mut asking = ServiceBuilder::new()
        .timeout(Duration::from_secs(5))
        .concurrency_limit(2)
        .service(bob.service::<Raw, Raw>(alice.peer_id(), PROTOCOL));
    let answer = asking.ready().await?.call(Raw("hello".into())).await?;
    println!("bob hears {:?}", answer.0);
    assert_eq!(answer.0, "HELLO");

    let late = asking.ready().await?.call(Raw("".into())).await.err().ok_or("an answer in time")?;
    println!("bob waits too long: {late}");
    assert!(
        matches!(late.downcast_ref(), Some(RequestError::Refused { code: ServeError::DEADLINE, .. })),
        "{late:?}"
    );

    let denied = eve.service::<Raw, Raw>(alice.peer_id(), PROTOCOL).oneshot(Raw("hello".into())).await;
    let denied = denied.err().ok_or("an answer for eve")?;
    println!("eve is refused: {denied}");
    assert!(matches!(denied, RequestError::Refused { code: ServeError::DENIED, .. }), "{denied:?}");

    for node in [bob, eve, alice] {
        node.close().await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_runs_to_its_end() {
        super::main().expect("the example");
    }
}
