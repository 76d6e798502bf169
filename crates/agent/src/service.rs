//! Services: keeps programs running for as long as the sandbox does.
//!
//! ```text
//! start of the agent ─▶ each service: start ─▶ ready ─▶ ended ─▶ wait ─▶ start ...
//! ```
//!
//! Owns: when a service is started, and where it is. Does not: start or follow a command itself, a
//! service's program is a [`Process`] like any.
//!
//! Invariant: a service has one process at a time; the one before has ended.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use api::{
    error::ApiError,
    exec::Ending,
    process::WaitUntil,
    service::{Restart, Service, ServiceList, ServiceState, ServiceStatus},
};
use axum::{Json, extract::State};

use crate::{
    init::Agent,
    process::{
        About, IdTaken, Keep, Process, Wish, WishedStdin, launch,
        log::{Retention, now_ms},
        wait::{Condition, met},
    },
};

/// Pause before a service is started again. It doubles with each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause: what depends on a program that comes up late waits so long at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A service that ran so long did not fail at its start: the pauses begin anew.
const STEADY: Duration = Duration::from_secs(60);

/// The services of the sandbox.
#[derive(Debug)]
pub(crate) struct Services(Vec<Arc<Mutex<ServiceStatus>>>);

impl Services {
    pub(crate) fn new(services: Vec<Service>) -> Self {
        let status = |service| ServiceStatus {
            service,
            state: ServiceState::Starting,
            pid: None,
            restarts: 0,
            ending: None,
            message: None,
            next_start_at_ms: None,
        };
        Self(services.into_iter().map(|service| Arc::new(Mutex::new(status(service)))).collect())
    }

    /// Starts all, and keeps them running.
    pub(crate) fn start(&self, agent: &Arc<Agent>) {
        for status in &self.0 {
            agent.tasks.spawn(keep_running(Arc::clone(agent), Arc::clone(status)));
        }
    }
}

/// Lists the services.
///
/// Those that the sandbox was started with. Their output is in the logs of the processes of their
/// names.
#[utoipa::path(get, path = "/services", operation_id = "listServices", tag = "services",
    responses((status = 200, description = "Where each is", body = ServiceList)))]
pub(crate) async fn list(State(agent): State<Arc<Agent>>) -> Json<ServiceList> {
    let services = agent.services.0.iter().map(|status| lock(status).clone()).collect();
    Json(ServiceList { services })
}

/// Nothing that can panic happens under the lock, so a poisoned one holds whole data.
fn lock(status: &Mutex<ServiceStatus>) -> MutexGuard<'_, ServiceStatus> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn keep_running(agent: Arc<Agent>, status: Arc<Mutex<ServiceStatus>>) {
    let service = lock(&status).service.clone();
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = Instant::now();
        let ran = run(&agent, &service, &status).await;
        let is_again = comes_again(service.restart, ran.as_ref().ok());
        if begun.elapsed() >= STEADY {
            pause = FIRST_PAUSE;
        }
        {
            let mut status = lock(&status);
            status.pid = None;
            status.ending = ran.as_ref().ok().copied();
            status.message = ran.err().map(|error| error.message);
            let pause_ms = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
            status.next_start_at_ms = is_again.then(|| now_ms().saturating_add(pause_ms));
            status.state = if is_again { ServiceState::Waiting } else { ServiceState::Ended };
        }
        if !is_again {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
        let mut status = lock(&status);
        status.restarts = status.restarts.saturating_add(1);
        status.next_start_at_ms = None;
        status.state = ServiceState::Starting;
    }
}

/// Whether a service is started again that ended so; none: it could not be started.
fn comes_again(restart: Restart, ending: Option<&Ending>) -> bool {
    match restart {
        Restart::Always => true,
        Restart::OnFailure => !matches!(ending, Some(Ending::Exited { code: 0 })),
        Restart::Never => false,
    }
}

/// Runs a service's program to its end.
async fn run(
    agent: &Arc<Agent>,
    service: &Service,
    status: &Mutex<ServiceStatus>,
) -> Result<Ending, ApiError> {
    let place = Arc::clone(&agent.places).acquire_owned().await;
    let place = place.expect("the places are never closed");
    // The one before makes way for its successor, with its log.
    if let Some(before) = agent.processes.find(service.name.as_str())
        && before.end().is_some()
    {
        agent.processes.forget(&before);
    }
    let about = About::process(Some(service.name.clone()), &service.command, None);
    let process = Process::new(agent, about, Retention::Newest);
    agent.processes.add(&process, Keep::Record).map_err(taken)?;
    let wish = Wish {
        command: service.command.clone(),
        cwd: None,
        env: std::collections::BTreeMap::new(),
        timeout_ms: None,
        stdin: WishedStdin::Null,
    };
    launch(agent, &process, wish, None, place).await?;
    lock(status).pid = Some(process.pid());
    let ready = async {
        if let Some(port) = service.port {
            let mut condition = Condition::check(WaitUntil::Port { port })?;
            if met(&process, &mut condition).await.is_none() {
                return Ok(());
            }
        }
        lock(status).state = ServiceState::Ready;
        Ok::<_, ApiError>(())
    };
    // A service that never listens is never ready, and runs all the same.
    let (ready, end) = tokio::join!(ready, process.ended());
    ready?;
    Ok(end.ending)
}

fn taken(IdTaken(other): IdTaken) -> ApiError {
    let id = &other.about.id;
    let text = format!("a process {id} runs that is not the service's");
    ApiError::new(api::error::ErrorCode::ProcessExists, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_comes_again_as_its_policy_says() {
        let (well, ill) = (Ending::Exited { code: 0 }, Ending::Exited { code: 3 });
        for (restart, expected) in [
            (Restart::Always, [true, true, true]),
            (Restart::OnFailure, [false, true, true]),
            (Restart::Never, [false, false, false]),
        ] {
            let found = [Some(&well), Some(&ill), None].map(|end| comes_again(restart, end));
            assert_eq!(found, expected, "{restart:?}");
        }
    }
}
