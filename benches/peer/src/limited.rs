//! Deadlines that say what was waited for.

use std::time::Duration;

use crate::Outcome;

/// Waits at most so long.
///
/// # Errors
/// That of the future, with what it was before it; or that the time is over.
pub async fn within<T>(
    what: &str,
    deadline: Duration,
    future: impl Future<Output = Outcome<T>>,
) -> Outcome<T> {
    match tokio::time::timeout(deadline, future).await {
        Ok(Err(error)) if error.downcast_ref::<crate::Unsupported>().is_some() => Err(error),
        Ok(outcome) => outcome.map_err(|error| format!("{what}: {error}").into()),
        Err(_) => Err(format!(
            "{what} did not end within {deadline:?}: is the machine busy, or the other side gone?"
        )
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_named() {
        let forever = std::future::pending::<Outcome<()>>();
        let error = within("the first answer", Duration::from_secs(5), forever).await;
        let text = error.map_err(|error| error.to_string());
        assert!(
            text.as_ref().is_err_and(|text| text.starts_with("the first answer did not end")),
            "{text:?}"
        );
    }
}
