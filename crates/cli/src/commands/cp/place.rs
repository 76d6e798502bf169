//! Which side a path is on.

use std::{path::PathBuf, str::FromStr};

use api::id::SandboxId;

/// A path on this machine or in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this machine.
    Local(PathBuf),
    /// In a sandbox.
    Sandbox {
        /// The sandbox.
        id: SandboxId,
        /// Absolute path in it.
        path: String,
    },
}

impl FromStr for Place {
    type Err = String;

    /// `ID:/path` is in a sandbox. A local name with a colon is written `./a:b`: a slash before
    /// the colon keeps the rest from being read as a sandbox's path.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err("a path has at least one character".to_owned());
        }
        let Some((id, path)) = text.split_once(':').filter(|(id, _)| !id.contains('/')) else {
            return Ok(Self::Local(text.into()));
        };
        let id: SandboxId = id.parse().map_err(|fault| {
            format!("{id:?} is not a sandbox: {fault}; a local file is written ./{text}")
        })?;
        if !path.starts_with('/') {
            return Err(format!(
                "paths in a sandbox are absolute: {id}:/workspace/{path}; a local file is \
                 written ./{text}"
            ));
        }
        Ok(Self::Sandbox { id, path: path.to_owned() })
    }
}

/// The last component of a path in a sandbox; none for the root and for `.` and `..`.
pub(super) fn last_component(path: &str) -> Option<&str> {
    path.rsplit('/').find(|part| !part.is_empty()).filter(|part| !matches!(*part, "." | ".."))
}

/// `name` in the directory `path`.
pub(super) fn join(path: &str, name: &str) -> String {
    format!("{}/{name}", path.trim_end_matches('/'))
}

/// True when a path asks for what is in a directory rather than the directory: it ends in `/.`.
pub(super) fn means_content(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(path: &str) -> Place {
        Place::Local(path.into())
    }

    #[test]
    fn a_sandbox_is_what_stands_before_the_colon() {
        let place: Place = "box:/a/b:c".parse().unwrap();
        assert_eq!(place, Place::Sandbox { id: "box".parse().unwrap(), path: "/a/b:c".to_owned() });
        for path in ["a", "./a:b", "/a:b/c", "dir/x:/y", ".", ".."] {
            assert_eq!(path.parse(), Ok(local(path)), "{path}");
        }
    }

    #[test]
    fn what_could_mean_both_is_refused_with_both_spellings() {
        for (text, hints) in [
            ("box:file", ["box:/workspace/file", "./box:file"]),
            ("8080:/x", ["\"8080\" is not a sandbox", "./8080:/x"]),
            ("a b:c", ["\"a b\" is not a sandbox", "./a b:c"]),
            (":/x", ["\"\" is not a sandbox", "./:/x"]),
            ("box:", ["box:/workspace/", "./box:"]),
        ] {
            let error = text.parse::<Place>().unwrap_err();
            for hint in hints {
                assert!(error.contains(hint), "{error}");
            }
        }
        assert!("".parse::<Place>().is_err());
    }

    #[test]
    fn components_of_paths() {
        assert_eq!(last_component("/a/b"), Some("b"));
        assert_eq!(last_component("/a/b//"), Some("b"));
        assert_eq!(last_component("/"), None);
        assert_eq!(last_component("/a/."), None);
        assert_eq!(last_component("/a/.."), None);
        assert_eq!(join("/", "x"), "/x");
        assert_eq!(join("/a/", "x"), "/a/x");
        assert!(means_content("/a/.") && means_content(".") && !means_content("/a/.b/"));
    }
}
