//! What it means when git fails: its words, read as one of the API's codes.

use api::{
    error::{ApiError, ErrorCode},
    exec::Ending,
};

/// Words of git and of what it uses, with what they mean. The first that is found decides, so what
/// says more comes first. Git speaks English here: it is started with the locale C.
const WORDS: [(&str, ErrorCode); 43] = [
    ("no space left on device", ErrorCode::NoSpace),
    ("disk quota exceeded", ErrorCode::NoSpace),
    ("already exists and is not an empty directory", ErrorCode::DirectoryNotEmpty),
    ("ssh: not found", ErrorCode::CommandNotFound),
    ("ssh: command not found", ErrorCode::CommandNotFound),
    ("remote branch", ErrorCode::GitBranchNotFound),
    ("couldn't find remote ref", ErrorCode::GitBranchNotFound),
    ("not our ref", ErrorCode::GitBranchNotFound),
    ("unadvertised object", ErrorCode::GitBranchNotFound),
    ("reference is not a tree", ErrorCode::GitBranchNotFound),
    ("unable to read tree", ErrorCode::GitBranchNotFound),
    ("repository not found", ErrorCode::GitRepositoryNotFound),
    ("authentication failed", ErrorCode::GitAuthFailed),
    ("could not read username", ErrorCode::GitAuthFailed),
    ("could not read password", ErrorCode::GitAuthFailed),
    ("permission denied (", ErrorCode::GitAuthFailed),
    ("host key verification failed", ErrorCode::GitAuthFailed),
    ("returned error: 401", ErrorCode::GitAuthFailed),
    ("returned error: 403", ErrorCode::GitAuthFailed),
    ("returned error: 404", ErrorCode::GitRepositoryNotFound),
    ("not exported", ErrorCode::GitRepositoryNotFound),
    ("does not appear to be a git repository", ErrorCode::GitRepositoryNotFound),
    ("not found", ErrorCode::GitRepositoryNotFound),
    ("does not exist", ErrorCode::GitRepositoryNotFound),
    ("returned error:", ErrorCode::GitNetworkError),
    ("could not resolve host", ErrorCode::GitNetworkError),
    ("unable to look up", ErrorCode::GitNetworkError),
    ("failed to connect", ErrorCode::GitNetworkError),
    ("unable to connect", ErrorCode::GitNetworkError),
    ("couldn't connect", ErrorCode::GitNetworkError),
    ("connection refused", ErrorCode::GitNetworkError),
    ("connection reset", ErrorCode::GitNetworkError),
    ("connection timed out", ErrorCode::GitNetworkError),
    ("connection closed", ErrorCode::GitNetworkError),
    ("operation timed out", ErrorCode::GitNetworkError),
    ("operation too slow", ErrorCode::GitNetworkError),
    ("network is unreachable", ErrorCode::GitNetworkError),
    ("no route to host", ErrorCode::GitNetworkError),
    ("unable to access", ErrorCode::GitNetworkError),
    ("unable to update url base from redirection", ErrorCode::GitNetworkError),
    ("hung up unexpectedly", ErrorCode::GitNetworkError),
    ("early eof", ErrorCode::GitNetworkError),
    ("rpc failed", ErrorCode::GitNetworkError),
];

/// What git meant that ended as `ending` and said `lines`.
pub(super) fn code(ending: Ending, lines: &[String]) -> ErrorCode {
    match ending {
        Ending::Timeout => return ErrorCode::Timeout,
        Ending::DiskFull => return ErrorCode::NoSpace,
        _ => {}
    }
    // A server's own lines count only where git's say nothing: it could write anything.
    let is_remote = |line: &&String| line.starts_with("remote: ");
    let own = lines.iter().filter(|line| !is_remote(line));
    // That somebody else writes into the target, whose files are kept then, is git's alone to say.
    let all = || find(lines.iter()).filter(|code| *code != ErrorCode::DirectoryNotEmpty);
    find(own).or_else(all).unwrap_or(ErrorCode::GitCloneFailed)
}

fn find<'a>(lines: impl Iterator<Item = &'a String>) -> Option<ErrorCode> {
    let text = lines.map(|line| line.to_lowercase()).collect::<Vec<_>>().join("\n");
    WORDS.iter().find(|(words, _)| text.contains(words)).map(|(_, code)| *code)
}

/// The error for callers. `lines` are redacted already.
pub(super) fn fault(url: &str, ending: Ending, lines: &[String]) -> ApiError {
    let code = code(ending, lines);
    let why = match code {
        ErrorCode::Timeout => "its time was over; give it more with timeoutMs, or a depth",
        ErrorCode::NoSpace => "the disk is full",
        ErrorCode::DirectoryNotEmpty => "something else writes into the target directory",
        ErrorCode::CommandNotFound => {
            "there is no ssh in the sandbox; install openssh-client, or use https://"
        }
        ErrorCode::GitBranchNotFound => "it has no such branch, tag or commit",
        ErrorCode::GitRepositoryNotFound => {
            "there is no such repository, or none for these credentials"
        }
        ErrorCode::GitAuthFailed => {
            "the server wants credentials, or refused those it got; give them in `auth`"
        }
        ErrorCode::GitNetworkError => "the server could not be reached, or the connection broke",
        _ => match ending {
            Ending::OutOfMemory => "the sandbox's memory was used up",
            Ending::PidsLimit => "the sandbox has no process ids left",
            Ending::Killed { .. } => "it was killed",
            _ => "git failed",
        },
    };
    let own = lines.iter().rev().find(|line| line.starts_with("fatal: "));
    let said = own.or(lines.last()).map_or_else(String::new, |line| format!(": {line}"));
    ApiError::new(code, format!("cannot check out {url}: {why}{said}"))
        .with("repository", url)
        .with("exitCode", ending.exit_code())
        .with("stderr", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_s_words_have_their_codes() {
        for (said, expected) in [
            ("fatal: repository 'http://h/x/' not found", ErrorCode::GitRepositoryNotFound),
            (
                "fatal: '/x' does not appear to be a git repository",
                ErrorCode::GitRepositoryNotFound,
            ),
            (
                "fatal: remote error: access denied or repository not exported: /x",
                ErrorCode::GitRepositoryNotFound,
            ),
            (
                "fatal: could not read Username for 'http://h': terminal prompts disabled",
                ErrorCode::GitAuthFailed,
            ),
            ("fatal: Authentication failed for 'http://h/x/'", ErrorCode::GitAuthFailed),
            ("git@h: Permission denied (publickey).", ErrorCode::GitAuthFailed),
            (
                "fatal: unable to access 'http://h/x/': The requested URL returned error: 403",
                ErrorCode::GitAuthFailed,
            ),
            (
                "fatal: unable to access 'http://h/x/': The requested URL returned error: 302",
                ErrorCode::GitNetworkError,
            ),
            (
                "fatal: unable to access 'http://h/x/': Could not resolve host: h",
                ErrorCode::GitNetworkError,
            ),
            (
                "fatal: unable to access 'https://h/x/': server certificate verification failed",
                ErrorCode::GitNetworkError,
            ),
            ("fatal: Remote branch x not found in upstream origin", ErrorCode::GitBranchNotFound),
            ("fatal: couldn't find remote ref abc", ErrorCode::GitBranchNotFound),
            ("fatal: remote error: upload-pack: not our ref 11", ErrorCode::GitBranchNotFound),
            ("fatal: write error: No space left on device", ErrorCode::NoSpace),
            ("sh: 1: ssh: not found", ErrorCode::CommandNotFound),
            ("fatal: fetch-pack: invalid index-pack output", ErrorCode::GitCloneFailed),
        ] {
            let ending = Ending::Exited { code: 128 };
            assert_eq!(code(ending, &[said.to_owned()]), expected, "{said}");
        }
        assert_eq!(code(Ending::Timeout, &[]), ErrorCode::Timeout);
    }

    #[test]
    fn a_server_cannot_speak_for_git() {
        let ending = Ending::Exited { code: 128 };
        let lines = ["remote: No space left on device", "fatal: Authentication failed for 'x'"];
        assert_eq!(code(ending, &lines.map(str::to_owned)), ErrorCode::GitAuthFailed);
        let full = "x already exists and is not an empty directory";
        let lines = [&format!("remote: {full}"), "fatal: fetch-pack: invalid index-pack output"];
        assert_eq!(code(ending, &lines.map(str::to_owned)), ErrorCode::GitCloneFailed);
        assert_eq!(code(ending, &[format!("fatal: {full}")]), ErrorCode::DirectoryNotEmpty);
        let lines = ["remote: Repository not found.", "fatal: something new"];
        assert_eq!(code(ending, &lines.map(str::to_owned)), ErrorCode::GitRepositoryNotFound);
    }
}
