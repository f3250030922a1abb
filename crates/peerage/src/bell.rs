//! A bell for one task: rung while nobody listens, it is heard later; rung twice, it is heard once.
//!
//! It does what tokio's `Notify` does for one waiter, and waiting for it takes no room in the task.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    listener: AtomicWaker,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.listener.wake();
    }

    /// As a ring that wakes nobody.
    pub(crate) fn mark(&self) {
        self.rung.store(true, Ordering::Release);
    }

    /// The task of `cx` is woken by the next ring, in place of whoever listened before. What was rung before is found by [`Bell::was_rung`]
    /// when it is asked afterwards.
    pub(crate) fn listen(&self, cx: &Context<'_>) {
        self.listener.register(cx.waker());
    }

    /// Whether it was rung since it was last asked.
    pub(crate) fn was_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire) && self.rung.swap(false, Ordering::AcqRel)
    }

    /// Ready when it was rung. For one task.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.was_rung() {
            return Poll::Ready(());
        }
        self.listen(cx);
        if self.was_rung() { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_ring_wakes_who_listens_and_is_kept_for_who_listens_later_but_once() {
        let bell = Arc::new(Bell::default());
        let listening = bell.clone();
        let listener = tokio::spawn(async move { poll_fn(|cx| listening.poll(cx)).await });
        tokio::task::yield_now().await;
        assert!(!listener.is_finished());
        bell.ring();
        listener.await.unwrap();
        bell.ring();
        bell.ring();
        poll_fn(|cx| bell.poll(cx)).await;
        assert!(!bell.was_rung());
        assert!(poll_fn(|cx| Poll::Ready(bell.poll(cx))).await.is_pending());
    }
}
