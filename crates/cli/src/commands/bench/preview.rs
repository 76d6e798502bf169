//! The measures of previews: a program in a sandbox that answers as fast as it can, asked through its
//! preview and, by the same code, directly inside.
//!
//! The program and the one who asks are this binary itself, which is static and so runs in any image.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use api::{
    exec::{Command, ExecRequest},
    file::WriteFile,
    id::SandboxId,
    port::{ExposePort, WaitPort},
    process::{ProcessStdin, StartProcess},
};
use clap::Args;
use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{
    flow::status_bytes,
    measure::Bench,
    report::{Flow, Rate, Sockets},
    samples::Samples,
};

/// Where the program listens.
const PORT: u16 = 8080;

/// Bytes of the small answer, and of the large one.
const SMALL_BYTES: usize = 1024;
const LARGE_BYTES: usize = 1 << 30;

/// Bytes written and read at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// Connections that ask at once for the rate.
const CONNECTIONS: usize = 32;

/// Requests for every run of the other measures: each takes a tenth of a millisecond.
const REQUESTS_PER_RUN: usize = 200;

/// Idle `WebSockets` at most.
const SOCKETS: usize = 5000;

/// Where this binary is put in the sandbox.
const PROGRAM: &str = "/tmp/sandbar-bench";

/// Arguments of the hidden command that is run inside.
#[derive(Debug, Args)]
pub(crate) struct Inside {
    /// Ask whoever answers, on so many connections, so often; else answer.
    #[arg(long, num_args = 2)]
    ask: Vec<usize>,
}

/// Answers for ever, or asks and prints how long each request took.
pub(crate) async fn inside(arguments: Inside) -> anyhow::Result<ExitCode> {
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT);
    let [connections, requests] = *arguments.ask.as_slice() else {
        return answer_all(address).await.map(|()| ExitCode::SUCCESS);
    };
    let begin = Instant::now();
    let times = ask_all(Door { address, host: "localhost" }, connections, requests).await?;
    let took = begin.elapsed();
    let micros: Vec<u128> = times.iter().map(Duration::as_micros).collect();
    crate::output::print_json(&(took.as_micros(), micros))?;
    Ok(ExitCode::SUCCESS)
}

async fn answer_all(address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        while connections.try_join_next().is_some() {}
        connections.spawn(answer(stream));
    }
}

/// Answers the requests of one connection: `/1g` with the large body, others with the small one, and
/// an upgrade with silence.
async fn answer(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let head = read_head(&mut stream).await?;
        if head.windows(9).any(|word| word.eq_ignore_ascii_case(b"websocket")) {
            let head = "HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.get_mut().write_all(head.as_bytes()).await?;
            return tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop);
        }
        let length = if head.starts_with(b"GET /1g ") { LARGE_BYTES } else { SMALL_BYTES };
        let mut answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        let first = length.min(PIECE_BYTES);
        answer.resize(answer.len() + first, b'x');
        stream.get_mut().write_all(&answer).await?;
        let piece = vec![b'x'; if length > first { PIECE_BYTES } else { 0 }];
        for _ in 0..(length - first) / PIECE_BYTES {
            stream.get_mut().write_all(&piece).await?;
        }
    }
}

/// Whom to ask, and under which name.
#[derive(Debug, Clone, Copy)]
struct Door<'a> {
    address: SocketAddr,
    host: &'a str,
}

/// Asks `requests` times in all on so many connections; the time of each.
async fn ask_all(
    door: Door<'_>,
    connections: usize,
    requests: usize,
) -> anyhow::Result<Vec<Duration>> {
    let each = requests.div_ceil(connections);
    let asked = join_all((0..connections).map(|_| ask(door, each))).await;
    let mut times = Vec::with_capacity(each * connections);
    for one in asked {
        times.extend(one?);
    }
    Ok(times)
}

async fn ask(door: Door<'_>, requests: usize) -> anyhow::Result<Vec<Duration>> {
    let mut stream = BufReader::new(connect(door).await?);
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", door.host);
    let mut times = Vec::with_capacity(requests);
    let mut body = vec![0; SMALL_BYTES];
    for _ in 0..requests {
        let begin = Instant::now();
        stream.get_mut().write_all(request.as_bytes()).await?;
        check(&read_head(&mut stream).await?)?;
        stream.read_exact(&mut body).await?;
        times.push(begin.elapsed());
    }
    Ok(times)
}

async fn connect(door: Door<'_>) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(door.address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(1024);
    while !head.ends_with(b"\r\n\r\n") {
        if tokio::io::AsyncBufReadExt::read_until(stream, b'\n', &mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

fn check(head: &[u8]) -> anyhow::Result<()> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    if line.starts_with(b"HTTP/1.1 200") || line.starts_with(b"HTTP/1.1 101") {
        return Ok(());
    }
    bail!("the answer was {}", String::from_utf8_lossy(line))
}

/// What was measured of previews.
#[derive(Debug)]
pub(super) struct Previews {
    pub(super) latency: [Samples; 2],
    pub(super) rates: [(&'static str, Rate); 2],
    pub(super) download: Flow,
    pub(super) sockets: Option<Sockets>,
}

impl Bench {
    /// Everything about previews.
    pub(super) async fn previews(&self) -> anyhow::Result<Previews> {
        let id = self.id("preview", 0)?;
        self.create(&id).await?;
        self.start_inside(&id).await?;
        let request = ExposePort { port: PORT.into(), ..ExposePort::default() };
        let url = self.client.expose_port(&id, &request).await?.url;
        let host = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix('/'));
        let host = host.context("previews are encrypted, which is not measured")?;
        let server = self.client.url().trim_start_matches("http://").parse();
        let address =
            server.context("previews are measured where the server's address is its URL")?;
        let door = Door { address, host };
        let bar = self.progress("previews", 4);

        let mut direct = Samples::new("directly, 1 KiB");
        let mut through = Samples::new("preview, 1 KiB");
        let alone = self.runs * 10;
        let (_, times) = self.ask_inside(&id, 1, alone).await?;
        times.into_iter().for_each(|time| direct.push(time));
        ask_all(door, 1, alone).await?.into_iter().for_each(|time| through.push(time));
        bar.inc(1);

        let many = self.runs * REQUESTS_PER_RUN;
        let (took, times) = self.ask_inside(&id, CONNECTIONS, many).await?;
        let direct_rate = Rate::new(times.len(), 0, CONNECTIONS, took);
        let begin = Instant::now();
        let times = ask_all(door, CONNECTIONS, many).await?;
        let rate = Rate::new(times.len(), 0, CONNECTIONS, begin.elapsed());
        bar.inc(1);

        let begin = Instant::now();
        let downloaded = download(door).await;
        let mut flow = Flow::new("preview, 1 GiB", begin.elapsed());
        flow.record(downloaded, LARGE_BYTES);
        flow.agent_peak_bytes = self.agent_peak_bytes(&id).await;
        bar.inc(1);

        let sockets = self.idle_sockets(&id, door).await?;
        bar.finish_and_clear();
        self.client.destroy_sandbox(&id).await?;
        let rates = [("direct requests", direct_rate), ("preview requests", rate)];
        Ok(Previews { latency: [direct, through], rates, download: flow, sockets })
    }

    /// Puts this binary into the sandbox and has it answer there.
    async fn start_inside(&self, id: &SandboxId) -> anyhow::Result<()> {
        let program = tokio::fs::read("/proc/self/exe").await.context("could not read itself")?;
        let options = WriteFile { mode: Some("755".to_owned()), ..WriteFile::default() };
        self.client.write_file(id, PROGRAM, &options, program).await?;
        let request = StartProcess {
            command: Command::Program([PROGRAM, "bench-inside"].map(str::to_owned).into()),
            id: None,
            session: None,
            cwd: None,
            env: std::collections::BTreeMap::new(),
            timeout_ms: None,
            stdin: ProcessStdin::Closed,
            auto_cleanup: true,
        };
        self.client.start_process(id, &request).await?;
        let wait = WaitPort { timeout_ms: Some(10_000), ..WaitPort::default() };
        let ready = self.client.wait_port(id, PORT, &wait).await;
        ready.context("the program does not run in this image: is this a release build?")?;
        Ok(())
    }

    /// Asks from inside: how long all of it took, and each request.
    async fn ask_inside(
        &self,
        id: &SandboxId,
        connections: usize,
        requests: usize,
    ) -> anyhow::Result<(Duration, Vec<Duration>)> {
        let words = [PROGRAM, "bench-inside", "--ask"].map(str::to_owned);
        let numbers = [connections, requests].map(|number| number.to_string());
        let command = Command::Program([&words[..], &numbers[..]].concat());
        let answer = self.client.exec(id, &ExecRequest::new(command)).await?;
        if !answer.success {
            bail!("asking inside failed: {}", answer.stderr);
        }
        let (took, times): (u64, Vec<u64>) = serde_json::from_str(&answer.stdout)?;
        let times = times.into_iter().map(Duration::from_micros).collect();
        Ok((Duration::from_micros(took), times))
    }

    /// What `WebSockets` that say nothing cost daemon and agent. None where the daemon is not local.
    async fn idle_sockets(
        &self,
        id: &SandboxId,
        door: Door<'_>,
    ) -> anyhow::Result<Option<Sockets>> {
        let Some(daemon) = daemon_rss(door.address.port())? else { return Ok(None) };
        let agent = self.agent_own(id).await?;
        let wanted = SOCKETS.min(self.runs * 20);
        let request = Arc::new(format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            door.host
        ));
        let mut open = Vec::with_capacity(wanted);
        for _ in 0..wanted {
            let mut stream = BufReader::with_capacity(1024, connect(door).await?);
            stream.get_mut().write_all(request.as_bytes()).await?;
            let head = read_head(&mut stream).await?;
            // The server may have too few open files for as many, and says so.
            if head.starts_with(b"HTTP/1.1 429") && !open.is_empty() {
                break;
            }
            check(&head)?;
            open.push(stream.into_inner());
        }
        let count = open.len();
        let daemon = daemon_rss(door.address.port())?.unwrap_or_default().saturating_sub(daemon);
        let agent = self.agent_own(id).await?.saturating_sub(agent);
        drop(open);
        Ok(Some(Sockets { count, daemon_bytes: daemon, agent_bytes: agent }))
    }

    /// Bytes of the agent's own: the program is shared by all agents.
    async fn agent_own(&self, id: &SandboxId) -> anyhow::Result<u64> {
        let own = status_bytes(&self.agent_status(id).await?, "RssAnon:");
        own.context("the agent's memory is not told")
    }
}

async fn download(door: Door<'_>) -> anyhow::Result<(usize, Duration, Duration)> {
    let begin = Instant::now();
    let mut stream = BufReader::with_capacity(PIECE_BYTES, connect(door).await?);
    let request = format!("GET /1g HTTP/1.1\r\nHost: {}\r\n\r\n", door.host);
    stream.get_mut().write_all(request.as_bytes()).await?;
    check(&read_head(&mut stream).await?)?;
    let first = begin.elapsed();
    let mut body = stream.take(LARGE_BYTES as u64);
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        match body.read(&mut piece).await? {
            0 => return Ok((bytes, first, begin.elapsed())),
            length => bytes += length,
        }
    }
}

/// Bytes of memory of the process that listens on `port` of this machine.
fn daemon_rss(port: u16) -> anyhow::Result<Option<u64>> {
    let Some(pid) = daemon::listener_on(port) else { return Ok(None) };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(status_bytes(&status, "VmRSS:"))
}
