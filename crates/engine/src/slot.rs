//! Slots: each sandbox has one while it exists. It decides its user ids and its address.

use std::collections::BTreeSet;

use jail::NodeSpec;

/// Host user ids per sandbox, and so the distance between two slots' ranges.
pub(crate) const UIDS_PER_SLOT: u32 = 65_536;

/// The slots of a node.
///
/// Given out in turn: a slot that becomes free is the last to be used again, so that whatever
/// lingers of its old owner (a packet, a file, a cache) meets nobody new for long.
#[derive(Debug)]
pub(crate) struct Slots {
    taken: BTreeSet<u32>,
    /// Slots are 0 to `count - 1`.
    count: u32,
    /// Where the search begins.
    next: u32,
}

impl Slots {
    /// As many slots as there are user ids from `uid_base` up and addresses in the node's network.
    pub(crate) fn new(node: &NodeSpec, uid_base: u32) -> Self {
        // The last id of a range must be less than 2^32 - 1, which means "no id" to the kernel.
        let by_uids = (u32::MAX - uid_base) / UIDS_PER_SLOT;
        let by_addresses = node.network.map_or(u32::MAX, |network| {
            // Base, gateway and broadcast are not given out.
            (1_u32 << (32 - u32::from(network.prefix))) - 3
        });
        Self::with_count(by_uids.min(by_addresses))
    }

    fn with_count(count: u32) -> Self {
        Self { taken: BTreeSet::new(), count, next: 0 }
    }

    /// Takes the next free slot; none when all are taken.
    pub(crate) fn acquire(&mut self) -> Option<u32> {
        let slot = (self.next..self.count)
            .chain(0..self.next.min(self.count))
            .find(|slot| !self.taken.contains(slot))?;
        self.reserve(slot);
        Some(slot)
    }

    /// Takes a slot that a record names. False: it is taken already or out of range.
    pub(crate) fn reserve(&mut self, slot: u32) -> bool {
        if slot >= self.count {
            return false;
        }
        self.next = slot + 1;
        self.taken.insert(slot)
    }

    /// How many are free.
    pub(crate) fn free(&self) -> usize {
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        count.saturating_sub(self.taken.len())
    }

    /// Gives a slot back.
    pub(crate) fn release(&mut self, slot: u32) {
        self.taken.remove(&slot);
    }
}

#[cfg(test)]
mod tests {
    use jail::NodeNetwork;

    use super::*;

    #[test]
    fn a_freed_slot_is_used_again_last() {
        let mut slots = Slots::with_count(3);
        assert_eq!([slots.acquire(), slots.acquire()], [Some(0), Some(1)]);
        slots.release(0);
        assert_eq!(slots.acquire(), Some(2));
        assert_eq!(slots.acquire(), Some(0));
        assert_eq!(slots.acquire(), None);
        assert_eq!(slots.free(), 0);
        slots.release(1);
        assert_eq!(slots.free(), 1);
        assert_eq!(slots.acquire(), Some(1));
    }

    #[test]
    fn a_recorded_slot_is_not_given_out() {
        let mut slots = Slots::with_count(3);
        assert!(slots.reserve(1));
        assert!(!slots.reserve(1));
        assert!(!slots.reserve(3));
        assert_eq!([slots.acquire(), slots.acquire()], [Some(2), Some(0)]);
        assert_eq!(slots.acquire(), None);
    }

    #[test]
    fn every_slot_has_an_address_and_user_ids() {
        let network = NodeNetwork { base: [10, 213, 0, 0].into(), prefix: 28 };
        let mut node =
            NodeSpec { state_dir: "/".into(), name: "t".to_owned(), network: Some(network) };
        let slots = Slots::new(&node, 1 << 20);
        assert_eq!(slots.count, 13);
        assert!(network.address(slots.count - 1).is_some());
        assert!(network.address(slots.count).is_none());

        node.network = None;
        let slots = Slots::new(&node, 1 << 20);
        let last = u64::from(slots.count) * u64::from(UIDS_PER_SLOT) + (1 << 20) - 1;
        assert!(last < u64::from(u32::MAX));
    }
}
