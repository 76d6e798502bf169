//! What the agent is told at its start.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Seek, Write},
    os::fd::AsFd,
};

use api::service::Service;
use serde::{Deserialize, Serialize};

/// What the agent is told at its start.
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

impl AgentConfig {
    /// Writes the configuration, as JSON, to a sealed memfd: whoever holds it can read it from the
    /// start and nobody can change it.
    ///
    /// # Errors
    /// When the kernel is out of memory or descriptors.
    pub fn seal(&self) -> std::io::Result<File> {
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

    #[test]
    fn a_sealed_configuration_reads_as_written_and_cannot_be_changed() {
        let config = AgentConfig {
            env: BTreeMap::from([("A".to_owned(), "ä\n".to_owned())]),
            workdir: "/workspace".to_owned(),
            definitions: None,
            services: Vec::new(),
        };
        let mut file = config.seal().unwrap();
        assert_eq!(serde_json::from_reader::<_, AgentConfig>(&file).unwrap(), config);
        assert!(file.write(b"x").is_err());
    }
}
