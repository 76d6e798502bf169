//! Files in a sandbox as arguments: `ID:/path`.

use std::str::FromStr;

use api::id::SandboxId;

/// A sandbox, and perhaps an absolute path in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SandboxPath {
    pub(crate) id: SandboxId,
    pub(crate) path: Option<String>,
}

impl FromStr for SandboxPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, path) = match text.split_once(':') {
            Some((id, path)) => (id, Some(path)),
            None => (text, None),
        };
        let id = id.parse().map_err(|fault| format!("{id:?} is not a sandbox: {fault}"))?;
        match path {
            Some(path) if !path.starts_with('/') => {
                Err(format!("paths in a sandbox are absolute: {id}:/workspace/{path}"))
            }
            path => Ok(Self { id, path: path.map(str::to_owned) }),
        }
    }
}

/// The same where there must be a path.
pub(crate) fn with_path(text: &str) -> Result<(SandboxId, String), String> {
    let SandboxPath { id, path } = text.parse()?;
    path.map(|path| (id, path)).ok_or_else(|| format!("write the file as {text}:/path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_absolute_or_absent() {
        let place: SandboxPath = "box:/a:b c".parse().unwrap();
        assert_eq!(place.path.as_deref(), Some("/a:b c"));
        assert_eq!("box".parse::<SandboxPath>().unwrap().path, None);
        for (text, hint) in [
            ("box:a", "box:/workspace/a"),
            ("box:", "box:/workspace/"),
            ("8080:/x", "\"8080\" is not a sandbox"),
            ("/etc/passwd", "is not a sandbox"),
        ] {
            let fault = text.parse::<SandboxPath>().unwrap_err();
            assert!(fault.contains(hint), "{fault}");
        }
        assert_eq!(with_path("box:/a").unwrap().1, "/a");
        assert!(with_path("box").unwrap_err().contains("box:/path"));
    }
}
