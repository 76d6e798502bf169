//! Variables: those of the sandbox, and what a change of variables may be.
//!
//! A change of the sandbox's variables is for what starts later, and for the default session.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use api::{
    env::{ChangeEnv, Env},
    error::{ApiError, ErrorBody, ErrorCode},
    limit::ENV_BYTES,
};
use axum::{Json, extract::State, http::StatusCode};

use crate::{
    extract,
    init::Agent,
    process::check::{environment, invalid},
    refusal::Refusal,
    session,
};

/// The variables that commands start with. They are replaced, never changed in place.
#[derive(Debug)]
pub(crate) struct Environment {
    /// Those that the sandbox was started with.
    base: Arc<BTreeMap<String, String>>,
    now: Mutex<Arc<BTreeMap<String, String>>>,
}

impl Environment {
    pub(crate) fn new(variables: BTreeMap<String, String>) -> Self {
        let base = Arc::new(variables);
        Self { now: Mutex::new(Arc::clone(&base)), base }
    }

    pub(crate) fn now(&self) -> Arc<BTreeMap<String, String>> {
        Arc::clone(&self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What makes those of now of those of the start.
    pub(crate) fn changes(&self) -> BTreeMap<String, Option<String>> {
        let now = self.now();
        let set = now.iter().filter(|(name, value)| self.base.get(*name) != Some(*value));
        let set = set.map(|(name, value)| (name.clone(), Some(value.clone())));
        let unset = self.base.keys().filter(|name| !now.contains_key(*name));
        set.chain(unset.map(|name| (name.clone(), None))).collect()
    }

    pub(crate) fn change(&self, changes: BTreeMap<String, Option<String>>) -> Result<(), ApiError> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = environment(&now, changes)?;
        check_bytes(changed.iter().map(|(name, value)| name.len() + value.len()))?;
        *now = Arc::new(changed);
        Ok(())
    }
}

/// The variables of the sandbox.
///
/// What a program gets that is started without a session: the image's variables, and over them those
/// that the sandbox was created with or that were set since.
#[utoipa::path(get, path = "/env", operation_id = "getEnv", tag = "env",
    responses((status = 200, description = "All variables", body = Env)))]
pub(crate) async fn get(State(agent): State<Arc<Agent>>) -> Json<Env> {
    Json(Env { env: BTreeMap::clone(&agent.env.now()) })
}

/// Sets and unsets variables of the sandbox.
///
/// They are for commands and processes that start later, for sessions that are made later, and for
/// the default session, there from its next command on. Variables that a session was given for
/// itself go before them. They outlive stops and restarts, and go into checkpoints and forks.
#[utoipa::path(patch, path = "/env", operation_id = "changeEnv", tag = "env", request_body = ChangeEnv,
    responses(
        (status = 204, description = "Changed"),
        (status = 400, description = "VALIDATION_FAILED", body = ErrorBody),
        (status = 413, description = "PAYLOAD_TOO_LARGE", body = ErrorBody),
        (status = 415, description = "UNSUPPORTED_MEDIA_TYPE", body = ErrorBody),
        (status = 429, description = "TOO_MANY_REQUESTS: too many commands wait in the default session", body = ErrorBody),
        (status = 507, description = "NO_SPACE: in force until the sandbox is stopped", body = ErrorBody),
    ))]
pub(crate) async fn change(
    State(agent): State<Arc<Agent>>,
    extract::Json(request): extract::Json<ChangeEnv>,
) -> Result<StatusCode, Refusal> {
    check_names(&request.env)?;
    // First, because it can be refused when the other cannot be taken back.
    let place = session::place_for_variables(&agent)?;
    agent.env.change(request.env.clone())?;
    session::pass_on(&agent, place, request.env);
    agent.definitions.keep().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses names that no shell can give a variable.
pub(crate) fn check_names(changes: &BTreeMap<String, Option<String>>) -> Result<(), ApiError> {
    let is_name = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
    };
    match changes.keys().find(|name| !is_name(name)) {
        None => Ok(()),
        Some(name) => {
            let text = "the name of a variable has letters, digits and '_' and does not begin with \
                        a digit";
            Err(invalid(&format!("env.{name}"), text))
        }
    }
}

/// Refuses more variables than a program can be started with.
pub(crate) fn check_bytes(variables: impl Iterator<Item = usize>) -> Result<(), ApiError> {
    let bytes: usize = variables.sum();
    if bytes <= ENV_BYTES {
        return Ok(());
    }
    let text = format!("all variables together would have {bytes} bytes and may have {ENV_BYTES}");
    Err(ApiError::new(ErrorCode::PayloadTooLarge, text).with("limit", ENV_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: Option<String>) -> BTreeMap<String, Option<String>> {
        BTreeMap::from([(name.to_owned(), value)])
    }

    #[test]
    fn names_are_those_of_a_shell() {
        for good in ["A", "_", "a1_B"] {
            assert!(check_names(&one(good, None)).is_ok(), "{good}");
        }
        for bad in ["", "1A", "A-B", "A.B", "A B", "A;B", "ä", "A="] {
            assert!(check_names(&one(bad, None)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_was_changed_makes_now_of_the_start() {
        let base = BTreeMap::from(["A", "B", "C"].map(|name| (name.to_owned(), "1".to_owned())));
        let environment = Environment::new(base.clone());
        assert_eq!(environment.changes(), BTreeMap::new());
        for (name, value) in [("A", Some("2")), ("B", None), ("D", Some("3")), ("E", None)] {
            environment.change(one(name, value.map(str::to_owned))).unwrap();
        }
        environment.change(one("C", Some("1".to_owned()))).unwrap();
        let changes = environment.changes();
        assert_eq!(changes.keys().collect::<Vec<_>>(), ["A", "B", "D"]);
        let again = Environment::new(base);
        again.change(changes).unwrap();
        assert_eq!(again.now(), environment.now());
    }

    #[test]
    fn all_variables_together_are_bounded() {
        let environment = Environment::new(BTreeMap::new());
        let value = "x".repeat(ENV_BYTES / 32);
        for number in 0..31 {
            environment.change(one(&format!("V{number}"), Some(value.clone()))).unwrap();
        }
        let before = environment.now();
        let error = environment.change(one("V31", Some(value))).unwrap_err();
        assert_eq!(error.code, ErrorCode::PayloadTooLarge);
        assert_eq!(environment.now(), before);
        environment.change(one("V30", None)).unwrap();
        assert_eq!(environment.now().len(), 30);
    }
}
