//! Changes what a sandbox is to be, while it goes on.
//!
//! ```text
//! check ─▶ record ─▶ put in force ─▶ reply
//! ```
//!
//! As in `create.rs`, the work is a task of the node. A change that was recorded and not put in force
//! is put in force by the next start of the sandbox or of the daemon.

use std::sync::Arc;

use api::{event::EventKind, id::SandboxId, sandbox::UpdateSandbox};
use jail::JailNetwork;

use crate::{
    EngineError,
    error::{self, Publish},
    event::{Cause, Draft},
    key::Key,
    node::Node,
    record::Change,
    sandbox::Sandbox,
    settings::{
        Settings, check_command, check_idle, check_labels, check_network, check_services, check_ttl,
    },
    state::{Admission, Operation, State},
};

/// Times a change is tried on a sandbox that others start or stop meanwhile.
const ATTEMPTS: usize = 8;

/// Changes the sandbox with this id.
pub(crate) async fn update(
    node: &Arc<Node>,
    id: &SandboxId,
    request: UpdateSandbox,
    by: &Key,
) -> Result<Arc<Sandbox>, EngineError> {
    let sandbox = node.find(id).ok_or_else(|| error::not_found(id))?;
    if request == UpdateSandbox::default() {
        return Ok(sandbox);
    }
    // Once more when it is carried out: others may change it meanwhile.
    drop(changed(&sandbox.settings(), &request)?);
    for _ in 0..ATTEMPTS {
        let (admission, before) = sandbox.begin(Operation::Change);
        match admission {
            Admission::Refuse => return Err(error::not_found(id)),
            Admission::Begin => {
                let asked = (request, Cause::request(by));
                let work = carry_out(Arc::clone(node), Arc::clone(&sandbox), asked, before);
                let changed = node.work.spawn(work).await;
                changed.map_err(|_panicked| error::internal("changing the sandbox"))??;
                return Ok(sandbox);
            }
            Admission::Wait | Admission::Done | Admission::InUse => {
                drop(sandbox.settled().await?);
            }
        }
    }
    Err(error::ended_at_once(id))
}

/// The settings with what was asked for in place of theirs.
fn changed(settings: &Settings, request: &UpdateSandbox) -> Result<Settings, EngineError> {
    let mut settings = settings.clone();
    if let Some(network) = &request.network {
        check_network(network)?;
        settings.network = network.clone();
        // Another revision also when nothing else is different: an earlier attempt may have failed.
        settings.network_revision += 1;
    }
    if let Some(labels) = &request.labels {
        check_labels(labels)?;
        settings.labels.clone_from(labels);
    }
    if let Some(on_start) = &request.on_start {
        settings.on_start = check_command("onStart", Some(on_start.clone()))?;
    }
    if let Some(services) = &request.services {
        settings.services = check_services(services.clone())?;
    }
    if let Some(idle) = &request.idle {
        settings.idle = settings.idle.with(idle);
        check_idle(&settings.idle)?;
    }
    if let Some(ttl_ms) = request.ttl_ms {
        check_ttl(ttl_ms)?;
        settings.ttl_ms = ttl_ms;
    }
    Ok(settings)
}

/// Changes a sandbox that is [`State::Changing`].
async fn carry_out(
    node: Arc<Node>,
    sandbox: Arc<Sandbox>,
    (request, cause): (UpdateSandbox, Cause),
    before: State,
) -> Result<(), EngineError> {
    // Frozen ones too: they go on under the new settings.
    let has_processes = before.agent().is_some();
    let changed = match changed(&sandbox.settings(), &request) {
        Ok(settings) => {
            let admits = request.network.is_some() && has_processes;
            change(&node, &sandbox, settings, (admits, cause)).await
        }
        Err(error) => Err(error),
    };
    sandbox.set(before);
    changed
}

async fn change(
    node: &Node,
    sandbox: &Sandbox,
    settings: Settings,
    (admits, cause): (bool, Cause),
) -> Result<(), EngineError> {
    let recorded = Change::Settings(sandbox.jail, Box::new(settings.clone()));
    // With the labels that it has from now on.
    let told = Draft::of(&sandbox.id, &settings, EventKind::Changed, cause);
    let recorded = recorded.telling(told);
    if let Err(error) = node.records.write(recorded).await {
        tracing::warn!(sandbox_id = %sandbox.id, error = &error as &dyn std::error::Error,
            "a sandbox is not changed because that could not be recorded");
        // Also a write that comes late is taken back by this one.
        let before = Box::new(Settings::clone(&sandbox.settings()));
        node.records.submit(Change::Settings(sandbox.jail, before)).await;
        return Err(error.publish("recording the change"));
    }
    let address = node.config.node.network.and_then(|network| network.address(sandbox.slot));
    let Some(address) = address.filter(|_| admits) else {
        sandbox.set_settings(settings);
        return Ok(());
    };
    let jail = sandbox.jail;
    let place = JailNetwork { address, reach: sandbox.asker.reach_under(&settings) };
    let admitted = node.network.call(move |launcher| launcher.admit(jail, &place), |_, ()| {});
    // In this order: what the resolver learns under the new policy waits for its turn behind it.
    let (admitted, ()) = tokio::join!(admitted, async { sandbox.set_settings(settings) });
    admitted.map_err(|error| {
        tracing::error!(sandbox_id = %sandbox.id, %jail,
            error = &error as &dyn std::error::Error,
            "a sandbox's network policy is recorded but could not be put in force");
        error.publish("changing the sandbox's network")
    })?;
    tracing::info!(sandbox_id = %sandbox.id, %jail, "network policy changed");
    Ok(())
}
