//! Pages of sandboxes. Pure.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use api::{
    id::{IdPrefix, SandboxId},
    limit::PAGE_ENTRIES,
    sandbox::{ListSandboxes, SandboxList},
};

use crate::{EngineError, error, sandbox::Sandbox};

/// Bytes of variables and labels in one page: what one ends after. With the last sandbox's it has at
/// most so much once more, and half as much again where JSON needs more room than the text.
const LIST_BYTES: usize = 1024 * 1024;

/// A checked query.
#[derive(Debug)]
pub(crate) struct Page {
    label: Option<LabelFilter>,
    after: Option<SandboxId>,
    /// What ids begin with; any id without one.
    prefix: Option<IdPrefix>,
    limit: usize,
}

impl Page {
    /// Checks a query by somebody who sees only sandboxes with this prefix.
    ///
    /// # Errors
    /// `VALIDATION_FAILED` naming the field.
    pub(crate) fn of(
        query: &ListSandboxes,
        prefix: Option<&IdPrefix>,
    ) -> Result<Self, EngineError> {
        let limit = query.limit.unwrap_or(PAGE_ENTRIES);
        if !(1..=PAGE_ENTRIES).contains(&limit) {
            let message = format!("limit is {limit}; it can be 1 to {PAGE_ENTRIES}");
            return Err(error::invalid("limit", &message));
        }
        let after = match query.cursor.as_deref().map(str::parse) {
            Some(Err(_)) => {
                let message = "the cursor was not made by this server; leave it out to start over";
                return Err(error::invalid("cursor", message));
            }
            Some(Ok(id)) => Some(id),
            None => None,
        };
        let label = query.label.as_deref().map(LabelFilter::of).transpose()?;
        Ok(Self { label, after, prefix: prefix.cloned(), limit })
    }

    /// Takes the page from `all`.
    pub(crate) fn take(&self, all: &BTreeMap<SandboxId, Arc<Sandbox>>) -> SandboxList {
        // A prefix is before every id that begins with it, and these are next to each other.
        let prefix = self.prefix.as_ref().map_or("", IdPrefix::as_str);
        let start = match &self.after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        let mut matching = all
            .range::<str, _>((start, Bound::Unbounded))
            .map(|(_, sandbox)| sandbox)
            .take_while(|sandbox| sandbox.id.as_str().starts_with(prefix))
            .filter(|sandbox| {
                self.label.as_ref().is_none_or(|it| it.matches(&sandbox.settings().labels))
            })
            .filter_map(|sandbox| sandbox.describe(None));
        let mut sandboxes = Vec::new();
        let mut room = LIST_BYTES;
        while sandboxes.len() < self.limit && room > 0 {
            let Some(sandbox) = matching.next() else { break };
            let texts = sandbox.env.iter().chain(&sandbox.labels);
            let bytes: usize = texts.map(|(name, value)| name.len() + value.len()).sum();
            room = room.saturating_sub(bytes);
            sandboxes.push(sandbox);
        }
        let next_cursor =
            matching.next().and_then(|_| sandboxes.last()).map(|last| last.id.to_string());
        SandboxList { sandboxes, next_cursor }
    }
}

/// What labels must have.
#[derive(Debug, Clone)]
pub(crate) struct LabelFilter {
    name: String,
    /// Any will do without one.
    value: Option<String>,
}

impl LabelFilter {
    /// Reads `name` or `name=value`.
    ///
    /// # Errors
    /// `VALIDATION_FAILED`.
    pub(crate) fn of(text: &str) -> Result<Self, EngineError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name.is_empty() {
            return Err(error::invalid("label", "a label filter is `name` or `name=value`"));
        }
        Ok(Self { name: name.to_owned(), value })
    }

    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let found = labels.get(&self.name);
        found.is_some_and(|value| self.value.as_ref().is_none_or(|wanted| wanted == value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{sandbox::tests::sandbox, state::State};

    fn three() -> BTreeMap<SandboxId, Arc<Sandbox>> {
        [("a", "x"), ("b", "y"), ("c", "x")]
            .map(|(id, label)| {
                let one = sandbox(id, State::Stopped);
                let mut settings = (*one.settings()).clone();
                settings.labels.insert("k".to_owned(), label.to_owned());
                one.set_settings(settings);
                (one.id.clone(), Arc::new(one))
            })
            .into()
    }

    fn page(label: Option<&str>, cursor: Option<&str>, limit: Option<usize>) -> ListSandboxes {
        let [label, cursor] = [label, cursor].map(|text| text.map(str::to_owned));
        ListSandboxes { label, cursor, limit }
    }

    fn ids(query: &ListSandboxes) -> (Vec<String>, Option<String>) {
        let list = Page::of(query, None).unwrap().take(&three());
        (list.sandboxes.iter().map(|one| one.id.to_string()).collect(), list.next_cursor)
    }

    #[test]
    fn pages_join_without_gap_or_repetition() {
        assert_eq!(
            ids(&page(None, None, Some(2))),
            (vec!["a".into(), "b".into()], Some("b".into()))
        );
        assert_eq!(ids(&page(None, Some("b"), Some(2))), (vec!["c".into()], None));
        assert_eq!(ids(&page(None, Some("c"), Some(2))), (vec![], None));
        // A full last page says that it is the last.
        assert_eq!(ids(&page(None, None, Some(3))).1, None);
    }

    #[test]
    fn a_page_of_much_text_ends_before_its_limit() {
        let all = three();
        for one in all.values() {
            let mut settings = (*one.settings()).clone();
            settings.env.insert("A".to_owned(), "x".repeat(LIST_BYTES / 2));
            one.set_settings(settings);
        }
        let list = Page::of(&page(None, None, None), None).unwrap().take(&all);
        assert_eq!((list.sandboxes.len(), list.next_cursor.as_deref()), (2, Some("b")));
        let list = Page::of(&page(None, Some("b"), None), None).unwrap().take(&all);
        assert_eq!((list.sandboxes.len(), list.next_cursor), (1, None));
    }

    #[test]
    fn a_cursor_outlives_its_sandbox() {
        assert_eq!(ids(&page(None, Some("aa"), None)).0, ["b", "c"]);
    }

    #[test]
    fn labels_filter_by_name_and_value() {
        assert_eq!(ids(&page(Some("k"), None, None)).0, ["a", "b", "c"]);
        assert_eq!(ids(&page(Some("k=x"), None, None)).0, ["a", "c"]);
        assert_eq!(ids(&page(Some("k=x"), None, Some(1))).1, Some("a".into()));
        assert_eq!(ids(&page(Some("k="), None, None)).0, [""; 0]);
        assert_eq!(ids(&page(Some("other"), None, None)).0, [""; 0]);
    }

    #[test]
    fn a_prefix_hides_everything_else_whatever_is_asked_for() {
        let all: BTreeMap<_, _> = ["a-1", "b", "b-", "b-1", "b-2", "b-3", "b.1", "c-1"]
            .iter()
            .filter(|id| id.parse::<SandboxId>().is_ok())
            .map(|id| (id.parse().unwrap(), Arc::new(sandbox(id, State::Stopped))))
            .collect();
        let prefix = "b-".parse().unwrap();
        let ids = |query: &ListSandboxes| {
            let list = Page::of(query, Some(&prefix)).unwrap().take(&all);
            (
                list.sandboxes.iter().map(|one| one.id.to_string()).collect::<Vec<_>>(),
                list.next_cursor,
            )
        };
        let rest = |ids: &[&str]| (ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>(), None);
        assert_eq!(ids(&page(None, None, None)), rest(&["b-1", "b-2", "b-3"]));
        for (cursor, expected) in [
            ("a", &["b-1", "b-2", "b-3"][..]),
            ("b", &["b-1", "b-2", "b-3"]),
            ("b-1", &["b-2", "b-3"]),
            ("b-3", &[]),
            ("c", &[]),
        ] {
            assert_eq!(ids(&page(None, Some(cursor), None)), rest(expected), "{cursor}");
        }
        // A full last page says that it is the last, though others follow it.
        assert_eq!(ids(&page(None, Some("b-1"), Some(2))), rest(&["b-2", "b-3"]));
        assert_eq!(ids(&page(None, None, Some(2))).1, Some("b-2".to_owned()));
    }

    #[test]
    fn bad_queries_name_their_field() {
        for (query, field) in [
            (page(None, None, Some(0)), "limit"),
            (page(None, None, Some(PAGE_ENTRIES + 1)), "limit"),
            (page(None, Some("../x"), None), "cursor"),
            (page(Some("=x"), None, None), "label"),
        ] {
            assert_eq!(Page::of(&query, None).unwrap_err().details["field"], field);
        }
    }

    #[test]
    fn a_sandbox_being_destroyed_is_not_listed() {
        let all = three();
        all.values().next().unwrap().set(State::Destroying);
        let list = Page::of(&page(None, None, None), None).unwrap().take(&all);
        assert_eq!(list.sandboxes.len(), 2);
    }
}
