//! What a session is told to do: a short queue with one reader, for each connection. One of tokio's would hold room for 32 from the start.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use crate::session::Order;

/// Orders that can wait for a session. The driver sends fewer than this in a connection's life.
pub(crate) const MAX_ORDERS: usize = 8;

/// The orders to one session.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    state: Mutex<State>,
    reader: AtomicWaker,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Order>,
    /// Nothing is taken in any more.
    closed: bool,
}

impl Orders {
    /// Adds an order. False when the queue is full or closed.
    pub(crate) fn give(&self, order: Order) -> bool {
        let mut state = self.lock();
        if state.closed || state.waiting.len() >= MAX_ORDERS {
            return false;
        }
        state.waiting.push_back(order);
        drop(state);
        self.reader.wake();
        true
    }

    /// Takes in no more; what waits can still be read.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.reader.wake();
    }

    /// The next order, `None` after the last one. For one reader: another one would not be woken.
    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Order>> {
        // First, so that what comes after the look wakes it.
        self.reader.register(cx.waker());
        let mut state = self.lock();
        let Some(order) = state.waiting.pop_front() else {
            return if state.closed { Poll::Ready(None) } else { Poll::Pending };
        };
        if state.waiting.is_empty() {
            // The next one comes when the connection ends, if ever.
            state.waiting = VecDeque::new();
        }
        Poll::Ready(Some(order))
    }

    /// The same, to be awaited. Cancel-safe.
    pub(crate) async fn next(&self) -> Option<Order> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver's hold on a session's orders. When it is dropped, the session reads what waits and then the end.
#[derive(Debug)]
pub(crate) struct OrderGiver(pub(crate) Arc<Orders>);

impl Drop for OrderGiver {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn orders_come_in_their_order_up_to_the_bound_and_then_the_end() {
        let giver = OrderGiver(Arc::default());
        let orders = giver.0.clone();
        assert!(orders.next().now_or_never().is_none());
        let number = |order: Option<Order>| match order {
            Some(Order::SayHello { order, .. }) => Some(order),
            _ => None,
        };
        for order in 0..MAX_ORDERS as u64 {
            assert!(orders.give(Order::SayHello { order, visit: false }));
        }
        assert!(!orders.give(Order::Drain), "the queue is full");
        drop(giver);
        for order in 0..MAX_ORDERS as u64 {
            assert_eq!(number(orders.next().now_or_never().flatten()), Some(order));
        }
        assert!(orders.next().now_or_never().expect("the end").is_none());
        assert!(!orders.give(Order::Drain), "the queue is closed");
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_by_an_order_and_by_the_end() {
        let giver = OrderGiver(Arc::default());
        let orders = giver.0.clone();
        let reader = tokio::spawn(async move {
            let first = orders.next().await;
            (first, orders.next().await)
        });
        tokio::task::yield_now().await;
        assert!(giver.0.give(Order::Drain));
        tokio::task::yield_now().await;
        drop(giver);
        let (first, end) = reader.await.expect("the reader ends");
        assert!(matches!(first, Some(Order::Drain)) && end.is_none());
    }
}
