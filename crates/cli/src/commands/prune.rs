//! `sandbar prune`: destroy sandboxes that nobody needs any more.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use api::{
    error::ErrorCode,
    id::SandboxId,
    sandbox::{Sandbox, SandboxState},
};
use clap::Args;
use client::{Client, ClientError};

use crate::{
    commands::rm,
    output::{Output, print_json, print_line},
    units::parse_duration,
};

/// Arguments of `sandbar prune`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only those that nobody has used for this time (12h, 30d).
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "0s")]
    unused: Duration,
    /// Frozen ones too.
    #[arg(long)]
    frozen: bool,
    /// Only sandboxes with this label.
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Option<String>,
    /// Say which, and destroy none.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Destroys those that are stopped or have failed, with what they have stored.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let before = i64::try_from(now.saturating_sub(arguments.unused).as_millis())?;
    let all = client.all_sandboxes(arguments.label.as_deref()).await?;
    let ids: Vec<SandboxId> = all
        .into_iter()
        .filter(|sandbox| is_unneeded(sandbox, arguments.frozen, before))
        .map(|sandbox| sandbox.id)
        .collect();
    if !arguments.dry_run {
        return rm::destroy(ids, out, async |id| {
            // Somebody may have begun to use it since, or have destroyed it.
            let destroyed = match client.sandbox(id).await {
                Ok(sandbox) if !is_unneeded(&sandbox, arguments.frozen, before) => {
                    return Ok(false);
                }
                Ok(_) => client.destroy_sandbox(id).await,
                Err(error) => Err(error),
            };
            match destroyed {
                Err(ClientError::Api { error, .. }) if error.code == ErrorCode::SandboxNotFound => {
                    Ok(false)
                }
                destroyed => destroyed.map(|()| true),
            }
        })
        .await;
    }
    if out.json {
        print_json(&serde_json::json!({"sandboxes": ids}))?;
    } else {
        ids.iter().try_for_each(print_line)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn is_unneeded(sandbox: &Sandbox, frozen: bool, before_ms: i64) -> bool {
    let rests = match sandbox.state {
        SandboxState::Stopped | SandboxState::Failed => true,
        SandboxState::Frozen => frozen,
        SandboxState::Creating | SandboxState::Running => false,
    };
    rests && sandbox.activity.last_used_at_ms <= before_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_rests_and_is_old_enough_is_unneeded() {
        let sandbox = |state: &str, used: i64| -> Sandbox {
            serde_json::from_value(serde_json::json!({
                "id": "a", "state": state, "image": "default", "network": "none", "env": {},
                "labels": {}, "createdAtMs": 0, "activity": {"requests": 0, "lastUsedAtMs": used},
                "resources": {"memoryBytes": 1 << 30, "pids": 100, "cpuMillis": 1500}
            }))
            .unwrap()
        };
        for (state, used, frozen, expected) in [
            ("stopped", 10, false, true),
            ("failed", 10, false, true),
            ("stopped", 11, false, false),
            ("frozen", 10, false, false),
            ("frozen", 10, true, true),
            ("running", 0, true, false),
            ("creating", 0, true, false),
        ] {
            let found = is_unneeded(&sandbox(state, used), frozen, 10);
            assert_eq!(found, expected, "{state} {used} {frozen}");
        }
    }
}
