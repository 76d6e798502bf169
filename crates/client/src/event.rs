//! Events: what happened in the lives of the sandboxes, and what happens.

use api::{
    event::{Event, EventList, ListEvents},
    id::SandboxId,
};
use reqwest::{Method, header::ACCEPT};

use crate::{
    Client, ClientError, EventStream,
    call::ANSWER_LIMIT,
    encode::Query,
    stream::{LAST_EVENT, WayBack},
};

/// Events as they happen. It has no end of its own, and goes on where it was when its connection
/// breaks.
pub type LifeStream = EventStream<Event>;

impl Client {
    /// A page of events, oldest first.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `EVENTS_MISSED` when what follows the cursor is not kept any more.
    pub async fn events(&self, query: &ListEvents) -> Result<EventList, ClientError> {
        let call = self.request(Method::GET, &path(query));
        self.send_json("list events", ANSWER_LIMIT, call).await
    }

    /// Follows events: after `after` of the query, or from now on. No event is missed from then on,
    /// also when the server is replaced meanwhile.
    ///
    /// # Errors
    /// As [`Client::events`], also from the stream.
    pub async fn follow_events(&self, query: &ListEvents) -> Result<LifeStream, ClientError> {
        let (attempt, url, after) = ("follow events", path(query), query.after);
        let way_back: WayBack = Box::new(move |client, after| {
            let call = client.request(Method::GET, &url).header(ACCEPT, "text/event-stream");
            match after {
                Some(cursor) => call.header(LAST_EVENT, cursor),
                None => call,
            }
        });
        let response = self.send(attempt, ANSWER_LIMIT, way_back(self, after)).await?;
        Ok(EventStream::resumable(self.clone(), attempt, response, |_| false, (way_back, after)))
    }
}

fn path(query: &ListEvents) -> String {
    let ListEvents { after, sandbox, label, kind, limit } = query;
    let query = Query::default()
        .optional("after", after.map(|after| after.to_string()).as_deref())
        .optional("sandbox", sandbox.as_ref().map(SandboxId::as_str))
        .optional("label", label.as_deref())
        .optional("kind", kind.as_deref())
        .optional("limit", limit.map(|limit| limit.to_string()).as_deref());
    format!("/v1/events{}", query.as_str())
}
