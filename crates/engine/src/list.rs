//! Pages of sandboxes. Pure.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use api::{
    id::SandboxId,
    limit::PAGE_ENTRIES,
    sandbox::{ListSandboxes, SandboxList},
};

use crate::{EngineError, error, sandbox::Sandbox};

/// A checked query.
#[derive(Debug)]
pub(crate) struct Page {
    /// A name, and the value it must have; any value will do without one.
    label: Option<(String, Option<String>)>,
    after: Option<SandboxId>,
    limit: usize,
}

impl Page {
    /// Checks a query.
    ///
    /// # Errors
    /// `VALIDATION_FAILED` naming the field.
    pub(crate) fn of(query: &ListSandboxes) -> Result<Self, EngineError> {
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
        let label = query.label.as_deref().map(|text| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text.to_owned(), None),
        });
        if label.as_ref().is_some_and(|(name, _)| name.is_empty()) {
            return Err(error::invalid("label", "a label filter is `name` or `name=value`"));
        }
        Ok(Self { label, after, limit })
    }

    /// Takes the page from `all`.
    pub(crate) fn take(&self, all: &BTreeMap<SandboxId, Arc<Sandbox>>) -> SandboxList {
        let start = self.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut matching = all
            .range::<SandboxId, _>((start, Bound::Unbounded))
            .map(|(_, sandbox)| sandbox)
            .filter(|sandbox| self.matches(&sandbox.settings.labels))
            .filter_map(|sandbox| sandbox.describe(None));
        let sandboxes: Vec<_> = matching.by_ref().take(self.limit).collect();
        let next_cursor =
            matching.next().and_then(|_| sandboxes.last()).map(|last| last.id.to_string());
        SandboxList { sandboxes, next_cursor }
    }

    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.label.as_ref().is_none_or(|(name, wanted)| {
            labels.get(name).is_some_and(|value| wanted.as_ref().is_none_or(|it| it == value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{sandbox::tests::sandbox, state::State};

    fn three() -> BTreeMap<SandboxId, Arc<Sandbox>> {
        [("a", "x"), ("b", "y"), ("c", "x")]
            .map(|(id, label)| {
                let mut one = sandbox(id, State::Stopped);
                one.settings.labels.insert("k".to_owned(), label.to_owned());
                (one.id.clone(), Arc::new(one))
            })
            .into()
    }

    fn page(label: Option<&str>, cursor: Option<&str>, limit: Option<usize>) -> ListSandboxes {
        let [label, cursor] = [label, cursor].map(|text| text.map(str::to_owned));
        ListSandboxes { label, cursor, limit }
    }

    fn ids(query: &ListSandboxes) -> (Vec<String>, Option<String>) {
        let list = Page::of(query).unwrap().take(&three());
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
    fn bad_queries_name_their_field() {
        for (query, field) in [
            (page(None, None, Some(0)), "limit"),
            (page(None, None, Some(PAGE_ENTRIES + 1)), "limit"),
            (page(None, Some("../x"), None), "cursor"),
            (page(Some("=x"), None, None), "label"),
        ] {
            assert_eq!(Page::of(&query).unwrap_err().details["field"], field);
        }
    }

    #[test]
    fn a_sandbox_being_destroyed_is_not_listed() {
        let all = three();
        all.values().next().unwrap().set(State::Destroying);
        let list = Page::of(&page(None, None, None)).unwrap().take(&all);
        assert_eq!(list.sandboxes.len(), 2);
    }
}
