//! Five times as many requests as there are places: the rest is refused in words, what was accepted is
//! served, and afterwards everything is as before.

use futures_util::future::join_all;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use testkit::Server;

/// Requests at once with the key of the callers.
const PLACES: usize = 8;

/// Callers who never wait for each other.
const CALLERS: usize = 5 * PLACES;

/// Requests of each, one after the other.
const EACH: usize = 20;

/// Rounds until its places have to be free again.
const ROUNDS: usize = 1000;

/// How many requests were accepted and how many refused.
#[derive(Debug, Default)]
struct Tally {
    accepted: usize,
    refused: usize,
}

impl Tally {
    /// Counts an answer: nothing but a success or a typed refusal may come. True for a success.
    async fn count(&mut self, response: Response) -> bool {
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").cloned();
        let text = response.text().await.expect("the answer is whole");
        if status < 300 {
            let body: Value = serde_json::from_str(&text).unwrap_or_default();
            // A command that was accepted has run, and well.
            assert!(body["exitCode"].is_null() || body["exitCode"] == 0, "{text}");
            self.accepted += 1;
            return true;
        }
        let body: Value = serde_json::from_str(&text).expect("a refusal is JSON");
        let code = body["error"]["code"].as_str().unwrap_or_default();
        let is_typed = [(429, "TOO_MANY_REQUESTS"), (503, "CAPACITY_EXCEEDED")];
        assert!(is_typed.contains(&(status, code)), "{status} {text}");
        assert_eq!(retry_after.expect("it says when to try again"), "1");
        self.refused += 1;
        false
    }
}

/// A server, and a key that has [`PLACES`] on it.
async fn small() -> (Server, String) {
    let places = PLACES.to_string();
    let settings = [("MAX_REQUESTS_PER_KEY", places.as_str())];
    let server = Server::start_with(env!("CARGO_BIN_EXE_sandbar"), &settings);
    let key = server.new_key("ci", Some("ci-")).await;
    assert_eq!(server.post("/v1/sandboxes", &json!({"id": "bystander"})).await.status, 201);
    (server, key)
}

/// As long as all places are taken, callers who come are refused, all of them.
async fn none_is_accepted<C: Future<Output = bool>>(
    server: &Server,
    key: &str,
    call: impl Fn(usize) -> C,
) {
    let wait = json!({"command": "while [ ! -e go ]; do sleep 0.01; done"});
    let path = "/v1/sandboxes/ci-held/exec";
    assert_eq!(server.post("/v1/sandboxes", &json!({"id": "ci-held"})).await.status, 201);
    let held = (0..PLACES).map(|_| {
        let request = server.request_with(key, Method::POST, path).json(&wait);
        async { testkit::events(request).await.expect("it begins") }
    });
    let held = join_all(held).await;

    let accepted = join_all((0..CALLERS).map(call)).await;

    assert!(accepted.iter().all(|was_accepted| !was_accepted), "{accepted:?}");
    server.shell("ci-held", "touch go").await;
    for mut held in held {
        while held.next().await.is_some() {}
    }
    assert_eq!(server.delete("/v1/sandboxes/ci-held").await.status, 204);
}

/// As many at once as there are places are all accepted. A place is free when the server has seen that
/// its answer was sent, which may be after its caller has it.
async fn has_recovered(server: &Server, key: &str) {
    let get = || server.request_with(key, Method::GET, "/v1/sandboxes?limit=1").send();
    let mut accepted = 0;
    for _round in 0..ROUNDS {
        let answers = join_all((0..PLACES).map(|_| get())).await;
        let statuses = answers.into_iter().map(|answer| answer.expect("an answer comes").status());
        accepted = statuses.filter(|status| *status == 200).count();
        if accepted == PLACES {
            return;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(accepted, PLACES, "places that were taken once are not given back");
}

#[tokio::test]
async fn five_times_too_many_commands_are_refused_and_those_accepted_are_carried_out() {
    let (server, key) = small().await;
    assert_eq!(server.post("/v1/sandboxes", &json!({"id": "ci-1"})).await.status, 201);
    let exec = |id: &'static str, key: String| {
        let body = json!({"command": ["true"]});
        server.request_with(&key, Method::POST, &format!("/v1/sandboxes/{id}/exec")).json(&body)
    };
    let once = |_| async {
        let answer = exec("ci-1", key.clone()).send().await.expect("an answer comes");
        Tally::default().count(answer).await
    };
    none_is_accepted(&server, &key, once).await;
    let callers = (0..CALLERS).map(|_| async {
        let mut tally = Tally::default();
        for _call in 0..EACH {
            let answer = exec("ci-1", key.clone()).send().await.expect("an answer comes");
            tally.count(answer).await;
        }
        tally
    });
    let bystander = async {
        let mut tally = Tally::default();
        for _call in 0..EACH {
            let answer = exec("bystander", server.key()).send().await.expect("an answer comes");
            tally.count(answer).await;
        }
        tally
    };

    let (tallies, bystander) = tokio::join!(join_all(callers), bystander);

    let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
    let (accepted, refused) = (sum(|one| one.accepted), sum(|one| one.refused));
    assert_eq!(accepted + refused, CALLERS * EACH);
    assert!(accepted >= PLACES, "{accepted} {refused}");
    assert_eq!((bystander.accepted, bystander.refused), (EACH, 0));
    has_recovered(&server, &key).await;
}

/// Creates a sandbox. What exists can be used and destroyed, once there is a place for it.
async fn create_for_a_moment(server: &Server, key: &str, id: &str, tally: &mut Tally) {
    let create = server.request_with(key, Method::POST, "/v1/sandboxes").json(&json!({"id": id}));
    if !tally.count(create.send().await.expect("an answer comes")).await {
        return;
    }
    assert_eq!(server.shell(id, "hostname").await, format!("{id}\n"));
    assert_eq!(server.delete(&format!("/v1/sandboxes/{id}")).await.status, 204);
}

#[tokio::test]
async fn five_times_too_many_creations_are_refused_and_nothing_of_them_is_left() {
    let (server, key) = small().await;
    let once = |caller: usize| {
        let create = server.request_with(&key, Method::POST, "/v1/sandboxes");
        let create = create.json(&json!({"id": format!("ci-{caller}")}));
        async { Tally::default().count(create.send().await.expect("an answer comes")).await }
    };
    none_is_accepted(&server, &key, once).await;
    let callers = (0..CALLERS).map(|caller| {
        let (server, key) = (&server, &key);
        async move {
            let mut tally = Tally::default();
            for _call in 0..EACH / 4 {
                create_for_a_moment(server, key, &format!("ci-{caller}"), &mut tally).await;
            }
            tally
        }
    });

    let tallies = join_all(callers).await;

    let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
    let (accepted, refused) = (sum(|one| one.accepted), sum(|one| one.refused));
    assert!(accepted >= PLACES, "{accepted} {refused}");
    has_recovered(&server, &key).await;
    let left = server.get("/v1/sandboxes").await.json["sandboxes"].clone();
    let left: Vec<&str> =
        left.as_array().unwrap().iter().filter_map(|s| s["id"].as_str()).collect();
    assert_eq!(left, ["bystander"]);
}
