//! The world's clock: it moves when everyone waits, so that no time of the machine passes where a test lets time pass.

use std::time::Duration;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// Far more, on this clock, than anything here takes; a test that gets there has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);

/// Lets so much of the world's time pass.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("no end after {LIMIT:?}: {what}"),
    }
}

/// Lets time pass until a look finds what it wants. It looks every two milliseconds of the world's time.
pub(crate) async fn until(what: &str, mut look: impl FnMut() -> bool) {
    let looking = async {
        while !look() {
            pass(Duration::from_millis(2)).await;
        }
    };
    within(what, looking).await;
}
