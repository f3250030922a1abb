//! Trying several addresses of one target: staggered, the first success wins (RFC 8305, "Happy Eyeballs").

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

/// How long one address has before the next one is tried beside it (RFC 8305 § 5).
pub(crate) const STAGGER: Duration = Duration::from_millis(250);

/// Puts addresses in the order in which they are tried: IPv6 first, then the families in turn (RFC 8305 § 4). None stands twice.
pub(crate) fn order(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (mut six, mut four) = (Vec::new(), Vec::new());
    for address in addresses {
        let family = if address.is_ipv6() { &mut six } else { &mut four };
        if !family.contains(&address) {
            family.push(address);
        }
    }
    let longest = six.len().max(four.len());
    (0..longest).flat_map(|index| [six.get(index).copied(), four.get(index).copied()]).flatten().collect()
}

/// Runs `dial` on each address, or on what stands for one. The next one starts when [`STAGGER`] has passed or one has failed; the first success
/// ends the others, whose futures are dropped. When all fail, their errors, in the order in which they came.
pub(crate) async fn race<A, T, E, F>(
    addresses: impl IntoIterator<Item = A, IntoIter: ExactSizeIterator>,
    mut dial: impl FnMut(A) -> F,
) -> Result<T, Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut left = addresses.into_iter();
    let (mut running, mut errors) = (FuturesUnordered::new(), Vec::new());
    running.extend(left.next().map(&mut dial));
    loop {
        let next = async {
            if left.len() == 0 {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(STAGGER).await;
        };
        tokio::select! {
            biased;
            ended = running.next() => match ended {
                Some(Ok(value)) => return Ok(value),
                Some(Err(error)) => {
                    errors.push(error);
                    running.extend(left.next().map(&mut dial));
                }
                None => return Err(errors),
            },
            () = next => running.extend(left.next().map(&mut dial)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use tokio::time::Instant;

    fn address(number: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], number))
    }

    /// Dials whose outcome and time are given per port; records when each started.
    async fn run(plan: &[(u64, bool)]) -> (Result<u16, Vec<u16>>, Vec<u64>, u64) {
        let (start, starts) = (Instant::now(), RefCell::new(Vec::new()));
        let addresses: Vec<_> = (0..plan.len() as u16).map(address).collect();
        let outcome = race(addresses, |to| {
            starts.borrow_mut().push(start.elapsed().as_millis() as u64);
            let (after, good) = plan[usize::from(to.port())];
            async move {
                tokio::time::sleep(Duration::from_millis(after)).await;
                if good { Ok(to.port()) } else { Err(to.port()) }
            }
        })
        .await;
        (outcome, starts.into_inner(), start.elapsed().as_millis() as u64)
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_first_address_is_the_only_one_tried() {
        assert_eq!(run(&[(100, true), (10, true)]).await, (Ok(0), vec![0], 100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_address_gets_company_after_the_stagger_and_may_still_win() {
        assert_eq!(run(&[(5000, true), (5000, true), (100, true)]).await, (Ok(2), vec![0, 250, 500], 600));
        assert_eq!(run(&[(300, true), (5000, true)]).await, (Ok(0), vec![0, 250], 300));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_starts_the_next_at_once_and_all_failures_are_told() {
        assert_eq!(run(&[(10, false), (10, false), (10, true)]).await, (Ok(2), vec![0, 10, 20], 30));
        assert_eq!(run(&[(400, false), (10, false)]).await, (Err(vec![1, 0]), vec![0, 250], 400));
        assert_eq!(run(&[]).await, (Err(vec![]), vec![], 0));
    }

    #[test]
    fn families_take_turns_and_no_address_stands_twice() {
        let (four, six) = (address(1), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 1)));
        assert_eq!(order([four, four, address(2), six]), [six, four, address(2)]);
    }
}
