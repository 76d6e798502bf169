//! Processes: start, list, read, feed, wait for, end.

use std::time::Duration;

use api::{
    exec::{Encoding, ExecEvent},
    id::SandboxId,
    limit::WAIT_TIMEOUT_MS,
    process::{
        KillProcess, KilledProcesses, ListProcesses, Process, ProcessKind, ProcessList,
        ProcessLogs, ProcessReady, ReadLogs, SignalProcess, StartProcess, StdinWritten,
        WaitProcess,
    },
    sandbox::FIRST_USE_HEADER,
};
use http::header::ACCEPT;
use reqwest::{Body, Method};

use crate::{
    Client, ClientError, EventStream,
    call::ANSWER_LIMIT,
    encode::{Query, segment},
    exec::is_exit,
    stream::{LAST_EVENT, WayBack},
};

/// A process's log as it grows; the last event is [`ExecEvent::Exit`]. Dropping it leaves the process
/// alone.
pub type LogStream = EventStream<ExecEvent>;

impl Client {
    /// Starts a process and returns it once its program runs. The sandbox is created when it does
    /// not exist.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `COMMAND_NOT_FOUND`, `PROCESS_EXISTS`, ...
    pub async fn start_process(
        &self,
        id: &SandboxId,
        request: &StartProcess,
    ) -> Result<Process, ClientError> {
        let call = self.request(Method::POST, &path(id, "")).json(request);
        self.send_json("start a process", START_LIMIT, call).await
    }

    /// The processes that run and those that are remembered, oldest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_processes(
        &self,
        id: &SandboxId,
        query: &ListProcesses,
    ) -> Result<Vec<Process>, ClientError> {
        let running = query.running.map(|running| running.to_string());
        let kind = query.kind.map(|kind| match kind {
            ProcessKind::Process => "process",
            ProcessKind::Exec => "exec",
            ProcessKind::Run => "run",
        });
        let text = Query::default().optional("running", running.as_deref()).optional("kind", kind);
        let call = self.request(Method::GET, &path(id, text.as_str()));
        let list: ProcessList = self.send_json("list the processes", ANSWER_LIMIT, call).await?;
        Ok(list.processes)
    }

    /// One process, by its id or its process id inside the sandbox.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `PROCESS_NOT_FOUND`.
    pub async fn process(&self, id: &SandboxId, name: &str) -> Result<Process, ClientError> {
        let call = self.request(Method::GET, &of(id, name, ""));
        self.send_json("look at a process", ANSWER_LIMIT, call).await
    }

    /// Forgets a process that has ended.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `PROCESS_NOT_FOUND`, `RESOURCE_BUSY` when it runs.
    pub async fn delete_process(&self, id: &SandboxId, name: &str) -> Result<(), ClientError> {
        let call = self.request(Method::DELETE, &of(id, name, ""));
        self.send("forget a process", ANSWER_LIMIT, call).await.map(drop)
    }

    /// What a process has written, as far as it is kept. `query.follow` means nothing here.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `PROCESS_NOT_FOUND`, `VALIDATION_FAILED` for a cursor after the end.
    pub async fn process_logs(
        &self,
        id: &SandboxId,
        name: &str,
        query: &ReadLogs,
    ) -> Result<ProcessLogs, ClientError> {
        let text = logs_query(query.cursor, query.encoding);
        let call = self.request(Method::GET, &of(id, name, &format!("/logs{}", text.as_str())));
        self.send_json("read a log", ANSWER_LIMIT, call).await
    }

    /// Follows a process's log to the process's end: from `cursor`, or from the oldest byte that is
    /// kept. When the connection breaks, the stream goes on by itself where it was.
    ///
    /// # Errors
    /// As [`Client::process_logs`], before the first event; later failures come from the stream.
    pub async fn follow_process(
        &self,
        id: &SandboxId,
        name: &str,
        cursor: Option<u64>,
        encoding: Encoding,
    ) -> Result<LogStream, ClientError> {
        let attempt = "follow a log";
        let query = logs_query(None, encoding).flag("follow", true);
        let url = of(id, name, &format!("/logs{}", query.as_str()));
        let way_back: WayBack = Box::new(move |client, after| {
            let call = client.request(Method::GET, &url).header(ACCEPT, "text/event-stream");
            // A sandbox that is made for it has no such process.
            let call = call.header(FIRST_USE_HEADER, "refused");
            match after {
                Some(cursor) => call.header(LAST_EVENT, cursor),
                None => call,
            }
        });
        let response = self.send(attempt, ANSWER_LIMIT, way_back(self, cursor)).await?;
        Ok(EventStream::resumable(self.clone(), attempt, response, is_exit, (way_back, cursor)))
    }

    /// Writes to the stdin of a process that was started with it open, and closes it if asked.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `STDIN_CLOSED`, `PROCESS_ENDED`; `details.writtenBytes` says how
    /// much was written before.
    ///
    /// # Cancel safety
    /// What was written stays written.
    pub async fn write_stdin(
        &self,
        id: &SandboxId,
        name: &str,
        content: impl Into<Body> + Send,
        close: bool,
    ) -> Result<StdinWritten, ClientError> {
        let query = Query::default().flag("close", close);
        let call = self.request(Method::POST, &of(id, name, &format!("/stdin{}", query.as_str())));
        self.send_json("write to a process", WAIT_LIMIT, call.body(content)).await
    }

    /// Sends a signal to every process of a process's tree.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `PROCESS_NOT_FOUND`, `PROCESS_ENDED`.
    pub async fn signal_process(
        &self,
        id: &SandboxId,
        name: &str,
        request: SignalProcess,
    ) -> Result<(), ClientError> {
        let call = self.request(Method::POST, &of(id, name, "/signal")).json(&request);
        self.send("signal a process", ANSWER_LIMIT, call).await.map(drop)
    }

    /// Ends a process with its whole tree and returns it when it is dead.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `PROCESS_NOT_FOUND`.
    pub async fn kill_process(
        &self,
        id: &SandboxId,
        name: &str,
        request: KillProcess,
    ) -> Result<Process, ClientError> {
        let call = self.request(Method::POST, &of(id, name, "/kill")).json(&request);
        self.send_json("kill a process", ANSWER_LIMIT, call).await
    }

    /// Ends all processes and returns how many ran.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn kill_processes(
        &self,
        id: &SandboxId,
        request: KillProcess,
    ) -> Result<usize, ClientError> {
        let call = self.request(Method::POST, &path(id, ":kill")).json(&request);
        let killed: KilledProcesses =
            self.send_json("kill all processes", ANSWER_LIMIT, call).await?;
        Ok(killed.killed)
    }

    /// Waits for a process's end, for a line that it writes, or for a port.
    ///
    /// # Errors
    /// [`ClientError::Api`] with `PROCESS_READY_TIMEOUT`, `PROCESS_EXITED_BEFORE_READY`.
    pub async fn wait_process(
        &self,
        id: &SandboxId,
        name: &str,
        request: &WaitProcess,
    ) -> Result<ProcessReady, ClientError> {
        let call = self.request(Method::POST, &of(id, name, "/wait")).json(request);
        self.send_json("wait for a process", WAIT_LIMIT, call).await
    }
}

/// Time for an answer to a request that may wait for another: for a session that is busy, ...
const START_LIMIT: Duration = WAIT_LIMIT;

/// Time for an answer that comes when a process does something: what the server waits at most, and
/// some for the way.
pub(crate) const WAIT_LIMIT: Duration =
    Duration::from_millis(WAIT_TIMEOUT_MS).saturating_add(ANSWER_LIMIT);

fn path(id: &SandboxId, rest: &str) -> String {
    format!("/v1/sandboxes/{id}/processes{rest}")
}

fn of(id: &SandboxId, name: &str, rest: &str) -> String {
    path(id, &format!("/{}{rest}", segment(name)))
}

fn logs_query(cursor: Option<u64>, encoding: Encoding) -> Query {
    let cursor = cursor.map(|cursor| cursor.to_string());
    let encoding = match encoding {
        Encoding::Utf8 => "utf8",
        Encoding::Base64 => "base64",
    };
    Query::default().optional("cursor", cursor.as_deref()).text("encoding", encoding)
}
