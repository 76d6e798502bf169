//! What is told of faults.

use serde_json::{Value, json};
use testkit::{Server, events, reqwest::Method};

use crate::{crash::kill, server};

async fn told_after(server: &Server, cursor: u64) -> Vec<Value> {
    let answer = server.get(&format!("/v1/events?after={cursor}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let events = answer.json["events"].as_array().expect("a list of events");
    events.iter().map(|event| json!([event["kind"], event["cause"]])).collect()
}

#[tokio::test]
async fn an_agent_that_was_killed_is_told_and_adopting_is_not() {
    let mut server = server();
    server.shell("a", "true").await;
    let mut live = events(server.request(Method::GET, "/v1/events")).await.unwrap();
    kill(server.agent_pid());
    let stopped = live.next().await.unwrap();
    assert_eq!(json!([stopped["kind"], stopped["cause"]]), json!(["stopped", "agentEnded"]));
    server.shell("a", "true").await;
    assert_eq!(live.next().await.unwrap()["kind"], "started");
    let cursor = live.cursor.unwrap();
    drop(live);

    server.kill();
    server.restart();
    assert_eq!(told_after(&server, cursor).await, Vec::<Value>::new());

    server.kill();
    kill(server.agent_pid());
    server.restart();
    assert_eq!(told_after(&server, cursor).await, [json!(["stopped", "recovery"])]);
}
