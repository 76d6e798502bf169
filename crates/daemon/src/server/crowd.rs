//! Who gives way when every place for a connection is taken: the one that has waited the longest
//! without work.
//!
//! A connection costs its maker nothing, so whoever holds thousands open (slowly sent heads, idle
//! ones) must not keep others out. Only a request of the holder of a key makes a connection stay;
//! there are fewer places for requests than for connections, so some connection can always go.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

/// The connections that wait for a request, by when they began to.
#[derive(Debug, Clone, Default)]
pub(super) struct Crowd(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    /// Given out in turn, so the lowest has waited the longest.
    next: u64,
    by_number: BTreeMap<u64, CancellationToken>,
}

/// One connection; in the extensions of its requests. Clones are the same connection.
#[derive(Debug, Clone)]
pub(crate) struct Seat(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    crowd: Crowd,
    /// Its number while it waits. Changed under the crowd's lock, as is the next.
    number: AtomicU64,
    /// Its requests in work; several with HTTP/2.
    works: AtomicUsize,
    closed: CancellationToken,
}

impl Crowd {
    /// A connection that begins to wait.
    pub(super) fn enter(&self) -> Seat {
        let (crowd, closed) = (self.clone(), CancellationToken::new());
        let number = AtomicU64::new(self.lock().add(closed.clone()));
        Seat(Arc::new(Taken { crowd, number, works: AtomicUsize::new(0), closed }))
    }

    /// Has the connection that has waited the longest closed. False: none waits.
    pub(super) fn close_one(&self) -> bool {
        let longest = self.lock().by_number.pop_first();
        longest.inspect(|(_, closed)| closed.cancel()).is_some()
    }

    /// Nothing that can panic happens under the lock, so a poisoned one holds whole data.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn add(&mut self, closed: CancellationToken) -> u64 {
        self.next += 1;
        self.by_number.insert(self.next, closed);
        self.next
    }
}

impl Seat {
    /// The connection stays until this, and every other one of it, is dropped; then it waits again,
    /// the last in line.
    pub(crate) fn work(&self) -> Working {
        let taken = &self.0;
        let mut waiting = taken.crowd.lock();
        if taken.works.fetch_add(1, Ordering::Relaxed) == 0 {
            waiting.by_number.remove(&taken.number.load(Ordering::Relaxed));
        }
        drop(waiting);
        Working(self.clone())
    }

    /// Ends when the connection has to go.
    pub(super) async fn closed(&self) {
        self.0.closed.cancelled().await;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.crowd.lock().by_number.remove(self.number.get_mut());
    }
}

/// A request that its connection stays for.
#[derive(Debug)]
pub(crate) struct Working(Seat);

impl Drop for Working {
    fn drop(&mut self) {
        let Seat(taken) = &self.0;
        let mut waiting = taken.crowd.lock();
        if taken.works.fetch_sub(1, Ordering::Relaxed) == 1 {
            taken.number.store(waiting.add(taken.closed.clone()), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn has_to_go(seat: &Seat) -> bool {
        seat.closed().now_or_never().is_some()
    }

    #[test]
    fn who_waited_the_longest_goes_and_who_works_stays() {
        let crowd = Crowd::default();
        let [first, second, third] = [(); 3].map(|()| crowd.enter());
        let working = first.work();

        assert!(crowd.close_one());
        assert!(!has_to_go(&first) && has_to_go(&second) && !has_to_go(&third));

        // It waits again, behind the one that came after it, once it has nothing more to do.
        let second = first.work();
        drop(working);
        assert_eq!(crowd.lock().by_number.len(), 1);
        drop(second);
        crowd.close_one();
        assert!(!has_to_go(&first) && has_to_go(&third));
        crowd.close_one();
        assert!(has_to_go(&first));
        assert!(!crowd.close_one());
    }

    #[test]
    fn who_left_is_not_waited_for() {
        let crowd = Crowd::default();
        let (gone, working, here) = (crowd.enter(), crowd.enter(), crowd.enter());
        drop(gone);
        let held = working.work();
        drop(working);
        drop(held);

        assert_eq!(crowd.lock().by_number.len(), 1);
        crowd.close_one();
        assert!(has_to_go(&here));
    }
}
