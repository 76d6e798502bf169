//! The numbers of jails and volumes, and which of them are somebody's.
//!
//! A number is given out once, and is somebody's as long as its [`Number`] is: a sandbox's, a checkpoint's,
//! a blank's, that of whoever makes a volume or removes one. Whoever passes one on passes the same
//! [`Number`] on, so it is never nobody's in between.
//!
//! Invariant: what is nobody's stays nobody's, so whatever exists under such a number is a leak, and nobody
//! will ever come to own what is being removed. See `reconcile.rs`.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jail::JailId;

/// The numbers of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Numbers(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    /// No number from this one on was given out.
    next: u64,
    owned: BTreeSet<JailId>,
}

/// A number that is somebody's until the last clone of this is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Number(Arc<Owned>);

#[derive(Debug)]
struct Owned {
    jail: JailId,
    numbers: Numbers,
}

/// Which numbers were whose at one moment.
#[derive(Debug)]
pub(crate) struct Ownership {
    next: u64,
    owned: BTreeSet<JailId>,
}

impl Numbers {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Table { next: 1, owned: BTreeSet::new() })))
    }

    /// A number that nobody has had.
    pub(crate) fn take(&self) -> Number {
        let mut table = self.table();
        let jail = JailId(table.next);
        table.next += 1;
        table.owned.insert(jail);
        drop(table);
        self.number(jail)
    }

    /// A number that is on record, or that is nobody's and to be removed. None: it is somebody's.
    pub(crate) fn own(&self, jail: JailId) -> Option<Number> {
        self.table().owned.insert(jail).then(|| self.number(jail))
    }

    /// Numbers below `number` are not given out any more.
    pub(crate) fn skip(&self, number: u64) {
        let mut table = self.table();
        table.next = table.next.max(number);
    }

    /// Which numbers are whose now.
    pub(crate) fn look(&self) -> Ownership {
        let table = self.table();
        Ownership { next: table.next, owned: table.owned.clone() }
    }

    fn number(&self, jail: JailId) -> Number {
        Number(Arc::new(Owned { jail, numbers: self.clone() }))
    }

    /// Nothing that can panic happens under the lock, so a poisoned one holds whole data.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Number {
    pub(crate) fn id(&self) -> JailId {
        self.0.jail
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.numbers.table().owned.remove(&self.jail);
    }
}

impl Ownership {
    /// True for what was nobody's, and so is for ever.
    pub(crate) fn is_nobodys(&self, jail: JailId) -> bool {
        jail.0 < self.next && !self.owned.contains(&jail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_somebodys_until_the_last_who_has_it_is_done() {
        let numbers = Numbers::new();
        numbers.skip(5);
        let number = numbers.take();
        assert_eq!(number.id(), JailId(5));
        let passed_on = number.clone();
        drop(number);
        assert!(!numbers.look().is_nobodys(JailId(5)));
        assert!(numbers.own(JailId(5)).is_none());
        drop(passed_on);
        assert!(numbers.look().is_nobodys(JailId(5)));
        // One of before, and one that is still to be given out.
        assert!(numbers.look().is_nobodys(JailId(3)));
        assert!(!numbers.look().is_nobodys(JailId(6)));
    }

    #[test]
    fn what_was_nobodys_is_not_given_out_again() {
        let numbers = Numbers::new();
        let given: BTreeSet<JailId> = (0..100).map(|_| numbers.take().id()).collect();
        assert_eq!(given.len(), 100);
        let removed = numbers.own(JailId(7)).unwrap();
        assert!(!numbers.look().is_nobodys(JailId(7)));
        drop(removed);
        assert!(numbers.look().is_nobodys(JailId(7)));
    }
}
