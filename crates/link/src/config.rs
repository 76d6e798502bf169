//! What the agent is told before it serves, and the way there.
//!
//! An agent starts without knowing whose it is, and waits for its configuration. It gets one, in one
//! message, from whoever holds the other end; when that end is closed before, it ends.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use api::service::Service;
use serde::{Deserialize, Serialize};

/// Bytes of the configuration at most: the environment's limits leave it far below.
const CONFIG_BYTES: u64 = 128 * 1024 * 1024;

/// What the agent is told before it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentConfig {
    /// Environment of every command: the image's, under the sandbox's own.
    pub env: BTreeMap<String, String>,
    /// Absolute path of the directory commands start in; made when missing.
    pub workdir: String,
    /// Absolute path of the file that keeps what is defined in the sandbox (variables, sessions) for
    /// its next start; none: nothing is kept.
    #[serde(default)]
    pub definitions: Option<String>,
    /// What it keeps running.
    #[serde(default)]
    pub services: Vec<Service>,
}

/// The end of the way to one agent that its configuration goes into.
#[derive(Debug)]
pub struct ConfigSender(OwnedFd);

/// The way to one agent: our end, and the one that the agent inherits.
///
/// # Errors
/// When the kernel is out of descriptors.
pub fn config_channel() -> io::Result<(ConfigSender, OwnedFd)> {
    let (ours, theirs) = sys::socket::message_pair()?;
    Ok((ConfigSender(ours), theirs))
}

impl ConfigSender {
    /// Sends the configuration, which does not wait for the agent. It goes as a sealed file in memory:
    /// however long it is, it is one message, and nobody can change it any more.
    ///
    /// # Errors
    /// When the agent has ended, or the kernel is out of memory or descriptors.
    pub fn send(self, config: &AgentConfig) -> io::Result<()> {
        let sealed = config.seal()?;
        Ok(sys::socket::send(self.0.as_fd(), b"C", &[sealed.as_fd()])?)
    }
}

impl AgentConfig {
    /// Waits for the configuration on the agent's end, for as long as it takes.
    ///
    /// # Errors
    /// When the other end was closed before, or sent something else.
    pub fn receive(channel: BorrowedFd<'_>) -> io::Result<Self> {
        let mut message = [0; 1];
        let (_, files) = sys::socket::receive(channel, &mut message)?;
        let sealed = files.into_iter().flatten().next();
        let sealed = sealed.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut text = Vec::new();
        File::from(sealed).take(CONFIG_BYTES).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    fn seal(&self) -> io::Result<File> {
        let mut file = File::from(sys::memfd::create(c"sandbar-agent-config", false)?);
        // In one piece: a serializer writes token by token.
        file.write_all(&serde_json::to_vec(self)?)?;
        file.rewind()?;
        sys::memfd::seal(file.as_fd())?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(value: &str) -> AgentConfig {
        AgentConfig {
            env: BTreeMap::from([("A".to_owned(), value.to_owned())]),
            workdir: "/workspace".to_owned(),
            definitions: None,
            services: Vec::new(),
        }
    }

    #[test]
    fn a_configuration_of_any_length_arrives_before_anybody_waits_for_it() {
        for value in ["ä\n", &"x".repeat(4 << 20)] {
            let (sender, theirs) = config_channel().unwrap();
            sender.send(&config(value)).unwrap();
            assert_eq!(AgentConfig::receive(theirs.as_fd()).unwrap(), config(value));
        }
    }

    #[test]
    fn an_end_that_is_closed_is_noticed_by_the_other() {
        let (sender, theirs) = config_channel().unwrap();
        drop(theirs);
        assert_eq!(sender.send(&config("x")).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let (sender, theirs) = config_channel().unwrap();
        drop(sender);
        assert_eq!(
            AgentConfig::receive(theirs.as_fd()).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn a_sealed_configuration_cannot_be_changed() {
        assert!(config("x").seal().unwrap().write(b"x").is_err());
    }
}
