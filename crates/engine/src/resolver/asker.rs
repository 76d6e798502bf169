//! One sandbox as the resolver knows it: which names it may ask for, which addresses it was told for
//! them, how often it has asked.

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use api::network::{AllowList, HostName, NetworkPolicy};
use jail::{JailId, LEARNED_AT_ONCE, Learned, Reach};

use super::message;
use crate::{network, settings::Settings};

/// Least seconds for which an address may be reached after its name was asked for: a program asks
/// once and then tries, and tries again, for a while, also when the answer's own time is 0.
pub(super) const LEAST_SECONDS: u32 = 60;

/// Most seconds. Answers are told to last no longer either, so a program that goes by them asks
/// again in time.
pub(super) const MOST_SECONDS: u32 = 60 * 60;

/// Addresses of names that are remembered of one sandbox. They are needed when its policy changes,
/// for what stays allowed.
const REMEMBERED: usize = 1024;

/// Refused names that are remembered of one sandbox, to be shown.
const SHOWN: usize = 8;

/// Time between two questions of one sandbox when it asks all the time: a hundred a second.
const QUESTION: Duration = Duration::from_millis(10);

/// How far it may be ahead of that: a burst of two hundred.
const BURST: Duration = Duration::from_secs(2);

/// One sandbox, or the sandbox of a build.
#[derive(Debug)]
pub(crate) struct Asker {
    jail: JailId,
    /// Nothing is called under its lock but what is in this file.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    policy: NetworkPolicy,
    revision: u64,
    /// Addresses that names led to, and until when they may be reached.
    remembered: BTreeMap<(HostName, Ipv4Addr), Instant>,
    /// When all its questions so far would be through at [`QUESTION`] each.
    asked_until: Instant,
    refused_names: u64,
    /// The newest of those names, the newest first, each once.
    newest_refused: VecDeque<String>,
}

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is passed on, and the answer too.
    Pass,
    /// It is not passed on. As far as the sandbox is told, there is no such name.
    Refuse,
    /// It is passed on, and the addresses in the answer may be reached under the policy of this
    /// revision.
    Learn(HostName, u64),
    /// Nobody can have asked: the sandbox reaches nothing.
    Ignore,
}

impl Asker {
    /// A sandbox with these settings.
    pub(crate) fn new(jail: JailId, settings: &Settings) -> Self {
        Self::with(jail, settings.network.clone(), settings.network_revision)
    }

    /// A sandbox of the operator's own, for a build.
    pub(crate) fn of_build(jail: JailId) -> Self {
        Self::with(jail, NetworkPolicy::Internet, 0)
    }

    /// Whoever has this policy.
    pub(crate) fn with(jail: JailId, policy: NetworkPolicy, revision: u64) -> Self {
        let state = State {
            policy,
            revision,
            remembered: BTreeMap::new(),
            asked_until: Instant::now(),
            refused_names: 0,
            newest_refused: VecDeque::new(),
        };
        Self { jail, state: Mutex::new(state) }
    }

    pub(super) fn jail(&self) -> JailId {
        self.jail
    }

    /// From now on questions are judged by these settings.
    pub(crate) fn set_policy(&self, settings: &Settings) {
        let mut state = self.state();
        state.policy = settings.network.clone();
        state.revision = settings.network_revision;
    }

    /// How many questions for names were refused, and the newest of those names.
    pub(crate) fn refused_names(&self) -> (u64, Vec<String>) {
        let state = self.state();
        (state.refused_names, state.newest_refused.iter().cloned().collect())
    }

    /// Forgets what was counted and remembered: the sandbox starts anew.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        state.remembered.clear();
        state.refused_names = 0;
        state.newest_refused.clear();
    }

    /// What the sandbox reaches now.
    pub(crate) fn reach(&self) -> Reach {
        let state = self.state();
        state.reach(&state.policy, state.revision, Instant::now())
    }

    /// What it would reach under these settings.
    pub(crate) fn reach_under(&self, settings: &Settings) -> Reach {
        let (policy, revision) = (&settings.network, settings.network_revision);
        self.state().reach(policy, revision, Instant::now())
    }

    /// Counts a question. False: it has asked too often.
    pub(super) fn may_ask(&self, now: Instant) -> bool {
        let mut state = self.state();
        let until = state.asked_until.max(now) + QUESTION;
        let may = until <= now + BURST;
        if may {
            state.asked_until = until;
        }
        may
    }

    pub(super) fn judge(&self, query: &[u8]) -> Judgement {
        let mut state = self.state();
        let list = match &state.policy {
            NetworkPolicy::Internet => return Judgement::Pass,
            NetworkPolicy::None => return Judgement::Ignore,
            NetworkPolicy::Listed(list) => list,
        };
        match message::asked_name(query) {
            Some(name) if list.allow.iter().any(|rule| rule.allows_name(&name)) => {
                Judgement::Learn(name, state.revision)
            }
            _ => {
                state.note_refused(query);
                Judgement::Refuse
            }
        }
    }

    /// What may be reached because `name` was answered with these addresses, each with the seconds
    /// that the answer gives it. None: the policy of this revision is no more.
    pub(super) fn learned(
        &self,
        name: &HostName,
        revision: u64,
        addresses: &[(Ipv4Addr, u32)],
    ) -> Option<Vec<Learned>> {
        let state = self.state();
        let NetworkPolicy::Listed(list) = &state.policy else { return None };
        let lasting = |seconds: &u32| (*seconds).clamp(LEAST_SECONDS, MOST_SECONDS);
        let lasting = addresses.iter().map(|(address, seconds)| (name, *address, lasting(seconds)));
        // What another answer gave one of them is not taken back by this one.
        let is_told = |found: &Ipv4Addr| addresses.iter().any(|(address, _)| address == found);
        let earlier = state.remembered(Instant::now()).filter(|(_, address, _)| is_told(address));
        (state.revision == revision).then(|| learned(list, lasting.chain(earlier)))
    }

    /// Notes that `name` was answered with these addresses, and that they may be reached. False: the
    /// policy of this revision is no more.
    pub(super) fn remember(
        &self,
        name: &HostName,
        revision: u64,
        addresses: &[(Ipv4Addr, u32)],
    ) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        for (address, seconds) in addresses {
            let seconds = (*seconds).clamp(LEAST_SECONDS, MOST_SECONDS);
            let until = now + Duration::from_secs(seconds.into());
            let place = state.remembered.entry((name.clone(), *address)).or_insert(until);
            *place = until.max(*place);
        }
        while state.remembered.len() > REMEMBERED {
            let oldest = state.remembered.iter().min_by_key(|(_, until)| **until);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            state.remembered.remove(&oldest);
        }
        state.revision == revision
    }

    /// Whoever panicked under the lock did so between whole states.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note_refused(&mut self, query: &[u8]) {
        self.refused_names += 1;
        let Some(name) = message::written_name(query) else { return };
        self.newest_refused.retain(|other| *other != name);
        self.newest_refused.push_front(name);
        self.newest_refused.truncate(SHOWN);
    }

    fn reach(&self, policy: &NetworkPolicy, revision: u64, now: Instant) -> Reach {
        let list = match policy {
            NetworkPolicy::Internet => return Reach::Internet,
            NetworkPolicy::None => return Reach::Nothing,
            NetworkPolicy::Listed(list) => list,
        };
        Reach::Listed(jail::AllowList {
            revision,
            ranges: list.allow.iter().filter_map(network::range).collect(),
            learned: learned(list, self.remembered(now)),
        })
    }

    /// What names led to, and for how many seconds from `now` on: at least one.
    fn remembered(&self, now: Instant) -> impl Iterator<Item = (&HostName, Ipv4Addr, u32)> {
        self.remembered.iter().filter_map(move |((name, address), until)| {
            let left = until.saturating_duration_since(now).as_secs();
            (left > 0).then(|| (name, *address, u32::try_from(left).unwrap_or(MOST_SECONDS)))
        })
    }
}

/// What a list allows of addresses that names led to. Addresses that no sandbox reaches are none:
/// a name does not open a private range, whoever answers for it.
fn learned<'a>(
    list: &AllowList,
    addresses: impl Iterator<Item = (&'a HostName, Ipv4Addr, u32)>,
) -> Vec<Learned> {
    let mut all = BTreeMap::new();
    for (name, address, seconds) in addresses {
        let itself = jail::AddressRange { base: address, prefix: 32, port: None, protocol: None };
        if jail::why_out_of_reach(&itself).is_some() {
            continue;
        }
        for rule in list.allow.iter().filter(|rule| rule.allows_name(name)) {
            for service in network::services(rule) {
                let longest = all.entry((address, service)).or_insert(seconds);
                *longest = seconds.max(*longest);
            }
        }
    }
    let learned = |((address, service), seconds)| Learned { address, service, seconds };
    let mut all: Vec<Learned> = all.into_iter().map(learned).collect();
    all.sort_by_key(|learned| std::cmp::Reverse(learned.seconds));
    all.truncate(LEARNED_AT_ONCE);
    all
}

#[cfg(test)]
pub(super) mod tests;
