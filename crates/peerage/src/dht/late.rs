//! Questions that nobody waits for any more, and whose answers are listened to for a while: they may hold something newer than what was found.

use std::collections::BTreeMap;

use peerage_dht::RequestId;
use tokio::task::AbortHandle;

/// So many are listened to; the oldest gives way to the next one.
pub(crate) const MAX_LATE: usize = 64;

/// Those that are listened to. Dropped, they are given up.
#[derive(Debug, Default)]
pub(super) struct Late(BTreeMap<RequestId, AbortHandle>);

impl Late {
    /// Goes on listening to this one, whose task ends by itself.
    pub(super) fn listen(&mut self, request: RequestId, task: AbortHandle) {
        if self.0.len() >= MAX_LATE
            && let Some((_, oldest)) = self.0.pop_first()
        {
            oldest.abort();
        }
        self.0.insert(request, task);
    }

    /// It has ended.
    pub(super) fn ended(&mut self, request: RequestId) {
        self.0.remove(&request);
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        self.0.values().for_each(AbortHandle::abort);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    ///
    #[tokio::test]
    async fn sixty_four_answers_that_nobody_waits_for_are_listened_to() {
        let mut late = Late::default();
        let mut tasks = Vec::new();
        for number in 0..70 {
            let task = tokio::spawn(std::future::pending::<()>());
            late.listen(RequestId(number), task.abort_handle());
            tasks.push(task);
        }
        for task in tasks.drain(..6) {
            assert!(task.await.is_err_and(|error| error.is_cancelled()), "the oldest have given way");
        }
        assert!(late.0.len() == MAX_LATE && !tasks.iter().any(|task| task.is_finished()));
        late.ended(RequestId(30));
        let ended = tasks.remove(24);
        drop(late);
        for task in tasks {
            assert!(task.await.is_err_and(|error| error.is_cancelled()), "dropped, all are given up");
        }
        assert!(!ended.is_finished(), "that one ends by itself");
    }
}
