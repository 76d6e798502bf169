//! Where a repository is, who asks for it, and what of that is never shown.
//!
//! Git takes many things for a repository: options, commands (`ext::`), names of remote helpers.
//! Here it gets one of six forms, and never a user or a password of HTTP.

use api::{
    error::{ApiError, ErrorCode},
    git::{GitAuth, GitHeader},
    limit::GIT_TEXT_BYTES,
};
use base64::{Engine, prelude::BASE64_STANDARD};

/// The user for a token that comes without one.
const TOKEN_USER: &str = "x-access-token";

/// What stands in place of a secret.
const HIDDEN: &str = "***";

/// A checked repository.
pub(super) struct Remote {
    /// As git gets it, stores it and shows it.
    pub(super) url: String,
    /// Its name, for the directory.
    pub(super) name: String,
    /// The server that credentials are for, as `https://host:port`; none for other schemes.
    pub(super) server: Option<String>,
    pub(super) credentials: Option<Credentials>,
    secrets: Vec<String>,
}

/// What the server is shown.
#[derive(PartialEq, Eq)]
pub(super) enum Credentials {
    Password { username: String, password: String },
    Header { name: String, value: String },
}

impl Remote {
    /// Checks a request's URL and credentials.
    pub(super) fn new(url: &str, auth: Option<GitAuth>) -> Result<Self, ApiError> {
        if url.len() > GIT_TEXT_BYTES {
            let text = format!("a URL has at most {GIT_TEXT_BYTES} bytes");
            return Err(ApiError::new(ErrorCode::InvalidGitUrl, text).with("limit", GIT_TEXT_BYTES));
        }
        if url.is_empty() || url.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(no_url("it is empty, or has white space or control characters in it"));
        }
        let Parsed { url, path, server, user } = parse(url).map_err(no_url)?;
        // The directory of a work tree is named by where that is.
        let path = path.trim_end_matches('/');
        let path = path.strip_suffix("/.git").unwrap_or(path).trim_end_matches('/');
        let name = path.rsplit(['/', ':']).next().unwrap_or_default();
        let name = name.strip_suffix(".git").unwrap_or(name);
        if matches!(name, "" | "." | "..") {
            return Err(no_url("it names no repository"));
        }
        let name = name.to_owned();
        let mut remote = Self { url, name, server, credentials: None, secrets: Vec::new() };
        match (auth, user) {
            (None, None) => {}
            (None, Some((username, password))) => {
                // A token may stand where the user does.
                let is_token = password.is_empty();
                remote.use_password(&username, &password, is_token)?;
            }
            (Some(_), Some(_)) => {
                return Err(bad_auth("give credentials in the URL or in `auth`, not in both"));
            }
            (Some(auth), None) => remote.take(auth)?,
        }
        Ok(remote)
    }

    fn take(&mut self, auth: GitAuth) -> Result<(), ApiError> {
        if self.server.is_none() {
            return Err(bad_auth(
                "credentials are for http:// and https:// only; ssh has its keys",
            ));
        }
        match auth {
            GitAuth { username: None, password: None, header: Some(header) } => {
                self.use_header(header)
            }
            GitAuth { username, password: Some(password), header: None } => {
                self.use_password(username.as_deref().unwrap_or(TOKEN_USER), &password, false)
            }
            _ => {
                Err(bad_auth("give a password (or token), with or without a username, or a header"))
            }
        }
    }

    fn use_password(
        &mut self,
        username: &str,
        password: &str,
        is_user_secret: bool,
    ) -> Result<(), ApiError> {
        check_text("username", username)?;
        check_text("password", password)?;
        self.hide(password);
        if is_user_secret {
            self.hide(username);
        }
        self.secrets.push(BASE64_STANDARD.encode(format!("{username}:{password}")));
        let (username, password) = (username.to_owned(), password.to_owned());
        self.credentials = Some(Credentials::Password { username, password });
        Ok(())
    }

    fn use_header(&mut self, GitHeader { name, value }: GitHeader) -> Result<(), ApiError> {
        let is_name = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !is_name {
            return Err(bad_auth("the name of a header is letters, digits, - and _"));
        }
        check_text("name", &name)?;
        check_text("value", &value)?;
        self.hide(&value);
        if let Some((_, token)) = value.trim_end().rsplit_once(' ') {
            self.hide(token);
        }
        self.credentials = Some(Credentials::Header { name, value });
        Ok(())
    }

    /// Notes a secret, as it is and as it stands in a URL.
    fn hide(&mut self, secret: &str) {
        self.secrets.extend([secret.to_owned(), encode(secret)]);
    }

    /// `text`, whose rest was dropped, without a secret that was begun at its end.
    pub(super) fn uncut<'a>(&self, text: &'a str) -> &'a str {
        let begun = |secret: &String| {
            let is_begun = |end: &usize| text.as_bytes().ends_with(&secret.as_bytes()[..*end]);
            (1..secret.len().min(text.len() + 1)).rev().find(is_begun)
        };
        let begun = self.secrets.iter().filter_map(begun).max().unwrap_or(0);
        text.get(..text.len() - begun).unwrap_or_default()
    }

    /// `text` without secrets, also without users and passwords in URLs that others have put there.
    pub(super) fn redact(&self, text: &str) -> String {
        let mut secrets: Vec<&String> = self.secrets.iter().filter(|s| !s.is_empty()).collect();
        // The longest first, so that no rest of one stays.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let text =
            secrets.iter().fold(text.to_owned(), |text, secret| text.replace(&**secret, HIDDEN));
        let mut parts = text.split("://");
        let mut shown = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part.find(|c: char| c.is_whitespace() || "/'\"".contains(c));
            let (authority, rest) = part.split_at(end.unwrap_or(part.len()));
            let host = authority.rsplit_once('@').map(|(_, host)| host);
            shown.push_str("://");
            if let Some(host) = host {
                shown.push_str(HIDDEN);
                shown.push('@');
                shown.push_str(host);
            } else {
                shown.push_str(authority);
            }
            shown.push_str(rest);
        }
        shown
    }
}

fn no_url(why: &str) -> ApiError {
    let text = format!(
        "the URL is none that git can clone from: {why}; use https://, http://, git://, ssh://, \
         user@host:path, file:// or an absolute path in the sandbox"
    );
    ApiError::new(ErrorCode::InvalidGitUrl, text).with("field", "url")
}

fn bad_auth(text: &str) -> ApiError {
    ApiError::new(ErrorCode::ValidationFailed, text).with("field", "auth")
}

/// Git's own protocol for credentials is lines, and HTTP's is too.
fn check_text(field: &str, text: &str) -> Result<(), ApiError> {
    if text.len() > GIT_TEXT_BYTES || text.contains(char::is_control) {
        let text =
            format!("auth: {field} has at most {GIT_TEXT_BYTES} bytes and no control characters");
        return Err(bad_auth(&text));
    }
    Ok(())
}

/// A URL taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    url: String,
    path: String,
    server: Option<String>,
    /// User and password of HTTP.
    user: Option<(String, String)>,
}

fn parse(url: &str) -> Result<Parsed, &'static str> {
    if url.starts_with('-') {
        return Err("it begins with a dash, as options do");
    }
    let plain = |url: String, path: &str| {
        Ok(Parsed { url, path: path.to_owned(), server: None, user: None })
    };
    if let Some((scheme, rest)) = url.split_once("://") {
        let split = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(split);
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        return match scheme.to_ascii_lowercase().as_str() {
            "file" if authority.is_empty() => plain(url.to_owned(), path),
            "file" => Err("file:// is followed by an absolute path"),
            _ if !is_host(host) => Err("it has no host, or none that is a name or an address"),
            scheme @ ("http" | "https") => http(scheme, user, host, path),
            "git" if user.is_some() => Err("git:// takes no user"),
            "git" => plain(url.to_owned(), path),
            "ssh" => match user {
                Some(user) if user.contains(':') => Err("ssh takes no password, but keys"),
                Some(user) if !is_user(user) => Err("its user is none"),
                _ => plain(url.to_owned(), path),
            },
            _ => Err("its scheme is not taken"),
        };
    }
    if url.starts_with('/') {
        // As a URL, so that git copies and does not link, and takes `depth`.
        return plain(format!("file://{}", url.replace('%', "%25")), url);
    }
    match url.split_once(':') {
        Some((host, path)) if !host.contains('/') => {
            let (user, host) = host.rsplit_once('@').unwrap_or(("git", host));
            // `ext::` and its like are names of programs.
            if path.starts_with([':', '-']) || !is_host(host) || !is_user(user) {
                return Err("it is not user@host:path");
            }
            plain(url.to_owned(), path)
        }
        _ => Err("it has no scheme"),
    }
}

fn http(scheme: &str, user: Option<&str>, host: &str, path: &str) -> Result<Parsed, &'static str> {
    const MALFORMED: &str = "its user or password is not percent-encoded";
    let user = match user {
        None => None,
        Some(user) => {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            Some((decode(user).ok_or(MALFORMED)?, decode(password).ok_or(MALFORMED)?))
        }
    };
    let server = format!("{scheme}://{host}");
    Ok(Parsed { url: format!("{server}{path}"), path: path.to_owned(), server: Some(server), user })
}

/// A name, an IPv4 address or an IPv6 address in brackets, perhaps with a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => match port.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let is_address = text.starts_with('[') && host.parse::<std::net::Ipv6Addr>().is_ok();
    let is_name = !text.starts_with(['[', '-']) && host.bytes().all(is_allowed);
    !host.is_empty()
        && (is_address || is_name)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_user(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._+".contains(&b);
    !text.is_empty() && !text.starts_with('-') && text.bytes().all(is_allowed)
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, tail) = tail.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(url: &str) -> Remote {
        Remote::new(url, None).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn the_forms_that_are_taken() {
        for (url, given, name) in [
            ("https://h/a/b.git", "https://h/a/b.git", "b"),
            ("HTTP://h:80/b/", "http://h:80/b/", "b"),
            ("https://u:p%40@h.x-y_z/b", "https://h.x-y_z/b", "b"),
            ("http://[::1]:8080/b", "http://[::1]:8080/b", "b"),
            ("git://h/b.git", "git://h/b.git", "b"),
            ("ssh://git@h:22/a/b", "ssh://git@h:22/a/b", "b"),
            ("git@h:a/b.git", "git@h:a/b.git", "b"),
            ("h:b", "h:b", "b"),
            ("file:///a/b", "file:///a/b", "b"),
            ("/a/100%", "file:///a/100%25", "100%"),
            ("/a/b/.git", "file:///a/b/.git", "b"),
            ("https://h/b/.git/", "https://h/b/.git/", "b"),
        ] {
            let remote = remote(url);
            assert_eq!((remote.url.as_str(), remote.name.as_str()), (given, name), "{url}");
        }
    }

    #[test]
    fn hostile_forms_are_refused() {
        for url in [
            "",
            "--upload-pack=touch /tmp/x",
            "-u./x",
            "ext::sh -c id",
            "ext::sh",
            "fd::17",
            "http::http://h/x",
            "foo://h/x",
            "ftp://h/x",
            "https://",
            "https:///x",
            "https://h",
            "https://h/",
            "https://h/..",
            "https://h/.git",
            "https://h/../.git",
            "https://h y/x",
            "https://-h/x",
            "https://h:99999/x",
            "https://h:/x",
            "https://u@/x",
            "https://%zz@h/x",
            "https://h\n/x",
            "https://h/\u{0}x",
            "ssh://-oProxyCommand=id/x",
            "ssh://-oProxyCommand=id@h/x",
            "ssh://u:p@h/x",
            "ssh://h:-oProxyCommand=id/x",
            "-oProxyCommand=id:x",
            "u@-oProxyCommand=id:x",
            "h:-x",
            "git://u@h/x",
            "git://h:-1/x",
            "file://host/x",
            "file://",
            "relative/path",
            "github.com/a/b",
            "a b",
            &format!("https://h/{}", "x".repeat(GIT_TEXT_BYTES)),
        ] {
            let refused = Remote::new(url, None).err().map(|error| error.code);
            assert_eq!(refused, Some(ErrorCode::InvalidGitUrl), "{url:?}");
        }
    }

    #[test]
    fn credentials_come_from_one_place_and_go_to_one_server() {
        let password = |username: Option<&str>, password: &str| GitAuth {
            username: username.map(str::to_owned),
            password: Some(password.to_owned()),
            header: None,
        };
        let header = |name: &str, value: &str| GitAuth {
            header: Some(GitHeader { name: name.to_owned(), value: value.to_owned() }),
            ..GitAuth::default()
        };
        let of = |url: &str, auth| Remote::new(url, auth).map(|remote| remote.credentials);
        let expected = |username: &str, password: &str| {
            let (username, password) = (username.to_owned(), password.to_owned());
            Some(Credentials::Password { username, password })
        };
        assert!(of("https://u:p%40%3a@h/x", None).unwrap() == expected("u", "p@:"));
        assert!(of("https://token@h/x", None).unwrap() == expected("token", ""));
        assert!(of("https://h/x", Some(password(None, "t"))).unwrap() == expected(TOKEN_USER, "t"));
        assert!(of("https://h/x", Some(password(Some("u"), "t"))).unwrap() == expected("u", "t"));
        assert!(of("https://h/x", Some(header("X-Token", "a b"))).unwrap().is_some());
        assert_eq!(remote("https://u:p@h:8443/x").server.as_deref(), Some("https://h:8443"));
        for (url, auth) in [
            ("https://u@h/x", password(None, "t")),
            ("ssh://h/x", password(None, "t")),
            ("/x", password(None, "t")),
            ("https://h/x", GitAuth::default()),
            ("https://h/x", password(Some("u\nhost=evil"), "t")),
            ("https://h/x", password(None, "t\n")),
            ("https://h/x", password(None, &"t".repeat(GIT_TEXT_BYTES + 1))),
            ("https://h/x", header("X:", "a")),
            ("https://h/x", header("", "a")),
            ("https://h/x", header("X", "a\r\nY: b")),
            ("https://h/x", GitAuth { header: header("X", "a").header, ..password(None, "t") }),
        ] {
            let refused = of(url, Some(auth)).err().map(|error| error.code);
            assert_eq!(refused, Some(ErrorCode::ValidationFailed), "{url}");
        }
    }

    #[test]
    fn no_form_of_a_secret_is_shown() {
        let remote = remote("https://me:p%40ss%20word@h/x");
        for text in [
            "p@ss word",
            "p%40ss%20word",
            "at https://me:p%40ss%20word@h/x: no",
            "at https://other:else@h2/x",
            "Basic bWU6cEBzcyB3b3Jk",
        ] {
            let shown = remote.redact(text);
            let secrets = ["p@ss", "p%40ss", "else", "bWU6cEBzcyB3b3Jk"];
            assert!(!secrets.iter().any(|secret| shown.contains(secret)), "{shown}");
        }
        assert_eq!(remote.redact("fatal: https://h/x: no"), "fatal: https://h/x: no");
        let token = Remote::new("https://sometoken@h/x", None).unwrap();
        assert_eq!(token.redact("sometoken"), "***");
        let auth = GitAuth {
            header: Some(GitHeader { name: "A".to_owned(), value: "Bearer abc".to_owned() }),
            ..GitAuth::default()
        };
        let header = Remote::new("https://h/x", Some(auth)).unwrap();
        assert_eq!(header.redact("got abc, A: Bearer abc"), "got ***, A: ***");
        for (cut, shown) in [
            ("got Bearer ab", "got "),
            ("got a", "got "),
            ("Bearer a", ""),
            ("got Bearer abc", "got Bearer abc"),
            ("got it", "got it"),
            ("", ""),
        ] {
            assert_eq!(header.uncut(cut), shown);
        }
    }

    #[test]
    fn hostile_urls_are_refused_or_no_option_and_no_program() {
        let examples = [
            "https://me:p%40ss@h.example:8443/x.git?a#b",
            "ssh://git@h/x",
            "git@h:x/y.git",
            "file:///srv/x",
            "/srv/100%",
            "ext::sh -c id",
            "--upload-pack=id",
            "git://[::1]/x",
        ];
        hostile::text(&examples, |text| {
            if let Ok(remote) = Remote::new(text, None) {
                drop(remote.redact(text));
                let url = parse(text).expect("it was taken").url.to_ascii_lowercase();
                let schemes = ["http://", "https://", "git://", "ssh://", "file:///"];
                let is_known = schemes.iter().any(|scheme| url.starts_with(scheme));
                let names_a_program = url.split_once(':').is_some_and(|(_, p)| p.starts_with(':'));
                assert!(is_known || !(url.starts_with('-') || names_a_program), "{url}");
            }
        });
    }
}
