//! `sandbar network`: what a sandbox may reach, shown or changed.

use std::process::ExitCode;

use api::{
    id::SandboxId,
    network::{AllowList, NetworkPolicy},
    sandbox::UpdateSandbox,
};
use clap::Args;
use client::Client;

use crate::{
    failure::Stop,
    output::{Output, print_json, print_line},
};

/// Arguments of `sandbar network`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The sandbox.
    id: SandboxId,
    /// What it may reach from now on: internet, none, or every host and address that is allowed
    /// (pypi.org:443 '*.example.com' 203.0.113.0/24:53/udp). Without any, shows what it may.
    #[arg(value_name = "POLICY", value_parser = parse_policy)]
    policy: Vec<NetworkPolicy>,
}

/// The policy in one word of the command line: `internet`, `none`, or rules joined by commas.
pub(crate) fn parse_policy(text: &str) -> Result<NetworkPolicy, String> {
    match text {
        "internet" => Ok(NetworkPolicy::Internet),
        "none" => Ok(NetworkPolicy::None),
        rules => {
            let rules = rules.split(',').map(str::parse).collect::<Result<_, _>>();
            let allow = rules.map_err(|fault: api::network::InvalidNetworkRule| {
                format!("{fault} (or one of the words internet and none)")
            })?;
            Ok(NetworkPolicy::Listed(AllowList { allow }))
        }
    }
}

/// Shows what the sandbox may reach, after a change if one is wanted.
pub(crate) async fn run(arguments: Arguments, out: Output) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let sandbox = match join(arguments.policy)? {
        None => client.sandbox(&arguments.id).await?,
        Some(network) => {
            let request = UpdateSandbox { network: Some(network), ..UpdateSandbox::default() };
            client.update_sandbox(&arguments.id, &request).await?
        }
    };
    if out.json {
        print_json(&sandbox.network)?;
        return Ok(ExitCode::SUCCESS);
    }
    match &sandbox.network {
        NetworkPolicy::Internet => print_line("internet")?,
        NetworkPolicy::None => print_line("none")?,
        NetworkPolicy::Listed(list) => list.allow.iter().try_for_each(print_line)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// One policy of all that was given: a word alone, or all rules together.
fn join(given: Vec<NetworkPolicy>) -> anyhow::Result<Option<NetworkPolicy>> {
    let mut given = given.into_iter();
    let Some(mut policy) = given.next() else { return Ok(None) };
    for more in given {
        match (&mut policy, more) {
            (NetworkPolicy::Listed(all), NetworkPolicy::Listed(more)) => {
                all.allow.extend(more.allow);
            }
            _ => {
                let usage = "internet and none stand alone: they say everything";
                return Err(Stop::Usage(usage.to_owned()).into());
            }
        }
    }
    Ok(Some(policy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_a_word_or_rules() {
        let listed = |rules: &[&str]| {
            let allow = rules.iter().map(|rule| rule.parse().unwrap()).collect();
            NetworkPolicy::Listed(AllowList { allow })
        };
        assert_eq!(parse_policy("internet"), Ok(NetworkPolicy::Internet));
        assert_eq!(parse_policy("none"), Ok(NetworkPolicy::None));
        assert_eq!(parse_policy("a.com:443,*.b.com"), Ok(listed(&["a.com:443", "*.b.com"])));
        for bad in ["", "moon", "a.com,", "a.com b.com", "none,a.com"] {
            assert!(parse_policy(bad).is_err(), "{bad:?}");
        }
        let joined = join(vec![listed(&["a.com"]), listed(&["b.com"])]).unwrap();
        assert_eq!(joined, Some(listed(&["a.com", "b.com"])));
        assert_eq!(join(vec![]).unwrap(), None);
        assert!(join(vec![NetworkPolicy::None, listed(&["a.com"])]).is_err());
        assert!(join(vec![listed(&["a.com"]), NetworkPolicy::Internet]).is_err());
    }
}
