//! Finds what is there and nobody's, and removes it: at the start (`recover.rs`), and from time to time.
//!
//! | what                                    | found in                   | removed by          |
//! |-----------------------------------------|----------------------------|---------------------|
//! | processes, cgroups                      | the node's cgroups         | clearing its jail   |
//! | addresses, sets and chains of policies  | the node's firewall table  | clearing its jail   |
//! | links                                   | the network namespace      | removing them       |
//! | sockets                                 | `run`                      | removing them       |
//! | volumes, directories                    | `volumes`, `sandboxes`     | the remover         |
//! | burials of which nothing is left        | the records                | ending them         |
//! | slots of guests that could not be ended | memory                     | clearing their jail |
//! | jails of sandboxes that do not run      | the node's cgroups         | clearing them       |
//! | sandboxes that could not be destroyed   | memory                     | destroying them     |
//!
//! It also sees whether the firewall's rules are all there: `nft flush ruleset` takes everybody's. Where
//! they are not they are loaded, so that no sandbox reaches anything, and then what each may reach is put
//! in force again. Until then, for up to a period, sandboxes reach what the host lets them.
//!
//! The loop device of the volumes is not among them: the kernel frees it with its last user.
//!
//! Whose everything is, is looked at first, and then what there is. What was nobody's is nobody's for
//! ever (`number.rs`), so nothing that is being made, restored or destroyed meanwhile is taken for a
//! leak. Should memory be wrong all the same, the record refuses to bury what is on it as somebody's.
//!
//! Costs a listing of each of those directories and of one firewall map: linear in what there is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use api::event::{EventCause, EventKind};
use futures_util::{StreamExt, stream};
use jail::JailId;

use crate::{
    EngineError, destroy, error,
    error::Publish,
    event::{Cause, Draft},
    freeze, network,
    node::Node,
    number::{Number, Ownership},
    pool,
    record::{Change, RecordError},
    sandbox::Sandbox,
    state::{Admission, Operation, State},
};

/// What is removed together; it queues at the launchers anyway.
const AT_ONCE: usize = 16;

/// Jails with a cgroup or rules, and the agent's pid where it is alive.
pub(crate) type Jails = BTreeMap<JailId, Option<i32>>;

/// What there is, by number.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) jails: Jails,
    pub(crate) links: BTreeSet<JailId>,
    pub(crate) sockets: BTreeSet<JailId>,
    pub(crate) volumes: BTreeSet<JailId>,
    pub(crate) burials: BTreeSet<JailId>,
}

/// What there is under one number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Remains {
    jail: bool,
    link: bool,
    socket: bool,
    volume: bool,
    burial: bool,
}

/// How often something was found; see [`crate::Engine::remains_found`].
#[derive(Debug, Default)]
pub(crate) struct Finds {
    remains: AtomicU64,
    /// The node's firewall rules were missing.
    networks: AtomicU64,
}

impl Finds {
    pub(crate) fn remains(&self) -> u64 {
        self.remains.load(Ordering::Relaxed)
    }

    pub(crate) fn networks(&self) -> u64 {
        self.networks.load(Ordering::Relaxed)
    }
}

impl Found {
    /// The highest number that anything has.
    pub(crate) fn highest(&self) -> u64 {
        let sets = [&self.links, &self.sockets, &self.volumes, &self.burials];
        let highest = sets.into_iter().filter_map(|set| set.last());
        highest.chain(self.jails.keys().last()).map(|jail| jail.0).max().unwrap_or(0)
    }

    pub(crate) fn under(&self, number: JailId) -> Remains {
        Remains {
            jail: self.jails.contains_key(&number),
            link: self.links.contains(&number),
            socket: self.sockets.contains(&number),
            volume: self.volumes.contains(&number),
            burial: self.burials.contains(&number),
        }
    }

    /// The numbers that something has and that are nobody's.
    pub(crate) fn nobodys(&self, ownership: &Ownership) -> BTreeSet<JailId> {
        let sets = [&self.links, &self.sockets, &self.volumes, &self.burials];
        let all = sets.into_iter().flatten().chain(self.jails.keys());
        all.copied().filter(|number| ownership.is_nobodys(*number)).collect()
    }
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.jail, "cgroups or network rules"),
            (self.link, "a network link"),
            (self.socket, "a socket"),
            (self.volume, "files"),
            (self.burial, "a record of what is to be removed"),
        ];
        let parts: Vec<_> = parts.iter().filter(|(is, _)| *is).map(|(_, what)| *what).collect();
        f.write_str(&parts.join(", "))
    }
}

/// Looks at what there is.
pub(crate) async fn look(node: &Node) -> Result<Found, EngineError> {
    let jails = node.launchers.call(jail::Launcher::jails, |_, _| {}).await;
    let jails = jails.map_err(|error| error.publish("looking for running sandboxes"))?;
    let burials = node.records.burials().await;
    let burials = burials.map_err(|error| error.publish("reading what is to be removed"))?;
    let volumes = node.launchers.call(jail::Launcher::volumes, |_, _| {}).await;
    let volumes = volumes.map_err(|error| error.publish("looking for the files of sandboxes"))?;
    let (spec, run_dir) = (node.config.node.clone(), node.links.run_dir().to_owned());
    let read = tokio::task::spawn_blocking(move || {
        let sockets = numbered(&run_dir, link::socket::jail_of)?;
        let links = jail::links(&spec.name);
        let links = links.map_err(|error| error::state_dir("listing network links", &error))?;
        Ok::<_, EngineError>((sockets, links))
    });
    let (sockets, links) =
        read.await.map_err(|_panicked| error::internal("looking at the node"))??;
    let (jails, burials) = (jails.into_iter().collect(), burials.into_iter().collect());
    let volumes = volumes.into_iter().collect();
    Ok(Found { jails, links, sockets, volumes, burials })
}

/// Numbers that `parse` finds in the names of a directory.
fn numbered(
    dir: &Path,
    parse: impl Fn(&str) -> Option<u64>,
) -> Result<BTreeSet<JailId>, EngineError> {
    let read = || -> std::io::Result<BTreeSet<JailId>> {
        let mut numbers = BTreeSet::new();
        for entry in std::fs::read_dir(dir)? {
            numbers.extend(entry?.file_name().to_str().and_then(&parse).map(JailId));
        }
        Ok(numbers)
    };
    read().map_err(|error| error::state_dir("reading the state directory", &error))
}

/// Looks again and again, until the node takes no new work.
pub(crate) fn spawn(node: &Arc<Node>) {
    let owner = Arc::clone(node);
    node.watchers.spawn(async move {
        let (mut linked, mut is_restored) = (BTreeSet::new(), false);
        loop {
            tokio::select! {
                () = owner.closing.cancelled() => return,
                () = tokio::time::sleep(owner.config.reconcile_every) => {}
            }
            // Of the node's work: it ends before the launchers do.
            let round = Arc::clone(&owner);
            let before = std::mem::take(&mut linked);
            let done = owner.work.spawn(async move {
                let is_restored = restore_network(&round, is_restored).await;
                (is_restored, reconcile(&round, &before).await)
            });
            match done.await.map(|(restored, found)| {
                is_restored = restored;
                found
            }) {
                Ok(Ok(found)) => linked = found,
                Ok(Err(error)) => tracing::warn!(code = ?error.code, error = error.message,
                    "what is left behind cannot be looked for"),
                Err(_panicked) => {}
            }
        }
    });
}

/// Loads the node's rules if some are missing. `is_restored`: that was so before, and sandboxes that were
/// being made then are not in force yet. True: it was so, now or before.
async fn restore_network(node: &Arc<Node>, is_restored: bool) -> bool {
    let set_up = node.network.call(jail::Launcher::set_up_network, |_, _| {}).await;
    let is_missing = set_up.unwrap_or_else(|error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the firewall's rules cannot be looked at or loaded; it is tried again"
        );
        false
    });
    if is_missing {
        let what = "firewall rules were missing and are there again";
        node.finds.networks.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(what, "network restored");
        let told = Draft::of_nobody(EventKind::NetworkRestored, EventCause::Reconcile, what);
        node.records.submit(Change::Nothing.telling(told)).await;
        pool::renew(node).await;
    }
    if is_missing || is_restored {
        let all = stream::iter(node.all());
        all.for_each_concurrent(AT_ONCE, |sandbox| confine(node, sandbox)).await;
    }
    is_missing || is_restored
}

/// Puts in force what a sandbox may reach, unless somebody works on it: the next round tries again.
async fn confine(node: &Arc<Node>, sandbox: Arc<Sandbox>) {
    let (Admission::Begin, before) = sandbox.begin(Operation::Change) else { return };
    if before.agent().is_some()
        && let Err(error) = network::confine(node, &sandbox).await
    {
        tracing::error!(jail = %sandbox.jail, error = &error as &dyn std::error::Error,
            "a sandbox's network policy cannot be put in force; it reaches nothing until the next try");
    }
    sandbox.set(before);
}

/// One round. Links are the kernel's to remove, which takes it a while: only those count that were there
/// the last time, `linked`, too. Returns those that are there now.
async fn reconcile(
    node: &Arc<Node>,
    linked: &BTreeSet<JailId>,
) -> Result<BTreeSet<JailId>, EngineError> {
    let at_rest: Vec<_> = node.all().into_iter().filter(|sandbox| rests(sandbox)).collect();
    let ownership = node.numbers.look();
    let mut found = look(node).await?;
    let links = std::mem::take(&mut found.links);
    found.links = links.intersection(linked).copied().collect();
    let nobodys = found.nobodys(&ownership);
    bury_all(node, nobodys, &found, EventCause::Reconcile).await;
    for sandbox in at_rest {
        settle(node, &sandbox, &found.jails).await;
    }
    Ok(links)
}

fn rests(sandbox: &Sandbox) -> bool {
    matches!(sandbox.state(), State::Stopped | State::Failed(_) | State::Doomed(_))
}

/// Ends what runs of a sandbox that does not run.
async fn settle(node: &Arc<Node>, sandbox: &Arc<Sandbox>, jails: &Jails) {
    let cause = Cause::of(EventCause::Reconcile);
    if matches!(sandbox.state(), State::Doomed(_)) {
        // A failure is logged where it happens.
        drop(destroy::end(node, sandbox, Operation::Destroy, &cause).await);
        return;
    }
    if !rests(sandbox) || !jails.contains_key(&sandbox.jail) {
        return;
    }
    let (owner, held) = (Arc::clone(node), Arc::clone(sandbox));
    let work = async move {
        if matches!(held.state(), State::Held(before) if before.agent().is_some()) {
            return Ok(());
        }
        // It may have been started and stopped since.
        let jails = owner.launchers.call(jail::Launcher::jails, |_, _| {}).await;
        let jails = jails.map_err(|error| error.publish("looking for running sandboxes"))?;
        if !jails.iter().any(|(jail, _)| *jail == held.jail) {
            return Ok(());
        }
        let what = "something of it ran although it did not";
        owner.finds.remains.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(sandbox_id = %held.id, jail = %held.jail, what, "remains found");
        let told = held.tells(EventKind::RemainsFound, cause.saying(what));
        owner.records.submit(Change::Nothing.telling(told)).await;
        let ended = destroy::end_jail(&owner, held.jail).await;
        ended.map_err(|error| error.publish("ending what is left of a sandbox"))
    };
    if let Err(error) = freeze::hold(node, sandbox, work).await {
        tracing::warn!(sandbox_id = %sandbox.id, jail = %sandbox.jail, error = error.message,
            "what runs of a sandbox that does not cannot be ended; it is tried again");
    }
}

/// Ends what is there under these numbers, which are nobody's, and leaves their files to the remover.
pub(crate) async fn bury_all(
    node: &Arc<Node>,
    numbers: BTreeSet<JailId>,
    found: &Found,
    cause: EventCause,
) {
    let own = |number| node.numbers.own(number);
    let owned: Vec<Number> = numbers.into_iter().filter_map(own).collect();
    let ended: Vec<Option<Number>> = stream::iter(owned)
        .map(|number| async move {
            let remains = found.under(number.id());
            bury(node, &number, remains, cause).await.then_some(number)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    remove_behind(node, ended.into_iter().flatten().collect());
}

/// Has the remover take away the volumes of these numbers, of which nothing runs: behind the caller, for
/// there may be more than its queue holds.
pub(crate) fn remove_behind(node: &Arc<Node>, volumes: Vec<Number>) {
    let owner = Arc::clone(node);
    node.watchers.spawn(async move {
        let all = async {
            for volume in volumes {
                owner.remover.remove(volume).await;
            }
        };
        tokio::select! {
            () = owner.ending.cancelled() => {}
            () = all => {}
        }
    });
}

/// Leaves nothing under a number but files. False: the next round tries again.
async fn bury(node: &Node, number: &Number, remains: Remains, cause: EventCause) -> bool {
    let jail = number.id();
    let change = Change::Remains(jail);
    // What a daemon had begun to remove when it ended is no leak, nor is the socket of a creation that it
    // had not recorded; what one leaves while it runs is.
    let is_unknown = !remains.burial && (remains.jail || remains.volume);
    let is_leak = is_unknown || cause == EventCause::Reconcile;
    let recorded = if is_leak {
        let what = format!("number {jail}: {remains}");
        let told = Draft::of_nobody(EventKind::RemainsFound, cause, &what);
        node.records.write(change.telling(told)).await
    } else {
        node.records.write(change).await
    };
    match recorded {
        Ok(()) if is_leak => {
            node.finds.remains.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%jail, what = %remains, "remains found");
        }
        Ok(()) => {}
        Err(error @ RecordError::Owned(_)) => {
            tracing::error!(%jail, what = %remains, error = &error as &dyn std::error::Error,
                "what seems to be nobody's is not touched");
            return false;
        }
        Err(error) => tracing::warn!(%jail, error = &error as &dyn std::error::Error,
            "remains are not recorded; they are found again"),
    }
    let ended = end(node, jail, remains).await;
    if let Err(error) = &ended {
        tracing::error!(%jail, code = ?error.code, error = error.message,
            "remains of a sandbox cannot be ended; it is tried again");
        return false;
    }
    node.release_lost(jail);
    true
}

/// Ends what is in the kernel under a number, and its socket.
async fn end(node: &Node, jail: JailId, remains: Remains) -> Result<(), EngineError> {
    const ATTEMPT: &str = "ending what is left of a sandbox";
    if remains.jail {
        node.launchers.clear(jail).await.map_err(|error| error.publish(ATTEMPT))?;
    }
    if remains.link {
        let removed = node.network.call(move |launcher| launcher.remove_links(jail), |_, ()| {});
        removed.await.map_err(|error| error.publish(ATTEMPT))?;
    }
    if remains.socket {
        link::socket::unlink(node.links.run_dir(), jail.0)
            .map_err(|error| error::state_dir("removing a stale socket", &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_as_we_print_them_are_sockets_of_jails() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["7.sock", "08.sock", "x.sock", "7", "12.sock"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let found = numbered(dir.path(), link::socket::jail_of).unwrap();
        assert_eq!(found, BTreeSet::from([JailId(7), JailId(12)]));
        numbered(&dir.path().join("none"), link::socket::jail_of).unwrap_err();
    }

    #[test]
    fn what_was_found_is_said() {
        let remains = Remains { jail: true, volume: true, ..Remains::default() };
        assert_eq!(remains.to_string(), "cgroups or network rules, files");
    }
}
