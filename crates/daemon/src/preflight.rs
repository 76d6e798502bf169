//! What must hold before anything is started: each fault here is the operator's to fix, and leaves
//! nothing behind.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use jail::features::{self, Status};

use crate::{config::Config, port_owner};

/// Why the server was not started.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// The certificate of the previews cannot be used.
    #[error("preview.tls_cert and preview.tls_key name {0}")]
    Certificate(String),
    /// Namespaces with their own ids, mounts and networks are root's to make.
    #[error("sandbar needs root to build sandboxes: run it with sudo, or as a system service")]
    NotRoot,
    /// The state directory cannot be made or is not ours.
    #[error("the state directory {} cannot be used; set state_dir to another", path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The address is taken.
    #[error("{address} is in use{owner}: stop that program, or set listen to another port")]
    AddressInUse {
        /// The address.
        address: SocketAddr,
        /// ` by NAME (pid N)`, where it can be told.
        owner: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; set listen to an address of this machine")]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel lacks something that isolation needs.
    #[error("this machine cannot isolate sandboxes: {0}; `sandbar doctor` says more")]
    Kernel(String),
}

/// What this machine must offer before any process is started: root, and the kernel features of
/// isolation.
///
/// # Errors
/// [`PreflightError::NotRoot`], [`PreflightError::Kernel`].
pub(crate) fn preflight(config: &Config) -> Result<(), PreflightError> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    // Real, effective, saved, file system (proc(5)).
    if ids.split_whitespace().nth(1) != Some("0") {
        return Err(PreflightError::NotRoot);
    }
    let missing: Vec<String> = features::probe(&config.node.state_dir)
        .into_iter()
        .filter(|feature| feature.required && feature.status == Status::Missing)
        // A node without a network needs no firewall.
        .filter(|feature| config.node.network.is_some() || !feature.name.starts_with("nf"))
        .map(|feature| format!("{}: {} ({})", feature.name, feature.detail, feature.remedy))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(PreflightError::Kernel(missing.join("; "))) }
}

/// Makes the state directory, for root alone, or checks the one that is there.
pub(crate) fn state_dir(path: &Path) -> Result<(), PreflightError> {
    let failed = |source| PreflightError::StateDir { path: path.to_owned(), source };
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).map_err(failed)?;
    let metadata = fs::metadata(path).map_err(failed)?;
    let own = fs::metadata("/proc/self").map_err(failed)?.uid();
    if metadata.uid() != own {
        let message = format!("it belongs to user {}, not to {own}", metadata.uid());
        return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, message)));
    }
    // It holds every sandbox's files and the key; made by hand it is often 0755.
    if metadata.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

/// Checks where the files of the previews' certificate are. They are opened by root whenever they are
/// renewed, so they have to be where the server, which is another user, makes no links.
pub(crate) fn certificate(files: &[&Path], state_dir: &Path) -> Result<(), PreflightError> {
    let is_within = |file: &&&Path| {
        let places = file.canonicalize().ok().zip(state_dir.canonicalize().ok());
        places.is_some_and(|(file, dir)| file.starts_with(dir))
    };
    files.iter().find(is_within).map_or(Ok(()), |file| {
        let text = format!(
            "{}, which is in the state directory, where the server itself makes files; move it",
            file.display()
        );
        Err(PreflightError::Certificate(text))
    })
}

/// Takes the API's address. Connections made from now on wait until they are accepted.
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, PreflightError> {
    let listener = TcpListener::bind(address).map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            let owner = port_owner::find(address.port()).map_or_else(String::new, |owner| {
                format!(" by {} (pid {})", owner.name, owner.pid)
            });
            PreflightError::AddressInUse { address, owner }
        } else {
            PreflightError::Address { address, source }
        }
    })?;
    listener.set_nonblocking(true).map_err(|source| PreflightError::Address { address, source })?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_occupied_port_is_told_with_its_owner() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();

        let error = listen(address).unwrap_err().to_string();

        let expected = format!("{address} is in use by ");
        assert!(error.starts_with(&expected), "{error}");
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
    }

    #[test]
    fn a_foreign_address_is_told() {
        // TEST-NET-1 (RFC 5737): no machine has it.
        let error = listen("192.0.2.1:8787".parse().unwrap()).unwrap_err();

        assert!(matches!(error, PreflightError::Address { .. }));
    }

    #[test]
    fn the_state_directory_is_made_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");

        state_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        state_dir(&path).unwrap();

        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_certificate_is_not_where_the_server_makes_files() {
        let (state, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (inside, key) = (state.path().join("cert.pem"), outside.path().join("key.pem"));
        let link = outside.path().join("cert.pem");
        for file in [&inside, &key] {
            fs::write(file, "").unwrap();
        }
        std::os::unix::fs::symlink(&inside, &link).unwrap();

        for cert in [&inside, &link] {
            let error = certificate(&[&key, cert], state.path()).unwrap_err().to_string();
            assert!(error.contains("state directory") && error.contains("move it"), "{error}");
        }
        certificate(&[&key, &outside.path().join("none")], state.path()).unwrap();
    }

    #[test]
    fn a_state_directory_that_is_a_file_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();

        let error = state_dir(file.path()).unwrap_err();

        assert!(error.to_string().contains("set state_dir to another"));
    }
}
