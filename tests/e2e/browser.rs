//! Previews as people meet them: real servers, shown in a real browser.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use reqwest::Method;
use serde_json::{Value, json};
use testkit::{Browser, Preview, Server};

use crate::server;

/// What `scripts/servers` has installed.
fn servers() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_sandbar")).ancestors().find_map(|dir| {
        let servers = dir.join("servers");
        servers.join("installed").exists().then_some(servers)
    });
    target.expect("target/servers is not there: run `make servers`")
}

/// Puts what is in `from` into the directory `to` of sandbox `s`.
async fn upload(server: &Server, from: &Path, to: &str) {
    let packed = Command::new("tar").arg("-C").arg(from).args(["-cf", "-", "."]).output();
    let packed = packed.expect("tar runs");
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    let request = server
        .request(Method::PUT, &format!("/v1/sandboxes/s/archive?path={to}"))
        .header("content-type", "application/x-tar")
        .body(packed.stdout);
    let answer = request.send().await.expect("a response comes");
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
}

/// Writes a file of sandbox `s`.
async fn write(server: &Server, path: &str, content: &str) {
    let written = server.put(&format!("/v1/sandboxes/s/files/{path}"), content.to_owned()).await;
    assert!(written.status < 300, "{}", written.text);
}

/// Starts a server in sandbox `s`, waits until it answers on `port`, and exposes that.
async fn serve<'a>(server: &'a Server, command: &str, port: u16) -> Preview<'a> {
    let process = json!({"command": command, "id": format!("p{port}")});
    let started = server.post("/v1/sandboxes/s/processes", &process).await;
    assert_eq!(started.status, 201, "{}", started.text);
    let wait = json!({"until": {"type": "http", "port": port}, "timeoutMs": 120_000});
    let ready = server.post(&format!("/v1/sandboxes/s/processes/p{port}/wait"), &wait).await;
    let logs = server.get(&format!("/v1/sandboxes/s/processes/p{port}/logs")).await;
    assert_eq!(ready.status, 200, "{command}: {}\n{}", ready.text, logs.text);
    Preview::of_port(server, "s", port).await
}

#[tokio::test]
async fn a_vite_app_that_is_edited_inside_changes_in_the_page_without_a_reload() {
    let server = server();
    upload(&server, &servers().join("vite"), "/workspace/app").await;
    // Its first script notes when Vite has said that it will tell of changes: of those before, it does not.
    let html = "<!doctype html><h1 id=shown></h1><script>
        const Plain = WebSocket;
        window.WebSocket = class extends Plain {
            constructor(...how) {
                super(...how);
                this.addEventListener('message', event => {
                    if (JSON.parse(event.data).type === 'connected') window.isTold = true;
                });
            }
        };
        </script><script type=module src=/main.js></script>";
    write(&server, "workspace/app/index.html", html).await;
    let main = "import { text } from './text.js';
        const show = text => document.getElementById('shown').textContent = text;
        show(text);
        import.meta.hot.accept('./text.js', module => show(module.text));";
    write(&server, "workspace/app/main.js", main).await;
    write(&server, "workspace/app/text.js", "export const text = 'before';").await;
    let vite =
        "cd /workspace/app && exec node node_modules/vite/bin/vite.js --port 5173 --strictPort";
    let preview = serve(&server, vite, 5173).await;

    let mut browser = Browser::start().await;
    let page = browser.open(&preview.url()).await;
    browser.until(&page, "document.getElementById('shown').textContent === 'before'").await;
    browser.until(&page, "window.isTold === true").await;
    browser.evaluate(&page, "window.notReloaded = true").await;
    write(&server, "workspace/app/text.js", "export const text = 'after';").await;
    browser.until(&page, "document.getElementById('shown').textContent === 'after'").await;
    assert_eq!(browser.evaluate(&page, "window.notReloaded").await, json!(true));
}

#[tokio::test]
async fn a_next_app_that_is_edited_inside_changes_in_the_page_without_a_reload() {
    let server = server();
    upload(&server, &servers().join("next"), "/workspace/app").await;
    let page = "import { useState } from 'react';
import { text } from '../text';
export default function Page() {
    const [presses, press] = useState(0);
    return <button id='shown' onClick={() => press(presses + 1)}>{text} {presses}</button>;
}";
    write(&server, "workspace/app/pages/index.js", page).await;
    let answer = "export default (request, response) => response.json(request.headers)";
    write(&server, "workspace/app/pages/api/headers.js", answer).await;
    write(&server, "workspace/app/text.js", "export const text = 'before';").await;
    let next = "cd /workspace/app && exec node node_modules/next/dist/bin/next dev --port 3001";
    let preview = serve(&server, next, 3001).await;
    let seen: Value = preview.get("/api/headers").await.json().await.expect("it is JSON");
    assert_eq!(seen["x-forwarded-host"], preview.host.as_str());

    let mut browser = Browser::start().await;
    let page = browser.open(&preview.url()).await;
    let shows = |text: &str| format!("document.getElementById('shown').textContent === '{text}'");
    // It counts only once the page's own program runs.
    let pressed =
        "document.getElementById('shown').click() || /[1-9]/.test(document.body.innerText)";
    browser.until(&page, pressed).await;
    let presses = "document.getElementById('shown').textContent.split(' ')[1]";
    // What was pressed last may be shown a moment later.
    browser.evaluate(&page, "new Promise(requestAnimationFrame)").await;
    let presses = browser.evaluate(&page, presses).await;
    let presses = presses.as_str().expect("it is text");
    write(&server, "workspace/app/text.js", "export const text = 'after';").await;
    // The component is another, and its state the same.
    browser.until(&page, &shows(&format!("after {presses}"))).await;
}

/// The laboratory as its users drive it: a notebook, a cell, and what its kernel says over a
/// WebSocket.
#[tokio::test]
async fn a_notebook_runs_in_jupyter() {
    let server = server();
    upload(&server, &servers().join("jupyter"), "/opt/site-packages").await;
    // The one option that is for the test: its page gives its commands to scripts.
    let jupyter = "cd /workspace && export PYTHONPATH=/opt/site-packages \
                   JUPYTERLAB_DIR=/opt/site-packages/share/jupyter/lab && \
                   exec python3 -m jupyterlab --no-browser --allow-root --port 8888 \
                   --IdentityProvider.token=secret --LabApp.expose_app_in_browser=True";
    let preview = serve(&server, jupyter, 8888).await;
    assert_eq!(preview.get("/api/kernels").await.status(), 403, "who is nobody has no kernel");

    let mut browser = Browser::start().await;
    let page = browser.open(&format!("{}lab?token=secret", preview.url())).await;
    browser.until(&page, "!!window.jupyterapp && !!document.querySelector('.jp-Launcher')").await;
    let run = "(async () => {
        const { commands, restored } = window.jupyterapp;
        await restored;
        const panel = await commands.execute('notebook:create-new', { kernelName: 'python3' });
        await panel.context.sessionContext.ready;
        panel.content.activeCell.model.sharedModel.setSource('print(6 * 7)');
        await commands.execute('notebook:run-cell');
        return true; })()";
    assert_eq!(browser.evaluate(&page, run).await, json!(true));
    let output = "[...document.querySelectorAll('.jp-OutputArea-output')].some(
        output => output.innerText.trim() === '42')";
    browser.until(&page, output).await;
}

#[tokio::test]
async fn a_page_chats_listens_uploads_and_keeps_to_itself() {
    let server = server();
    let one = Preview::of_app(&server, "s").await;
    let two = Preview::of_app(&server, "t").await;
    let mut browser = Browser::start().await;
    let page = browser.open(&format!("{}page", one.url())).await;
    let friend = browser.open(&format!("{}page", one.url())).await;
    let stranger = browser.open(&format!("{}page", two.url())).await;

    // A chat of two.
    let join = "window.heard = []; new Promise((resolve, reject) => {
        window.chat = new WebSocket('ws://' + location.host + '/chat');
        chat.onmessage = event => heard.push(event.data);
        chat.onopen = () => resolve(true); chat.onerror = reject; })";
    assert_eq!(browser.evaluate(&page, join).await, json!(true));
    assert_eq!(browser.evaluate(&friend, join).await, json!(true));
    browser.evaluate(&page, "chat.send('hello')").await;
    browser.until(&friend, "heard.includes('hello')").await;
    browser.evaluate(&friend, "chat.send('hi')").await;
    browser.until(&page, "heard.includes('hello') && heard.includes('hi')").await;

    // Events, as they are sent.
    let listen = "window.events = []; window.source = new EventSource('/events');
        source.onmessage = event => events.push(event.data); true";
    browser.evaluate(&page, listen).await;
    browser.until(&page, "events.join() === 'first'").await;
    browser.evaluate(&page, "fetch('/release').then(() => true)").await;
    browser.until(&page, "events.join() === 'first,second' || events.length > 2").await;
    browser.evaluate(&page, "source.close()").await;

    // A file.
    let upload =
        "const form = new FormData(); form.append('file', new Blob([new Uint8Array(5e6)]));
        fetch('/length', {method: 'POST', body: form}).then(answer => answer.text()).then(Number)";
    let length = browser.evaluate(&page, upload).await.as_u64().unwrap_or_default();
    assert!((5_000_000..5_001_000).contains(&length), "{length}");

    no_way_to_the_api(&mut browser, &page, &server).await;
    apart(&mut browser, (&page, &stranger), (&one, &two)).await;
}

/// What one sandbox's page leaves in the browser is not another's.
async fn apart(
    browser: &mut Browser,
    (page, stranger): (&testkit::Page, &testkit::Page),
    (one, two): (&Preview<'_>, &Preview<'_>),
) {
    let cookies = "fetch('/answer').then(() => {
        document.cookie = 'own=1; path=/'; document.cookie = 'wide=1; path=/; domain=localhost';
        return document.cookie; })";
    let own = browser.evaluate(page, cookies).await.to_string();
    assert!(own.contains("b=2") && own.contains("own=1"), "{own}");
    let sent = "fetch('/headers').then(answer => answer.text())";
    let seen = browser.evaluate(page, sent).await.to_string();
    assert!(seen.contains("a=1") && seen.contains("own=1"), "{seen}");
    let seen = browser.evaluate(stranger, sent).await.to_string();
    assert!(seen.contains("localhost:8080") && !seen.contains("ookie"), "{seen}");
    // Nor when the one asks the other, which the browser does not show it either.
    let cross = format!(
        "fetch('http://{}/headers', {{credentials: 'include'}}).then(() => 'read', () => 'refused')",
        two.host
    );
    assert_eq!(browser.evaluate(page, &cross).await, json!("refused"));

    // A worker of the one is not the other's; nor does a page become its sibling.
    let worker = "navigator.serviceWorker.register('/worker.js')
        .then(() => navigator.serviceWorker.ready).then(() => true)";
    assert_eq!(browser.evaluate(page, worker).await, json!(true));
    browser.navigate(page, &format!("{}headers", one.url())).await;
    assert_eq!(browser.evaluate(page, "document.body.textContent").await, json!("worker"));
    browser.navigate(stranger, &format!("{}headers", two.url())).await;
    let shown = browser.evaluate(stranger, "document.body.textContent").await.to_string();
    assert!(shown.contains("localhost:8080"), "{shown}");
    let domain =
        "(() => { try { document.domain = 'localhost'; } catch (error) { return 'refused'; }
        return document.domain === 'localhost' ? 'taken' : 'ignored'; })()";
    assert_ne!(browser.evaluate(stranger, domain).await, json!("taken"));
}

/// A page in the visitor's browser reaches the API no better than anybody without a key.
async fn no_way_to_the_api(browser: &mut Browser, page: &testkit::Page, server: &Server) {
    let port = server.url().rsplit_once(':').map(|(_, port)| port.to_owned()).unwrap_or_default();
    let before = server.get("/v1/sandboxes").await.json["sandboxes"].as_array().map(Vec::len);
    for host in ["localhost", "127.0.0.1"] {
        let api = format!("http://{host}:{port}/v1/sandboxes");
        for call in [
            format!("fetch('{api}', {{credentials: 'include'}})"),
            format!("fetch('{api}', {{headers: {{authorization: 'Bearer x'}}}})"),
            format!("fetch('http://{host}:{port}/healthz')"),
        ] {
            let tried = format!("{call}.then(() => 'read', () => 'refused')");
            assert_eq!(browser.evaluate(page, &tried).await, json!("refused"), "{call}");
        }
        let blind = format!(
            "fetch('{api}', {{method: 'POST', mode: 'no-cors', body: '{{}}', credentials: 'include'}})
             .then(answer => answer.type, () => 'refused')"
        );
        let told = browser.evaluate(page, &blind).await;
        assert!(told == json!("opaque") || told == json!("refused"), "{told}");
        let socket = format!(
            "new Promise(resolve => {{
                const socket = new WebSocket('ws://{host}:{port}/v1/sandboxes/s/terminals/t');
                socket.onopen = () => resolve('open'); socket.onerror = () => resolve('refused'); }})"
        );
        assert_eq!(browser.evaluate(page, &socket).await, json!("refused"));
    }
    let after = server.get("/v1/sandboxes").await.json["sandboxes"].as_array().map(Vec::len);
    assert_eq!(after, before);
}

/// A small application in each of them, with a redirect by its own name, and a WebSocket where it
/// has one.
#[tokio::test]
async fn servers_of_all_kinds_work_unmodified() {
    let server = server();
    upload(&server, &servers().join("apps"), "/opt/site-packages").await;
    let flask = "from flask import Flask, redirect, request, url_for
app = Flask(__name__)
@app.get('/')
def root(): return redirect(url_for('page', _external=True))
@app.get('/page')
def page(): return request.headers['X-Forwarded-Host']
";
    write(&server, "workspace/flask_app.py", flask).await;
    let fastapi = "from fastapi import FastAPI, WebSocket
app = FastAPI()
@app.get('/')
def root(): return {'ok': True}
@app.get('/page/')
def page(): return {'page': True}
@app.websocket('/ws')
async def ws(socket: WebSocket):
    await socket.accept()
    await socket.send_text((await socket.receive_text()).upper())
    await socket.close(4000)
";
    write(&server, "workspace/fastapi_app.py", fastapi).await;
    let streamlit = "import streamlit
if streamlit.button('Press'): streamlit.write('it was pressed')
else: streamlit.write('not yet')
";
    write(&server, "workspace/streamlit_app.py", streamlit).await;
    let node = "require('http').createServer((request, response) => response.end(request.url)).listen(3000)";
    write(&server, "workspace/node.js", node).await;

    let python = "cd /workspace && export PYTHONPATH=/opt/site-packages &&";
    let flask = serve(
        &server,
        &format!("{python} exec python3 -m flask --app flask_app run --debug --port 5000"),
        5000,
    )
    .await;
    let redirect = flask.get("/").await;
    assert_eq!(redirect.headers()["location"], format!("{}page", flask.url()).as_str());
    assert_eq!(flask.get("/page").await.text().await.unwrap_or_default(), flask.host);

    let uvicorn = format!("{python} exec python3 -m uvicorn fastapi_app:app --reload --port 8000");
    let fastapi = serve(&server, &uvicorn, 8000).await;
    let slash = fastapi.get("/page").await;
    assert_eq!(slash.headers()["location"], format!("{}page/", fastapi.url()).as_str());
    let page: Value = fastapi.get("/page/").await.json().await.expect("it is JSON");
    assert_eq!(page, json!({"page": true}));

    let node = serve(&server, "exec node /workspace/node.js", 3000).await;
    assert_eq!(node.get("/a%20b?c").await.text().await.unwrap_or_default(), "/a%20b?c");
    let files = serve(&server, "cd /workspace && exec python3 -m http.server 8001", 8001).await;
    assert!(files.get("/").await.text().await.unwrap_or_default().contains("node.js"));

    let mut browser = Browser::start().await;
    let page = browser.open(&format!("{}docs", fastapi.url())).await;
    let chat = "new Promise((resolve, reject) => {
        const socket = new WebSocket('ws://' + location.host + '/ws'); let heard;
        socket.onopen = () => socket.send('hello'); socket.onmessage = event => heard = event.data;
        socket.onclose = event => resolve(heard + event.code); })";
    assert_eq!(browser.evaluate(&page, chat).await, json!("HELLO4000"));

    let run = "exec python3 -m streamlit run streamlit_app.py --server.port 8501 --server.headless true \
               --browser.gatherUsageStats false";
    let streamlit = serve(&server, &format!("{python} {run}"), 8501).await;
    let page = browser.open(&streamlit.url()).await;
    browser.until(&page, "document.body.innerText.includes('not yet')").await;
    let button =
        "[...document.querySelectorAll('button')].find(b => b.innerText.includes('Press'))";
    browser.until(&page, &format!("!!{button}")).await;
    browser.evaluate(&page, &format!("{button}.click()")).await;
    browser.until(&page, "document.body.innerText.includes('it was pressed')").await;
}
