//! A value that tasks wait for: as `tokio::sync::watch`, but tasks are woken in the order in which they began to wait.
//!
//! tokio draws lots among them, to spare large numbers of threads a lock. Then the order in which streams pass after admission, say, would differ between two runs of
//! the same simulation.

use std::ops::Deref;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Changes the value. Those who wait learn of it when it is dropped.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// Waits for changes.
#[derive(Debug)]
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// The sender is gone, and the value is not what was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
    closed: AtomicBool,
}

#[derive(Debug)]
struct State<T> {
    value: T,
    version: u64,
}

impl<T> Sender<T> {
    pub(crate) fn new(value: T) -> Self {
        let state = Mutex::new(State { value, version: 0 });
        Self { shared: Arc::new(Shared { state, changed: Notify::new(), closed: AtomicBool::new(false) }) }
    }

    /// A receiver that has seen the value as it is now.
    pub(crate) fn subscribe(&self) -> Receiver<T> {
        let seen = self.shared.lock().version;
        Receiver { shared: self.shared.clone(), seen }
    }

    /// Looks at the value.
    pub(crate) fn borrow(&self) -> impl Deref<Target = T> + '_ {
        Borrowed(self.shared.lock())
    }

    /// Sets another value, and returns the old one.
    pub(crate) fn send_replace(&self, value: T) -> T {
        let mut value = value;
        self.send_modify(|old| std::mem::swap(old, &mut value));
        value
    }

    /// Changes the value in its place.
    pub(crate) fn send_modify(&self, change: impl FnOnce(&mut T)) {
        let mut state = self.shared.lock();
        change(&mut state.value);
        state.version += 1;
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Tells those who wait that nothing changes any more, as dropping it does.
    pub(crate) fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.changed.notify_waiters();
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> Receiver<T> {
    /// Waits for a value that was not seen yet. Cancel-safe.
    pub(crate) async fn changed(&mut self) -> Result<(), Closed> {
        let before = self.seen;
        self.seen = self.until(|state| (state.version != before).then_some(state.version)).await?;
        Ok(())
    }

    /// Looks at the value, which counts as seen.
    pub(crate) fn borrow_and_update(&mut self) -> impl Deref<Target = T> + '_ {
        let state = self.shared.lock();
        self.seen = state.version;
        Borrowed(state)
    }

    /// Waits for a value that `is_right`. Cancel-safe.
    pub(crate) async fn wait_for(&mut self, is_right: impl Fn(&T) -> bool) -> Result<T, Closed>
    where
        T: Clone,
    {
        self.until(|state| is_right(&state.value).then(|| state.value.clone())).await
    }

    async fn until<U>(&self, look: impl Fn(&State<T>) -> Option<U>) -> Result<U, Closed> {
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let closed = self.shared.closed.load(Ordering::Acquire);
            if let Some(found) = look(&self.shared.lock()) {
                return Ok(found);
            }
            if closed {
                return Err(Closed);
            }
            changed.await;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Borrowed<'a, T>(MutexGuard<'a, State<T>>);

impl<T> Deref for Borrowed<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn waiters_are_woken_in_the_order_in_which_they_came() {
        let (sender, order) = (Sender::new(0), Arc::new(Mutex::new(Vec::new())));
        let waiting: Vec<_> = (0..50)
            .map(|number| {
                let (mut receiver, order) = (sender.subscribe(), order.clone());
                tokio::spawn(async move {
                    receiver.wait_for(|value| *value == 7).await.unwrap();
                    order.lock().unwrap().push(number);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        sender.send_replace(7);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..50).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_change_is_seen_once_and_the_end_is_told() {
        let sender = Sender::new("a");
        let mut receiver = sender.subscribe();
        assert_eq!(sender.send_replace("b"), "a");
        assert_eq!(receiver.changed().await, Ok(()));
        sender.send_modify(|value| *value = "c");
        assert_eq!(*receiver.borrow_and_update(), "c");
        drop(sender);
        assert_eq!(receiver.changed().await, Err(Closed), "c was seen");
        assert_eq!(receiver.wait_for(|value| *value == "c").await, Ok("c"), "the value outlives its sender");
        assert_eq!(receiver.wait_for(|value| *value == "d").await, Err(Closed));
    }
}
