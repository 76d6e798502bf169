//! Places for visits in work, shared so that no sandbox's visitors take all of them: an open
//! WebSocket keeps its place for hours, and opening thousands costs its visitor nothing.
//!
//! How many a sandbox may have follows from how many are left: one alone may have nearly all, and the
//! more others have, the fewer it gets. So there is no number that would be too small for an
//! application on an empty node and too large for a hundred of them on a full one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jail::JailId;

/// A sandbox with so many visits in work for each free place gets no further one: alone, its visits
/// take 16 of 17 places.
const VISITS_PER_FREE_PLACE: usize = 16;

/// The places of a server. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Places {
    taken: Arc<Mutex<Taken>>,
    size: usize,
}

#[derive(Debug)]
struct Taken {
    free: usize,
    /// Visits in work of each sandbox that has any.
    by_sandbox: HashMap<JailId, usize>,
}

/// A visit's place, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    sandbox: JailId,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The sandbox has its share: so many visits.
    Sandbox(usize),
    /// All of the server's are taken: so many.
    Server(usize),
}

impl Places {
    pub(super) fn new(size: usize) -> Self {
        let taken = Taken { free: size, by_sandbox: HashMap::new() };
        Self { taken: Arc::new(Mutex::new(taken)), size }
    }

    /// Takes a place for a visit to this sandbox.
    pub(super) fn take(&self, sandbox: JailId) -> Result<Place, Full> {
        let mut taken = self.taken();
        if taken.free == 0 {
            return Err(Full::Server(self.size));
        }
        let most = taken.free * VISITS_PER_FREE_PLACE;
        let visits = taken.by_sandbox.entry(sandbox).or_default();
        if *visits >= most {
            return Err(Full::Sandbox(*visits));
        }
        *visits += 1;
        taken.free -= 1;
        Ok(Place { places: self.clone(), sandbox })
    }

    /// Nothing that can panic happens under the lock, so a poisoned one holds whole data.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.free += 1;
        if let Some(visits) = taken.by_sandbox.get_mut(&self.sandbox) {
            *visits -= 1;
            if *visits == 0 {
                taken.by_sandbox.remove(&self.sandbox);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(places: &Places, sandbox: u64) -> (Vec<Place>, Full) {
        let mut held = Vec::new();
        loop {
            match places.take(JailId(sandbox)) {
                Ok(place) => held.push(place),
                Err(full) => return (held, full),
            }
        }
    }

    #[test]
    fn who_takes_all_there_is_leaves_some_to_others() {
        let places = Places::new(1700);
        let (first, full) = take_all(&places, 1);
        assert_eq!((first.len(), full), (1600, Full::Sandbox(1600)));
        let (second, full) = take_all(&places, 2);
        assert_eq!((second.len(), full), (95, Full::Sandbox(95)));
        let (third, full) = take_all(&places, 3);
        assert_eq!((third.len(), full), (5, Full::Server(1700)));

        // Who has many waits until there are more; who has few does not.
        drop(third);
        assert_eq!(places.take(JailId(1)).unwrap_err(), Full::Sandbox(1600));
        assert!(places.take(JailId(4)).is_ok());
        drop((first, second));
        assert_eq!(take_all(&places, 4).0.len(), 1600);
    }

    #[test]
    fn nothing_is_kept_of_who_left() {
        let places = Places::new(2);
        let held = [places.take(JailId(1)).unwrap(), places.take(JailId(2)).unwrap()];
        assert_eq!(places.take(JailId(3)).unwrap_err(), Full::Server(2));
        drop(held);
        let taken = places.taken();
        assert!(taken.free == 2 && taken.by_sandbox.is_empty());
    }
}
