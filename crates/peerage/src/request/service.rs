//! Requests as [`tower_service::Service`]s, so that layers for timeouts, limits, authorisation and tracing fit on both sides.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use peerage_identity::PeerId;
use tower_service::Service;

use super::call;
use super::config::{CallConfig, ServeConfig};
use super::error::{RequestError, ServeError};
use super::handler::{Handler, Request};
use super::slots::CallSlot;
use crate::channel::Payload;
use crate::peer::Peer;
use crate::shared::Shared;

/// Requests to one peer under one protocol name, as a service. Made by [`crate::Node::service`].
///
/// `poll_ready` waits while as many requests to the peer are under way as [`crate::CallLimits`] allow, and reserves a place for the call that follows.
/// It never fails: a service belongs to a peer, not to a connection, so that it stays of use when the peer comes back. While the peer isn't connected,
/// it is ready and each call fails with [`RequestError::NotConnected`]. A call without `poll_ready` before it waits by itself. Dropping the
/// response future cancels the request at the peer.
pub struct RequestService<Q, A> {
    shared: Arc<Shared>,
    peer: PeerId,
    protocol: Arc<str>,
    config: CallConfig,
    place: Place,
    payloads: PhantomData<fn(Q) -> A>,
}

/// How far the way to a place has come, and on which connection.
enum Place {
    None,
    Wanted(Arc<Peer>, BoxFuture<'static, CallSlot>),
    Reserved(Arc<Peer>, CallSlot),
}

impl<Q, A> RequestService<Q, A> {
    pub(crate) fn new(shared: Arc<Shared>, peer: PeerId, protocol: &str) -> Self {
        let (protocol, config) = (Arc::from(protocol), CallConfig::default());
        Self { shared, peer, protocol, config, place: Place::None, payloads: PhantomData }
    }

    /// Sets the deadline and the sizes of the calls. Default: [`CallConfig::default`].
    #[must_use]
    pub fn config(mut self, config: CallConfig) -> Self {
        self.config = config;
        self
    }

    /// Whom it asks.
    pub fn peer(&self) -> PeerId {
        self.peer
    }
}

impl<Q, A> Clone for RequestService<Q, A> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            peer: self.peer,
            protocol: self.protocol.clone(),
            config: self.config.clone(),
            place: Place::None,
            payloads: PhantomData,
        }
    }
}

impl<Q, A> fmt::Debug for RequestService<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestService")
            .field("peer", &self.peer)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

impl<Q: Payload + Sync, A: Payload> Service<Q> for RequestService<Q, A> {
    type Response = A;
    type Error = RequestError;
    type Future = Pin<Box<dyn Future<Output = Result<A, RequestError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        loop {
            let Some(peer) = self.shared.peer(&self.peer) else {
                self.place = Place::None;
                return Poll::Ready(Ok(()));
            };
            match &mut self.place {
                Place::Reserved(of, _) if Arc::ptr_eq(of, &peer) => return Poll::Ready(Ok(())),
                Place::Wanted(of, wish) if Arc::ptr_eq(of, &peer) => {
                    let slot = ready!(wish.as_mut().poll(cx));
                    self.place = Place::Reserved(peer, slot);
                }
                _ => {
                    let of = peer.clone();
                    self.place = match CallSlot::try_take(&peer.asked().calls, &peer.shared.calls) {
                        Some(slot) => Place::Reserved(peer, slot),
                        None => {
                            let wish = async move {
                                CallSlot::take_unqueued(&of.asked().calls, &of.shared.calls).await
                            };
                            Place::Wanted(peer, Box::pin(wish))
                        }
                    };
                }
            }
        }
    }

    fn call(&mut self, question: Q) -> Self::Future {
        let reserved = match std::mem::replace(&mut self.place, Place::None) {
            Place::Reserved(peer, slot) => Some((peer, slot)),
            _ => None,
        };
        let (id, protocol, config) = (self.peer, self.protocol.clone(), self.config.clone());
        let Some(peer) = self.shared.peer(&id) else {
            let failed = self.shared.requests.not_connected(id);
            return Box::pin(std::future::ready(Err(failed)));
        };
        // A place on an older connection to the peer is of no use on this one.
        let slot = reserved.and_then(|(of, slot)| Arc::ptr_eq(&of, &peer).then_some(slot));
        Box::pin(async move { call::call(&peer, &protocol, &question, &config, slot).await })
    }
}

/// A handler that asks a service for each answer: a clone of it per request, which is waited for until it is ready.
pub(crate) fn handler<Q, S>(config: ServeConfig, service: S) -> Handler
where
    Q: Payload,
    S: Service<Request<Q>> + Clone + Send + 'static,
    S::Response: Payload,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    S::Future: Send,
{
    // The lock lets a service in that is not Sync. It is held for the time of a clone.
    let service = Mutex::new(service);
    Handler::one(config, move |request: Request<Q>| {
        let mut service = service.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        async move {
            let failed = |error: S::Error| ServeError::from_any(error.into().as_ref());
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
            service.call(request).await.map_err(failed)
        }
    })
}
