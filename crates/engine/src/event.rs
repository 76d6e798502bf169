//! What happens in the lives of sandboxes, told: drafted here, written by the record in the
//! transaction of the change it tells of, read by cursor and followed.
//!
//! ```text
//! Cause ─▶ Draft ─▶ (with its change) record ─▶ disk ─▶ followers
//!                                                 └────▶ readers
//! ```
//!
//! Owns: who sees which event. Does not: decide what happens, or know how a caller is answered.
//!
//! Invariant: nobody is told of what is not on disk.
//! Invariant: a follower is given every event from its cursor on that it may see, or learns that it
//! missed some.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use api::{
    event::{Event, EventCause, EventKind, EventList, ListEvents},
    id::{CheckpointId, IdPrefix, KeyName, SandboxId},
    limit::PAGE_ENTRIES,
};
use serde::{Deserialize, de::value::StrDeserializer};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use crate::{
    EngineError,
    error::{self, Publish},
    key::{By, Key},
    list::LabelFilter,
    node::{Node, now_ms},
    record::{Chapter, Records},
    sandbox::Sandbox,
    settings::Settings,
};

/// Steps of reading for one page: with filters, a page may be short although there is more.
const STEPS: usize = 4;

/// Why something happens to a sandbox, and in whose name.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    why: EventCause,
    key: Option<KeyName>,
    source: Option<SandboxId>,
    checkpoint: Option<CheckpointId>,
    message: Option<String>,
}

impl Cause {
    /// One that is nobody's.
    pub(crate) fn of(why: EventCause) -> Self {
        Self { why, key: None, source: None, checkpoint: None, message: None }
    }

    /// Somebody asks for exactly this.
    pub(crate) fn request(key: &Key) -> Self {
        Self { key: Some(key.name().clone()), ..Self::of(EventCause::Request) }
    }

    /// Somebody uses the sandbox.
    pub(crate) fn usage(by: By<'_>) -> Self {
        match by {
            By::Key(key) => Self { key: Some(key.name().clone()), ..Self::of(EventCause::Use) },
            By::Visitors(_) => Self::of(EventCause::Preview),
        }
    }

    /// It failed, for this reason. In whose name it was tried stays.
    pub(crate) fn failing(&self, reason: &str) -> Self {
        let message = Some(reason.to_owned());
        Self { why: EventCause::Failure, message, ..self.clone() }
    }

    /// With this said for people.
    pub(crate) fn saying(self, message: &str) -> Self {
        Self { message: Some(message.to_owned()), ..self }
    }

    /// It begins with the files of this sandbox.
    pub(crate) fn forking(self, source: &SandboxId) -> Self {
        Self { source: Some(source.clone()), ..self }
    }

    /// It is about this checkpoint.
    pub(crate) fn about(self, checkpoint: &CheckpointId) -> Self {
        Self { checkpoint: Some(checkpoint.clone()), ..self }
    }
}

/// An event that is not on disk yet.
#[derive(Debug, Clone)]
pub(crate) struct Draft(Event);

impl Draft {
    /// Tells what happens now to the sandbox with this id and these settings.
    pub(crate) fn of(id: &SandboxId, settings: &Settings, kind: EventKind, cause: Cause) -> Self {
        let Cause { why, key, source, checkpoint, message } = cause;
        Self(Event {
            // The record's to give.
            cursor: 0,
            at_ms: now_ms(),
            kind,
            cause: why,
            sandbox_id: Some(id.clone()),
            labels: settings.labels.clone(),
            key,
            checkpoint,
            source,
            message,
        })
    }

    /// Tells of something that is no sandbox's.
    pub(crate) fn of_nobody(kind: EventKind, cause: EventCause, message: &str) -> Self {
        Self(Event {
            cursor: 0,
            at_ms: now_ms(),
            kind,
            cause,
            sandbox_id: None,
            labels: BTreeMap::new(),
            key: None,
            checkpoint: None,
            source: None,
            message: Some(message.to_owned()),
        })
    }

    /// What is to be written.
    pub(crate) fn event(&self) -> &Event {
        &self.0
    }
}

impl Sandbox {
    /// Tells what happens to it now.
    pub(crate) fn tells(&self, kind: EventKind, cause: Cause) -> Draft {
        Draft::of(&self.id, &self.settings(), kind, cause)
    }
}

/// Which events somebody asks for and may see.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    prefix: Option<IdPrefix>,
    sandbox: Option<SandboxId>,
    label: Option<LabelFilter>,
    /// Empty: all.
    kinds: Vec<EventKind>,
}

impl Filter {
    /// # Errors
    /// `VALIDATION_FAILED` naming the field.
    fn of(query: &ListEvents, prefix: Option<&IdPrefix>) -> Result<Self, EngineError> {
        let kinds = query.kind.as_deref().map(|list| list.split(',').map(kind).collect());
        let kinds = kinds.transpose()?.unwrap_or_default();
        Self::new(prefix, query.sandbox.as_ref(), query.label.as_deref(), kinds)
    }

    /// # Errors
    /// `VALIDATION_FAILED` naming the field.
    pub(crate) fn new(
        prefix: Option<&IdPrefix>,
        sandbox: Option<&SandboxId>,
        label: Option<&str>,
        kinds: Vec<EventKind>,
    ) -> Result<Self, EngineError> {
        let label = label.map(LabelFilter::of).transpose()?;
        Ok(Self { prefix: prefix.cloned(), sandbox: sandbox.cloned(), label, kinds })
    }

    /// The event as who asks may see it, if it is asked for.
    fn take(&self, mut event: Event) -> Option<Event> {
        if !self.asks_for(&event) {
            return None;
        }
        if let Some(prefix) = &self.prefix {
            // Who else has keys, and what there is beyond the prefix, is nobody's business.
            event.key = None;
            if event.source.take_if(|source| !prefix.covers(source)).is_some() {
                event.checkpoint = None;
            }
        }
        Some(event)
    }

    fn asks_for(&self, event: &Event) -> bool {
        let sandbox = event.sandbox_id.as_ref();
        self.prefix.as_ref().is_none_or(|prefix| sandbox.is_some_and(|id| prefix.covers(id)))
            && self.sandbox.as_ref().is_none_or(|id| sandbox == Some(id))
            && self.label.as_ref().is_none_or(|label| label.matches(&event.labels))
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
    }
}

fn kind(name: &str) -> Result<EventKind, EngineError> {
    EventKind::deserialize(StrDeserializer::<serde::de::value::Error>::new(name))
        .map_err(|error| error::invalid("kind", &format!("kind: {error}")))
}

/// A page of the events that `query` asks for, among those of sandboxes with this prefix.
pub(crate) async fn list(
    node: &Node,
    query: &ListEvents,
    prefix: Option<&IdPrefix>,
) -> Result<EventList, EngineError> {
    let filter = Filter::of(query, prefix)?;
    let limit = query.limit.unwrap_or(PAGE_ENTRIES);
    if !(1..=PAGE_ENTRIES).contains(&limit) {
        let message = format!("limit is {limit}; it can be 1 to {PAGE_ENTRIES}");
        return Err(error::invalid("limit", &message));
    }
    let mut page = EventList { events: Vec::new(), cursor: query.after.unwrap_or(0), more: true };
    let mut after = query.after;
    for _ in 0..STEPS {
        let chapter = read(&node.records, after).await?;
        let has_none = chapter.events.is_empty();
        for event in chapter.events {
            if page.events.len() == limit {
                return Ok(page);
            }
            page.cursor = event.cursor;
            page.events.extend(filter.take(event));
        }
        if has_none {
            page.cursor = chapter.newest;
        }
        page.more = chapter.has_more;
        if !page.more {
            break;
        }
        after = Some(page.cursor);
    }
    Ok(page)
}

/// Reads what follows a cursor.
///
/// # Errors
/// `EVENTS_MISSED` when some of it is gone, or the cursor is none of this node's.
async fn read(records: &Records, after: Option<u64>) -> Result<Chapter, EngineError> {
    let chapter = records.events(after).await;
    let chapter = chapter.map_err(|error| error.publish("reading the events"))?;
    match after {
        Some(after) if after > chapter.newest || after + 1 < chapter.oldest => {
            Err(error::events_missed(after, chapter.oldest))
        }
        _ => Ok(chapter),
    }
}

/// Events as they happen.
#[derive(Debug)]
pub struct EventFollower {
    records: Records,
    live: broadcast::Receiver<Arc<Event>>,
    closing: CancellationToken,
    filter: Filter,
    cursor: u64,
    /// Read and not given yet.
    ahead: VecDeque<Event>,
    /// Everything before what comes live has been read.
    is_live: bool,
}

/// Begins to follow: after the cursor of the query, or from now on.
pub(crate) async fn follow(
    node: &Node,
    query: &ListEvents,
    prefix: Option<&IdPrefix>,
) -> Result<EventFollower, EngineError> {
    node.check_open()?;
    let filter = Filter::of(query, prefix)?;
    if query.limit.is_some() {
        return Err(error::invalid("limit", "a stream of events has no limit; leave it out"));
    }
    follow_from(node, filter, query.after).await
}

/// The cursor of the last event there was.
pub(crate) async fn newest(node: &Node) -> Result<u64, EngineError> {
    Ok(read(&node.records, None).await?.newest)
}

/// Follows what a filter takes, after a cursor or from now on.
pub(crate) async fn follow_from(
    node: &Node,
    filter: Filter,
    after: Option<u64>,
) -> Result<EventFollower, EngineError> {
    // Before the first look: what happens in between comes twice, and is told by its cursor.
    let live = node.records.follow();
    let chapter = read(&node.records, after).await?;
    let cursor = after.unwrap_or(chapter.newest);
    Ok(EventFollower {
        records: node.records.clone(),
        live,
        closing: node.closing.clone(),
        filter,
        cursor,
        ahead: VecDeque::new(),
        is_live: cursor == chapter.newest,
    })
}

impl EventFollower {
    /// Where it is: whoever follows from here on misses nothing.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The next event. None: the node is closing.
    ///
    /// # Cancel safety
    /// Who gives up waiting and asks again gets the same.
    ///
    /// # Errors
    /// `EVENTS_MISSED` when it fell so far behind that some are gone; nothing comes after an error.
    pub async fn next(&mut self) -> Option<Result<Event, EngineError>> {
        loop {
            while let Some(event) = self.ahead.pop_front() {
                self.cursor = event.cursor;
                if let Some(event) = self.filter.take(event) {
                    return Some(Ok(event));
                }
            }
            if self.closing.is_cancelled() {
                return None;
            }
            if !self.is_live {
                match read(&self.records, Some(self.cursor)).await {
                    Ok(chapter) => {
                        self.is_live = !chapter.has_more;
                        self.ahead.extend(chapter.events);
                    }
                    Err(error) => return Some(Err(error)),
                }
                continue;
            }
            let received = tokio::select! {
                () = self.closing.cancelled() => return None,
                received = self.live.recv() => received,
            };
            match received {
                Ok(event) if event.cursor > self.cursor => {
                    self.ahead.push_back(Arc::unwrap_or_clone(event));
                }
                // It was read before it came live.
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => self.is_live = false,
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
