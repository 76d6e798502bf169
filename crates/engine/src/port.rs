//! The ports of a sandbox that others may reach: exposed, hidden, given a new URL.
//!
//! ```text
//! expose ─▶ exposed ─rotate─▶ exposed, other token
//!    ▲         │
//!    └─────────┴─hide─▶ hidden: its URL is known and refused; exposed again, it is the same
//! ```
//!
//! Owns: which ports are exposed and what their tokens are. Does not: know host names, speak HTTP,
//! or ask whether anything listens.
//!
//! Invariants:
//! - Every change is in force and on record before its caller has the answer.
//! - A token is compared before anything is done for who presents it, and in constant time.
//! - A token of one sandbox fits no other, also not a later one of the same id: it is made from the
//!   jail's number.

mod secret;
mod table;

use std::{fmt, sync::Arc, time::Duration};

use api::{
    error::{ApiError, ErrorCode},
    id::SandboxId,
    limit::PORT_NAME_CHARS,
    port::{ExposePort, PortNumber, PortToken, PreviewLabel, RotatePort},
};
use jail::JailId;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(crate) use self::{secret::Secret, table::Ports};
use crate::{
    Active, EngineError,
    create::{self, FirstUse},
    error::{self, Publish},
    event::Cause,
    key::{By, Key},
    node::{Node, now_ms},
    record::{Change, PortRecord},
    sandbox::{InUse, Sandbox},
};

/// How long a change waits for those of other callers to the same sandbox's ports. One takes a write
/// to the disk, so only a disk that hangs lets it pass.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// An exposed port of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// Its place in host names: sandbox, port and token.
    pub label: PreviewLabel,
    /// A name for people.
    pub name: Option<String>,
    /// Milliseconds since 1970-01-01 UTC.
    pub exposed_at_ms: i64,
}

/// What somebody finds who follows a preview's URL.
#[derive(Debug)]
pub enum Found {
    /// The port is exposed and the token is its own.
    Exposed(Visit),
    /// The token is right, but the port is hidden now.
    Hidden,
    /// There is no such preview: no such sandbox or port, or the token is wrong. Which of them is
    /// nobody's business.
    Unknown,
}

/// The right to reach one exposed port of one sandbox, found by its URL.
pub struct Visit {
    sandbox: Arc<Sandbox>,
    replaced: CancellationToken,
}

impl fmt::Debug for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Visit").field(&self.sandbox.id).finish()
    }
}

impl Visit {
    /// The jail of the sandbox, by which its visits are told from others'.
    #[must_use]
    pub fn jail(&self) -> JailId {
        self.sandbox.jail
    }

    /// Ends when the right does: the port was hidden, or got another token.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        self.replaced.clone().cancelled_owned()
    }

    /// Has the sandbox run, and says where its agent is reached. Never makes one.
    ///
    /// # Errors
    /// As [`crate::Engine::activate`]; `SANDBOX_NOT_FOUND` when it was destroyed meanwhile.
    pub(crate) async fn activate(&self, node: &Arc<Node>) -> Result<Active, EngineError> {
        let by = By::Visitors(&node.visitors);
        let user = create::bring_up(node, &self.sandbox, by, &Cause::usage(by)).await?;
        let user = user.ok_or_else(|| error::not_found(&self.sandbox.id))?;
        if self.sandbox.settings().idle.count_visits {
            return Ok(user.into());
        }
        // Idle time begins anew, and goes on from here.
        Ok(Active::unheld(&user))
    }
}

/// Exposes a port; the sandbox is made or started if it has to.
pub(crate) async fn expose(
    node: &Arc<Node>,
    (id, first_use): (&SandboxId, FirstUse),
    request: ExposePort,
    by: &Key,
) -> Result<Exposure, EngineError> {
    let ExposePort { port, name, token, public } = request;
    let port = check_port(port)?;
    check_name(name.as_deref())?;
    // Before a sandbox is made: any token of its own would be as long as the longest generated one.
    let shown = if public { None } else { token.clone().or_else(longest_token) };
    PreviewLabel::new(id.clone(), port, shown).map_err(|fault| invalid("id", &fault))?;
    let user = create::activate(node, id, first_use, by).await?;
    let sandbox = Arc::clone(user.sandbox());
    let asked = table::Asked { name, token, is_public: public, now_ms: now_ms() };
    settle(node, sandbox, move |ports, secret, jail| {
        ports.expose(port, asked, |generation| secret.token(jail, port, generation))
    })
    .await
}

/// Hides a port: its URL is refused from now on, and visits that go on end.
pub(crate) async fn hide(
    node: &Arc<Node>,
    id: &SandboxId,
    port: PortNumber,
) -> Result<(), EngineError> {
    let sandbox = node.find(id).ok_or_else(|| error::not_found(id))?;
    settle(node, sandbox, move |ports, _, _| ports.hide(port)).await.map(drop)
}

/// Gives an exposed port another token, and so another URL; the old one is unknown from now on,
/// and visits by it end.
pub(crate) async fn rotate(
    node: &Arc<Node>,
    id: &SandboxId,
    port: PortNumber,
    request: RotatePort,
) -> Result<Exposure, EngineError> {
    let sandbox = node.find(id).ok_or_else(|| error::not_found(id))?;
    settle(node, sandbox, move |ports, secret, jail| {
        ports.rotate(port, request.token, |generation| secret.token(jail, port, generation))
    })
    .await
}

/// The exposed ports, sorted, and a use of the sandbox if it runs. Makes, thaws and starts nothing.
pub(crate) fn list(
    node: &Node,
    id: &SandboxId,
) -> Result<(Vec<Exposure>, Option<InUse>), EngineError> {
    let sandbox = node.find(id).ok_or_else(|| error::not_found(id))?;
    let user = sandbox.enter();
    let exposed = sandbox.ports.exposed();
    let described = exposed.into_iter().filter_map(|(record, token)| describe(id, record, token));
    Ok((described.collect(), user))
}

/// Whether `token` is that of the exposed port.
pub(crate) fn is_token(
    node: &Node,
    id: &SandboxId,
    port: PortNumber,
    token: &str,
) -> Result<bool, EngineError> {
    let sandbox = node.find(id).ok_or_else(|| error::not_found(id))?;
    Ok(sandbox.ports.judge(port, Some(token)) == table::Verdict::Exposed)
}

/// What is behind a preview's URL.
pub(crate) fn find(node: &Node, label: &PreviewLabel) -> Found {
    let Some(sandbox) = node.find(label.id()) else { return Found::Unknown };
    if !sandbox.is_there() {
        return Found::Unknown;
    }
    let (verdict, replaced) =
        sandbox.ports.visit(label.port(), label.token().map(PortToken::as_str));
    match verdict {
        table::Verdict::Exposed => Found::Exposed(Visit { sandbox, replaced }),
        table::Verdict::Hidden => Found::Hidden,
        table::Verdict::Unknown => Found::Unknown,
    }
}

/// Makes a change in memory and on disk, as a task of the node: a caller that goes away leaves both
/// the same.
async fn settle(
    node: &Arc<Node>,
    sandbox: Arc<Sandbox>,
    change: impl FnOnce(&Ports, &Secret, JailId) -> Result<table::Changed, EngineError> + Send + 'static,
) -> Result<Exposure, EngineError> {
    node.check_open()?;
    let owner = Arc::clone(node);
    let work = async move {
        let turn = timeout(TURN_TIMEOUT, sandbox.ports.turn()).await;
        let _turn =
            turn.map_err(|_elapsed| error::late("waiting for another change", TURN_TIMEOUT))?;
        let changed = change(&sandbox.ports, &owner.secret, sandbox.jail)?;
        let shown = describe(&sandbox.id, changed.record.clone(), changed.token.clone());
        let recorded = Change::Port(sandbox.jail, Box::new(changed.record.clone()));
        if let Err(error) = owner.records.write(recorded).await {
            // Also a write that comes late is taken back by this one.
            let before = sandbox.ports.take_back(changed);
            owner.records.submit(Change::Port(sandbox.jail, Box::new(before))).await;
            return Err(error.publish("recording the port"));
        }
        changed.settle();
        shown.ok_or_else(|| error::internal("naming the port"))
    };
    let settled = node.work.spawn(work).await;
    settled.map_err(|_panicked| error::internal("recording the port"))?
}

/// None: no host name can hold it, which was checked when it was exposed.
fn describe(id: &SandboxId, record: PortRecord, token: Option<PortToken>) -> Option<Exposure> {
    let PortRecord { port, name, exposed_at_ms, .. } = record;
    let label = PreviewLabel::new(id.clone(), port, token).ok()?;
    Some(Exposure { label, name, exposed_at_ms: exposed_at_ms.unwrap_or_default() })
}

/// The port of a request.
pub(crate) fn check_port(port: u32) -> Result<PortNumber, EngineError> {
    u16::try_from(port).ok().and_then(PortNumber::new).ok_or_else(|| {
        let text = format!("port is {port}; ports from 1024 to 65535 can be exposed");
        ApiError::new(ErrorCode::InvalidPort, text).with("port", port)
    })
}

fn check_name(name: Option<&str>) -> Result<(), EngineError> {
    let is_name = |name: &str| {
        (1..=PORT_NAME_CHARS).contains(&name.chars().count()) && !name.chars().any(char::is_control)
    };
    if name.is_none_or(is_name) {
        return Ok(());
    }
    let text =
        format!("a name has 1 to {PORT_NAME_CHARS} characters, none of them control characters");
    Err(error::invalid("name", &text))
}

fn longest_token() -> Option<PortToken> {
    "a".repeat(api::limit::PORT_TOKEN_CHARS).parse().ok()
}

fn invalid(field: &str, fault: &dyn fmt::Display) -> EngineError {
    error::invalid(field, &fault.to_string())
}
