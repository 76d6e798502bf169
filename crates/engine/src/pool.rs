//! Blanks made ahead, of the kinds of sandboxes that are asked for most.
//!
//! A creation takes a blank of its kind if there is one; else it makes one, as it would without a pool.
//! Taken ones are replaced when no creation is under way, one at a time, so that nobody's creation
//! waits for a sandbox that nobody has asked for.
//!
//! Owns: how many blanks of which kind there are. Does not: know what becomes of one that is taken.
//!
//! Invariants:
//! - A blank is on record as a burial from before it is made until a sandbox's record takes its
//!   place: whatever happens, the next start removes those that nobody has claimed.
//! - At most [`crate::EngineConfig::pool`] exist, and none when the node is short of room.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use api::{id::ImageRef, network::NetworkPolicy};
use image::Store;
use jail::{Hostname, Limits};
use tokio::sync::Notify;

use crate::{
    EngineError,
    blank::{self, Blank},
    create, destroy,
    error::Publish,
    node::{Guest, Node},
    record::{Change, Files},
    resolver::Asker,
    settings::Settings,
};

/// Creations that are looked back on to tell what is asked for most: as far back as kinds are likely to
/// come in turn.
const REMEMBERED: usize = 16;

/// Creations of those that make a kind worth a blank: what was asked for once may never be again.
const OFTEN: usize = 2;

/// For how long no creation must have begun before a blank is made: the first command of a new sandbox
/// goes first.
const REST: Duration = Duration::from_millis(20);

/// Sandboxes that there must be room for, per blank: a pool gives way long before it keeps anybody out.
const ROOM_PER_BLANK: usize = 8;

/// A kind of sandbox: what a blank must agree in with whoever takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    image: ImageRef,
    image_digest: String,
    limits: Limits,
    network: NetworkPolicy,
    network_revision: u64,
}

impl Kind {
    pub(crate) fn of(settings: &Settings, image_digest: &str) -> Self {
        Self {
            image: settings.image.clone(),
            image_digest: image_digest.to_owned(),
            limits: settings.limits(),
            network: settings.network.clone(),
            network_revision: settings.network_revision,
        }
    }
}

/// A blank, its place on the node, and what it is.
#[derive(Debug)]
struct Kept {
    kind: Kind,
    guest: Guest,
    blank: Blank,
}

/// The blanks of a node.
#[derive(Debug)]
pub(crate) struct Pool {
    size: usize,
    /// Its lock is held for a look or a change of the lists.
    state: Mutex<State>,
    /// Creations that have begun.
    begun: AtomicU64,
    /// Something was taken.
    stirred: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first.
    kept: Vec<Kept>,
    /// The kinds of the last creations, the newest last.
    asked: VecDeque<Kind>,
    /// Those of them that could not be made.
    given_up: Vec<Kind>,
    /// No more are kept.
    is_closed: bool,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Make one of this kind.
    Make(Kind),
    /// End the one at this place.
    End(usize),
    Rest,
}

impl Pool {
    /// `size`: blanks at most; 0 for none.
    pub(crate) fn new(size: usize) -> Self {
        let state = Mutex::default();
        Self { size, state, begun: AtomicU64::new(0), stirred: Notify::new() }
    }

    /// Takes the oldest blank of this kind, for a sandbox that is being made.
    pub(crate) fn take(&self, kind: Kind) -> Option<(Guest, Blank)> {
        if self.size == 0 {
            return None;
        }
        self.begun.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        let place = state.kept.iter().position(|kept| kept.kind == kind);
        let taken = place.map(|place| state.kept.remove(place));
        if state.asked.len() == REMEMBERED {
            state.asked.pop_front();
        }
        let State { asked, given_up, .. } = &mut *state;
        given_up.retain(|one| *one != kind && asked.contains(one));
        asked.push_back(kind);
        drop(state);
        self.stirred.notify_one();
        taken.map(|Kept { guest, blank, .. }| (guest, blank))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.state().kept.len()
    }

    /// Keeps one, or gives it back if no more are kept.
    fn put(&self, kept: Kept) -> Option<Kept> {
        let mut state = self.state();
        if state.is_closed {
            return Some(kept);
        }
        state.kept.push(kept);
        None
    }

    /// Keeps no more, and gives up those there are.
    fn close(&self) -> Vec<Kept> {
        let mut state = self.state();
        state.is_closed = true;
        std::mem::take(&mut state.kept)
    }

    fn remove(&self, place: usize) -> Option<Kept> {
        let mut state = self.state();
        (place < state.kept.len()).then(|| state.kept.remove(place))
    }

    /// A kind that cannot be made is not tried again before it is asked for again, or all are renewed.
    fn give_up(&self, kind: Kind) {
        self.state().given_up.push(kind);
    }

    /// `room`: sandboxes that may still be created.
    fn next(&self, room: usize) -> Step {
        let state = self.state();
        let size = if room < self.size * ROOM_PER_BLANK { 0 } else { self.size };
        let kept: Vec<&Kind> = state.kept.iter().map(|kept| &kept.kind).collect();
        plan(state.asked.iter().filter(|kind| !state.given_up.contains(kind)), &kept, size)
    }

    /// Returns when no creation is under way and none has begun for a while.
    async fn rest(&self, node: &Node) {
        loop {
            let before = self.begun.load(Ordering::Relaxed);
            tokio::time::sleep(REST).await;
            let is_idle = node.creates.free() == node.creates.size();
            if is_idle && self.begun.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    /// Nothing is called under it but what is in this file.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every kind that was asked for often has a share of `size` by how often that was, and what is left
/// over goes to the first of those that are asked for most.
fn plan<'a>(asked: impl IntoIterator<Item = &'a Kind>, kept: &[&Kind], size: usize) -> Step {
    let mut kinds: Vec<(&Kind, usize)> = Vec::new();
    for kind in asked {
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((kind, 1)),
        }
    }
    kinds.retain(|(_, count)| *count >= OFTEN);
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let all: usize = kinds.iter().map(|(_, count)| count).sum();
    let share = |count: usize| (size * count).checked_div(all).unwrap_or(0);
    let left_over = size - kinds.iter().map(|(_, count)| share(*count)).sum::<usize>().min(size);
    let mut shares: Vec<(&Kind, usize)> =
        kinds.iter().map(|(kind, count)| (*kind, share(*count))).collect();
    if let Some((_, share)) = shares.first_mut() {
        *share += left_over;
    }
    let share_of = |kind: &Kind| {
        shares.iter().find(|(known, _)| *known == kind).map_or(0, |(_, share)| *share)
    };
    let count_of = |kind: &Kind| kept.iter().filter(|known| **known == kind).count();
    if let Some(place) = kept.iter().position(|kind| count_of(kind) > share_of(kind)) {
        return Step::End(place);
    }
    let wanted = shares.iter().find(|(kind, share)| count_of(kind) < *share);
    wanted.map_or(Step::Rest, |(kind, _)| Step::Make((*kind).clone()))
}

/// Keeps the pool, until the node closes; what is left of it then is ended.
pub(crate) fn spawn(node: &Arc<Node>) {
    if node.pool.size == 0 {
        return;
    }
    let owner = Arc::clone(node);
    node.work.spawn(async move {
        owner.closing.run_until_cancelled(keep(&owner)).await;
        for kept in owner.pool.close() {
            end(&owner, kept.guest, Some(kept.blank)).await;
        }
    });
}

/// Ends what there is; others are made in its place, also of kinds that could not be made before: what
/// was in the way may be gone.
pub(crate) async fn renew(node: &Arc<Node>) {
    let kept = {
        let mut state = node.pool.state();
        state.given_up.clear();
        std::mem::take(&mut state.kept)
    };
    for kept in kept {
        end_apart(node, kept.guest, Some(kept.blank)).await;
    }
    node.pool.stirred.notify_one();
}

async fn keep(node: &Arc<Node>) {
    loop {
        match node.pool.next(node.room()) {
            Step::Rest => node.pool.stirred.notified().await,
            Step::End(place) => {
                if let Some(kept) = node.pool.remove(place) {
                    end_apart(node, kept.guest, Some(kept.blank)).await;
                }
            }
            Step::Make(kind) => {
                node.pool.rest(node).await;
                // A task of its own: it is not given up half way when the node closes.
                let owner = Arc::clone(node);
                let wanted = kind.clone();
                let made = node.work.spawn(async move { make(&owner, wanted).await }).await;
                if let Ok(Err(error)) = made {
                    tracing::warn!(image = %kind.image, code = ?error.code, error = error.message,
                        "no sandbox of this kind can be made ahead");
                    node.pool.give_up(kind);
                }
            }
        }
    }
}

async fn make(node: &Arc<Node>, kind: Kind) -> Result<(), EngineError> {
    node.capacity.check()?;
    let asker = |jail| Asker::with(jail, kind.network.clone(), kind.network_revision);
    let (guest, asker) = node.acquire_guest(asker)?;
    match launch(node, &guest, &asker, &kind).await {
        Ok(blank) => {
            let jail = guest.jail();
            if let Some(unwanted) = node.pool.put(Kept { kind, guest, blank }) {
                end(node, unwanted.guest, Some(unwanted.blank)).await;
                return Ok(());
            }
            tracing::info!(%jail, ahead = node.pool.len(), "sandbox made ahead");
        }
        Err(error) => {
            end(node, guest, None).await;
            return Err(error);
        }
    }
    Ok(())
}

async fn launch(
    node: &Arc<Node>,
    guest: &Guest,
    asker: &Asker,
    kind: &Kind,
) -> Result<Blank, EngineError> {
    const ATTEMPT: &str = "making a sandbox ahead";
    let recorded = node.records.write(Change::Bury(guest.jail())).await;
    recorded.map_err(|error| error.publish(ATTEMPT))?;
    let digest = kind.image_digest.clone();
    let read = move |images: &Store| images.by_digest(&digest);
    let rootfs = create::read_image(node, &kind.image, read).await?;
    let prepared = blank::prepare(node, guest.jail(), rootfs).await?;
    let files = Files { volume: guest.jail(), inherited_bytes: 0 };
    let guest = (guest, Hostname::of(blank::NOBODYS));
    let spec = blank::spec(node, guest, asker, files, kind.limits);
    blank::launch(node, spec, prepared).await.map_err(|error| error.publish(ATTEMPT))
}

/// As [`end`], in a task of its own.
async fn end_apart(node: &Arc<Node>, guest: Guest, blank: Option<Blank>) {
    let owner = Arc::clone(node);
    // A panic there has been reported.
    drop(node.work.spawn(async move { end(&owner, guest, blank).await }).await);
}

/// Leaves nothing of a blank, which has a burial on record, but its files for the remover.
async fn end(node: &Node, guest: Guest, blank: Option<Blank>) {
    drop(blank);
    if let Err(error) = destroy::end_jail(node, guest.jail()).await {
        // Whoever looks for what is left ends the jail.
        node.lose(&guest);
        tracing::error!(jail = %guest.jail(), error = &error as &dyn std::error::Error,
            "a sandbox that was made ahead cannot be ended");
        return;
    }
    node.release(guest.slot);
    node.remover.remove(guest.number).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str) -> Kind {
        let settings = crate::record::tests::record("a", 1).settings;
        Kind::of(&settings, name)
    }

    #[test]
    fn kinds_that_are_asked_for_often_have_their_shares() {
        let [a, b, c] = ["a", "b", "c"].map(kind);
        let asked = |kinds: &str| -> VecDeque<Kind> {
            kinds.chars().map(|name| kind(&name.to_string())).collect()
        };
        let table = [
            ("", vec![], 4, Step::Rest),
            ("a", vec![], 4, Step::Rest),
            ("aa", vec![], 4, Step::Make(a.clone())),
            ("aa", vec![&a, &a, &a], 4, Step::Make(a.clone())),
            ("aa", vec![&a, &a, &a, &a], 4, Step::Rest),
            // One in three is not often, two are.
            ("aab", vec![&a, &a, &a], 4, Step::Make(a.clone())),
            ("aabb", vec![&a, &a], 4, Step::Make(b.clone())),
            ("aaaaaabb", vec![&b, &a, &a, &a], 4, Step::Rest),
            // What is left over is the first one's.
            ("aabbcc", vec![&a, &b, &c], 4, Step::Make(a.clone())),
            // More than its share, or none any more.
            ("aabb", vec![&a, &a, &a], 4, Step::End(0)),
            ("bb", vec![&b, &a], 4, Step::End(1)),
            ("aa", vec![&a], 0, Step::End(0)),
        ];
        for (kinds, kept, size, expected) in table {
            assert_eq!(plan(&asked(kinds), &kept, size), expected, "{kinds} {}", kept.len());
        }
    }

    #[test]
    fn what_was_asked_for_long_ago_is_forgotten() {
        let pool = Pool::new(2);
        for _ in 0..REMEMBERED {
            assert!(pool.take(kind("a")).is_none());
        }
        assert_eq!(pool.next(usize::MAX), Step::Make(kind("a")));
        for _ in 0..REMEMBERED {
            assert!(pool.take(kind("b")).is_none());
        }
        assert_eq!(pool.next(usize::MAX), Step::Make(kind("b")));
        assert_eq!(pool.state().asked.len(), REMEMBERED);
        assert_eq!(pool.next(2 * ROOM_PER_BLANK - 1), Step::Rest);
        pool.give_up(kind("b"));
        assert_eq!(pool.next(usize::MAX), Step::Rest);
        assert!(pool.take(kind("b")).is_none());
        assert_eq!(pool.next(usize::MAX), Step::Make(kind("b")));
    }
}
