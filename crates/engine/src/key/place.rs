//! Places for work at once, or for what that holds in memory, with some kept for admin keys: however
//! busy the holders of other keys are, whoever runs the node can still act.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places for work at once.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    size: usize,
    /// Those that keys with a prefix may have between them.
    shared: Arc<Semaphore>,
}

/// A key's own places; none for an admin key, which is bounded by the node's alone.
pub(super) type Own = Option<Arc<Semaphore>>;

/// A place, free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    _held: [Option<OwnedSemaphorePermit>; 3],
}

/// Whose places are all taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The key's own.
    Key,
    /// The node's.
    Node,
}

impl Places {
    /// `all` places, of which `kept` are for admin keys alone.
    #[must_use]
    pub fn new(all: usize, kept: usize) -> Self {
        let shared = all.saturating_sub(kept);
        let places = |number| Arc::new(Semaphore::new(number));
        Self { all: places(all), size: all, shared: places(shared) }
    }

    /// Takes so many places, as one, for the holder of a key with these places of its own.
    pub(super) fn take(&self, own: &Own, number: u32) -> Result<Place, Full> {
        let take = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_many_owned(number);
        let own = own.as_ref().map(take).transpose().map_err(|_none| Full::Key)?;
        let shared = own.as_ref().map(|_| take(&self.shared)).transpose();
        let shared = shared.map_err(|_none| Full::Node)?;
        let all = take(&self.all).map_err(|_none| Full::Node)?;
        Ok(Place { _held: [own, shared, Some(all)] })
    }

    /// How many there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Places that nobody has.
    #[must_use]
    pub fn free(&self) -> usize {
        self.all.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(places: usize) -> Own {
        Some(Arc::new(Semaphore::new(places)))
    }

    #[test]
    fn one_key_cannot_take_the_places_of_others_nor_all_of_them_an_admins() {
        let places = Places::new(5, 2);
        let (a, b, admin) = (own(2), own(2), None);
        let mut held = vec![places.take(&a, 1).unwrap(), places.take(&a, 1).unwrap()];
        assert_eq!(places.take(&a, 1).unwrap_err(), Full::Key);

        held.push(places.take(&b, 1).unwrap());
        assert_eq!(places.take(&b, 1).unwrap_err(), Full::Node);
        // A refusal costs nothing.
        assert_eq!(b.as_ref().unwrap().available_permits(), 1);

        held.extend([places.take(&admin, 1).unwrap(), places.take(&admin, 1).unwrap()]);
        assert_eq!(places.take(&admin, 1).unwrap_err(), Full::Node);

        held.clear();
        assert_eq!(places.free(), 5);
        assert!(places.take(&b, 1).is_ok() && places.take(&a, 1).is_ok());

        let both = places.take(&a, 2).unwrap();
        assert_eq!((places.free(), places.take(&a, 1).unwrap_err()), (3, Full::Key));
        drop(both);
        assert_eq!(places.free(), 5);
    }
}
