//! Paths: from a URL or a text to the kernel, and what they may not go through.

use std::{
    ffi::{CStr, CString, OsStr},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use api::{
    error::{ApiError, ErrorCode},
    file::FileEntry,
    limit::PATH_BYTES,
};
use sys::{
    SysError, errno,
    file::{self, How, Stat},
    file_system,
};

use super::{entry, fault::fault};

/// Symbolic links followed in the last component, as the kernel's own limit (`MAXSYMLINKS`).
const LINKS: usize = 40;

/// An absolute path of 1 to [`PATH_BYTES`] bytes without NUL. It need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilePath(CString);

impl FilePath {
    pub(super) fn new(bytes: Vec<u8>) -> Result<Self, ApiError> {
        let invalid = |text: String| Err(ApiError::new(ErrorCode::InvalidPath, text));
        if bytes.len() > PATH_BYTES {
            return invalid(format!("a path has at most {PATH_BYTES} bytes"));
        }
        match CString::new(bytes) {
            Ok(path) => Ok(Self(path)),
            Err(_) => invalid("a path holds no NUL byte".to_owned()),
        }
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        &self.0
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(super) fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.as_bytes()))
    }

    /// For people: with U+FFFD for what is not UTF-8.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(self.as_bytes()).into_owned()
    }

    /// The same for a path from the root, without empty components and `.`, which mean nothing but
    /// at the end: there they say that the path is a directory.
    fn from_root(bytes: Vec<u8>) -> Result<Self, ApiError> {
        let path = Self::new(bytes)?;
        let mut clean = Vec::with_capacity(path.as_bytes().len());
        for component in path.as_bytes().split(|byte| *byte == b'/') {
            if !matches!(component, b"" | b".") {
                clean.push(b'/');
                clean.extend_from_slice(component);
            }
        }
        if clean.is_empty() || path.as_bytes().ends_with(b"/") || path.as_bytes().ends_with(b"/.") {
            clean.push(b'/');
        }
        Self::new(clean)
    }

    /// Without slashes at its end.
    pub(super) fn trimmed(&self) -> Self {
        let mut bytes = self.as_bytes();
        while let [rest @ .., b'/'] = bytes
            && !rest.is_empty()
        {
            bytes = rest;
        }
        Self(CString::new(bytes).unwrap_or_else(|_zero| self.0.clone()))
    }

    /// Refuses what is there when it is no directory, and this path says that it is one: by a slash at its
    /// end, which a link does not go through either.
    pub(super) fn check_slash(&self, attempt: &str, there: Option<&Stat>) -> Result<(), ApiError> {
        let is_directory = |stat: &Stat| stat.mode & file::S_IFMT == file::S_IFDIR;
        if self.as_bytes().ends_with(b"/") && !there.is_none_or(is_directory) {
            return Err(fault(attempt, self, SysError { call: "open", errno: errno::ENOTDIR }));
        }
        Ok(())
    }

    /// The directory part, and the last component; `.` of it when the path ends in a slash.
    pub(super) fn split(&self) -> (Self, CString) {
        let bytes = self.as_bytes();
        let slash = bytes.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let (parent, name) = bytes.split_at((slash + 1).min(bytes.len()));
        let name = if name.is_empty() { b"." } else { name };
        let part = |bytes: &[u8]| CString::new(bytes).unwrap_or_else(|_zero| self.0.clone());
        (Self(part(parent)), part(name))
    }
}

/// The path that `/files/...` names: what follows, percent-decoded once, from the root; or from
/// `base` when there is one and it does not begin with a slash.
pub(super) fn of_url(base: Option<&str>, url_path: &str) -> Result<FilePath, ApiError> {
    let encoded = url_path.strip_prefix("/files/").unwrap_or(url_path);
    let starts_at_root =
        encoded.starts_with('/') || encoded.to_ascii_lowercase().starts_with("%2f");
    let mut bytes = base.filter(|_| !starts_at_root).unwrap_or_default().as_bytes().to_vec();
    bytes.push(b'/');
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest.next().and_then(hex).zip(rest.next().and_then(hex));
        let Some((high, low)) = digits else {
            let text = "the path is not percent-encoded: `%` is followed by two hexadecimal digits";
            return Err(ApiError::new(ErrorCode::InvalidPath, text));
        };
        bytes.push(high << 4 | low);
    }
    FilePath::from_root(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// A path of a request's text: from the root, or from `base`.
pub(super) fn absolute(base: &str, text: &str) -> Result<FilePath, ApiError> {
    if text.is_empty() {
        return Err(ApiError::new(ErrorCode::InvalidPath, "the path is empty"));
    }
    if text.starts_with('/') {
        return FilePath::from_root(text.as_bytes().to_vec());
    }
    FilePath::from_root(format!("{base}/{text}").into_bytes())
}

/// Opens `path`, below `dir` if it is relative. Nothing in it waits, becomes a terminal of ours,
/// goes through a link of /proc that is no path, or ends in a part of /proc that is the agent's.
pub(super) fn open(dir: BorrowedFd<'_>, path: &CStr, flags: i32) -> Result<OwnedFd, SysError> {
    // O_PATH opens nothing, so openat2(2) refuses it together with flags about opening.
    let never_wait = if flags & file::O_PATH == 0 { file::O_NONBLOCK | file::O_NOCTTY } else { 0 };
    let flags = flags | never_wait;
    let how = How { flags, mode: 0, resolve: file::RESOLVE_NO_MAGICLINKS };
    let fd = file::open(dir, path, how)?;
    if file_system::of(fd.as_fd())?.is_proc() && is_own(fd.as_fd()) {
        return Err(SysError { call: "open", errno: errno::EACCES });
    }
    Ok(fd)
}

/// True for what /proc has about this process, also under the number of one of its threads; and
/// for what cannot be told.
fn is_own(fd: BorrowedFd<'_>) -> bool {
    let Ok(path) = real(fd) else { return true };
    path.iter()
        .filter_map(OsStr::to_str)
        .filter(|component| component.bytes().all(|byte| byte.is_ascii_digit()))
        .any(|number| Path::new("/proc/self/task").join(number).exists())
}

/// Where what is open is, without links.
pub(super) fn real(fd: BorrowedFd<'_>) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Opens the working directory of a command.
pub(crate) fn open_directory(workdir: &str, text: &str) -> Result<OwnedFd, ApiError> {
    let path = absolute(workdir, text)?;
    open(file::cwd(), path.as_c_str(), file::O_PATH | file::O_DIRECTORY)
        .map_err(|error| fault("use the working directory", &path, error))
}

/// A name in an open directory: what is deleted, replaced or looked at.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) parent: OwnedFd,
    pub(super) name: CString,
    pub(super) path: FilePath,
}

impl Target {
    /// Opens the directory of `path`. The last component is not followed and need not exist.
    pub(super) fn open(attempt: &str, path: &FilePath) -> Result<Self, ApiError> {
        let (parent, name) = path.split();
        let parent = open(file::cwd(), parent.as_c_str(), file::O_PATH | file::O_DIRECTORY)
            .map_err(|error| fault(attempt, path, error))?;
        Ok(Self { parent, name, path: path.clone() })
    }

    /// The same for what the last component points to, link by link: the file that a write means.
    /// With what is there; none when nothing is.
    pub(super) fn follow(attempt: &str, path: &FilePath) -> Result<(Self, Option<Stat>), ApiError> {
        let mut target = Self::open(attempt, path)?;
        for _ in 0..LINKS {
            let there = target.look(attempt)?;
            if there.is_none_or(|stat| stat.mode & file::S_IFMT != file::S_IFLNK) {
                target.path = path.clone();
                return Ok((target, there));
            }
            // What a link of /proc says is not where it leads, and may be no path at all.
            let (parent, name) = target.place();
            if let Err(error @ SysError { errno: errno::ELOOP, .. }) =
                open(parent, name, file::O_PATH)
            {
                return Err(fault(attempt, path, error));
            }
            match file::read_link(target.parent.as_fd(), &target.name) {
                Ok(link) => target = target.next(attempt, path, link.as_bytes())?,
                // Replaced since it was looked at: look again.
                Err(SysError { errno: errno::EINVAL | errno::ENOENT, .. }) => {}
                Err(error) => return Err(fault(attempt, path, error)),
            }
        }
        Err(fault(attempt, path, SysError { call: "readlinkat", errno: errno::ELOOP }))
    }

    /// What is there; none when nothing is.
    pub(super) fn look(&self, attempt: &str) -> Result<Option<Stat>, ApiError> {
        match file::stat(self.parent.as_fd(), &self.name) {
            Ok(stat) => Ok(Some(stat)),
            Err(SysError { errno: errno::ENOENT, .. }) => Ok(None),
            Err(error) => Err(fault(attempt, &self.path, error)),
        }
    }

    /// True when the path does not end in a name of its own, but in a slash, `.` or `..`.
    pub(super) fn is_nameless(&self) -> bool {
        matches!(self.name.as_bytes(), b"." | b"..")
    }

    /// The directory and the name, for the calls of [`mod@file`].
    pub(super) fn place(&self) -> (BorrowedFd<'_>, &CStr) {
        (self.parent.as_fd(), &self.name)
    }

    fn next(&self, attempt: &str, path: &FilePath, link: &[u8]) -> Result<Self, ApiError> {
        let (parent, name) = FilePath::new(link.to_vec())?.split();
        // A link without a slash has no directory part, and `split` takes the root's for it.
        let (parent, name) = if link.contains(&b'/') {
            (parent, name)
        } else {
            let name = CString::new(link).unwrap_or_else(|_zero| name.clone());
            (FilePath(c".".to_owned()), name)
        };
        let opened = open(self.parent.as_fd(), parent.as_c_str(), file::O_PATH | file::O_DIRECTORY);
        let parent = opened.map_err(|error| fault(attempt, path, error))?;
        Ok(Self { parent, name, path: path.clone() })
    }

    /// What is there, for an answer about it.
    pub(super) fn entry(&self, attempt: &str) -> Result<FileEntry, ApiError> {
        entry::tagged(self.parent.as_fd(), &self.name, self.path.as_bytes())
            .map_err(|error| fault(attempt, &self.path, error))
    }
}

/// Opens a file for reading, as `open`, and refuses what is not a regular file.
pub(super) fn open_file(attempt: &str, path: &FilePath) -> Result<(File, Stat), ApiError> {
    let refuse = |error| fault(attempt, path, error);
    let file = open(file::cwd(), path.as_c_str(), file::O_RDONLY).map_err(refuse)?;
    let stat = file::stat(file.as_fd(), c"").map_err(refuse)?;
    match stat.mode & file::S_IFMT {
        file::S_IFREG => Ok((file.into(), stat)),
        file::S_IFDIR => Err(refuse(SysError { call: "open", errno: errno::EISDIR })),
        _ => Err(refuse(SysError { call: "open", errno: errno::ENODEV })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: Result<FilePath, ApiError>) -> Result<String, ErrorCode> {
        path.map(|path| path.shown()).map_err(|error| error.code)
    }

    /// A path that is taken is absolute, has a length, no NUL and no empty component, and is read in one
    /// way: named again by its own bytes, it is the same.
    #[test]
    fn hostile_paths_are_refused_or_read_in_one_way() {
        let examples = [
            "/files/a/b",
            "/files/%2Fa/../b",
            "/files/./a//b/.",
            "/files/%25%00",
            "/files/\u{e9}%ff",
            "/files/..%2f..%2fproc/self/root",
        ];
        hostile::text(&examples, |url| {
            for base in [None, Some("/workspace"), Some("/")] {
                let Ok(path) = of_url(base, url) else { continue };
                let bytes = path.as_bytes();
                assert!(bytes.starts_with(b"/") && bytes.len() <= PATH_BYTES);
                assert!(!bytes.windows(2).any(|two| two == b"//"), "{bytes:?}");
                let encoded: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
                assert_eq!(of_url(None, &format!("/files/{encoded}")).unwrap(), path);
            }
            if let Ok(path) = absolute("/workspace", url) {
                assert!(path.as_bytes().starts_with(b"/"));
            }
        });
    }

    #[test]
    fn urls_name_absolute_paths() {
        for (url, path) in [
            ("/files/a/b", Ok("/a/b")),
            ("/files/a%20b%2Fc", Ok("/a b/c")),
            ("/files/%2Fa/../b", Ok("/a/../b")),
            ("/files/./a//b/.", Ok("/a/b/")),
            ("/files/.", Ok("/")),
            ("/files/a+b", Ok("/a+b")),
            ("/files/%25", Ok("/%")),
            ("/files/%2525", Ok("/%25")),
            ("/files/%", Err(ErrorCode::InvalidPath)),
            ("/files/%0", Err(ErrorCode::InvalidPath)),
            ("/files/%+1", Err(ErrorCode::InvalidPath)),
            ("/files/a%00b", Err(ErrorCode::InvalidPath)),
        ] {
            assert_eq!(text(of_url(None, url)), path.map(str::to_owned), "{url}");
        }
        assert_eq!(of_url(None, "/files/%ff").unwrap().as_bytes(), b"/\xff");
        for (url, path) in [
            ("/files/a/b", "/w/a/b"),
            ("/files/../a", "/w/../a"),
            ("/files//a", "/a"),
            ("/files/%2Fa", "/a"),
            ("/files/%2fa", "/a"),
        ] {
            assert_eq!(text(of_url(Some("/w"), url)), Ok(path.to_owned()), "{url}");
        }
        let longest = "x".repeat(PATH_BYTES - 1);
        assert!(of_url(None, &format!("/files/{longest}")).is_ok());
        assert!(of_url(None, &format!("/files/{longest}x")).is_err());
    }

    #[test]
    fn texts_are_relative_to_the_working_directory() {
        assert_eq!(text(absolute("/w", "a")), Ok("/w/a".to_owned()));
        assert_eq!(text(absolute("/", "a")), Ok("/a".to_owned()));
        assert_eq!(text(absolute("/w", "/a")), Ok("/a".to_owned()));
        assert_eq!(text(absolute("/w", "")), Err(ErrorCode::InvalidPath));
        assert_eq!(text(absolute("/w", "\0")), Err(ErrorCode::InvalidPath));
    }

    #[test]
    fn paths_split_at_their_last_slash() {
        for (path, parent, name) in
            [("/a/b", "/a/", c"b"), ("/a", "/", c"a"), ("/", "/", c"."), ("/a/", "/a/", c".")]
        {
            let (found, last) = absolute("/", path).unwrap().split();
            assert_eq!((&*found.shown(), &*last), (parent, name), "{path}");
        }
        assert_eq!(absolute("/", "/a/").unwrap().trimmed().shown(), "/a");
        assert_eq!(absolute("/", "//").unwrap().trimmed().shown(), "/");
    }

    #[test]
    fn what_belongs_to_the_agent_is_refused() {
        let own = std::process::id();
        for path in [
            "/proc/self/environ",
            "/proc/self/fd/0",
            "/proc/thread-self/mem",
            "/proc/self/exe",
            &format!("/proc/{own}/maps"),
            &format!("/proc/{own}/root/etc"),
        ] {
            let path = absolute("/", path).unwrap();
            let error = open(file::cwd(), path.as_c_str(), file::O_RDONLY).unwrap_err();
            assert!(matches!(error.errno, errno::EACCES | errno::ELOOP), "{path:?} {error}");
        }
        open(file::cwd(), c"/proc/version", file::O_RDONLY).unwrap();
    }
}
