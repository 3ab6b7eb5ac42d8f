//! Several addresses of one name: which is tried when, as clients do it that dial by themselves (RFC 8305). A captured
//! connection is always accepted here, so that its client can't go on to the next address.

use std::{future::Future, net::SocketAddr, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::sleep;

/// How long one has before the next is tried beside it.
pub(crate) const HEAD_START: Duration = Duration::from_millis(300);

/// Families in turns, each in its own order, the first one's first: of eight addresses by IPv6, to which there may be no way,
/// none keeps those by IPv4 from being tried.
pub(crate) fn in_turns(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let addresses: Vec<SocketAddr> = addresses.into_iter().collect();
    let Some(first) = addresses.first() else { return addresses };
    let is_first = |address: &SocketAddr| address.ip().to_canonical().is_ipv4() == first.ip().to_canonical().is_ipv4();
    let (one, other): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(is_first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut all = Vec::with_capacity(addresses.len());
    loop {
        let before = all.len();
        all.extend(one.next());
        all.extend(other.next());
        if all.len() == before {
            return all;
        }
    }
}

/// The first success. Each attempt is begun when the one before it has failed, or has had its head start; `begun` is under way
/// already. If all fail, the error of the first to fail is what counts. `None`: there is nothing to try.
pub(crate) async fn first_of<T, E, F>(begun: Option<F>, attempts: Vec<F>) -> Option<Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = attempts.into_iter();
    let mut trying: FuturesUnordered<F> = begun.into_iter().chain(waiting.next()).collect();
    let mut failed = None;
    let mut next = Box::pin(sleep(HEAD_START));
    let mut has_more = true;
    loop {
        tokio::select! {
            biased;
            tried = trying.next() => match tried {
                Some(Ok(reached)) => return Some(Ok(reached)),
                Some(Err(error)) => {
                    failed.get_or_insert(error);
                    trying.extend(waiting.next());
                }
                None => return failed.map(Err),
            },
            () = next.as_mut(), if has_more => match waiting.next() {
                Some(attempt) => trying.push(attempt),
                None => has_more = false,
            },
        }
        next.set(sleep(HEAD_START));
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, pin::Pin};

    use tokio::time::Instant;

    use super::*;

    type Attempt = Pin<Box<dyn Future<Output = Result<u8, u8>>>>;

    fn after(milliseconds: u64, result: Result<u8, u8>) -> Attempt {
        Box::pin(async move {
            sleep(Duration::from_millis(milliseconds)).await;
            result
        })
    }

    #[test]
    fn families_take_turns() {
        let of = |all: &[&str]| {
            let addresses = all.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 443));
            in_turns(addresses).iter().map(|address| address.ip().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            of(&["2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2"]),
            ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"]
        );
        assert_eq!(of(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]), ["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
        assert_eq!(of(&["192.0.2.1", "192.0.2.2"]), ["192.0.2.1", "192.0.2.2"]);
        assert!(of(&[]).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_is_tried_when_one_fails_or_is_silent() {
        let began = Instant::now();
        let silent = || Box::pin(pending()) as Attempt;
        // Two that say nothing, one that refuses, one that answers.
        let reached = first_of(None, vec![silent(), silent(), after(0, Err(1)), after(10, Ok(7))]).await;
        assert_eq!(reached, Some(Ok(7)));
        assert!(began.elapsed() < 3 * HEAD_START, "{:?}", began.elapsed());
        // One that was slow is still taken.
        assert_eq!(first_of(Some(after(900, Ok(1))), vec![after(0, Err(2)), silent()]).await, Some(Ok(1)));
        assert_eq!(first_of(None, vec![after(5, Err(1)), after(0, Err(2))]).await, Some(Err(1)));
        assert_eq!(first_of(None, Vec::<Attempt>::new()).await, None);
    }
}
