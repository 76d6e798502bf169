//! A real git server for tests, in the sandbox that checks out from it.

use serde_json::{Value, json};

use crate::{Answer, Server};

/// Sandbox `s` with a repository, `repo.git`: three commits on `main`, the tag `v1` on the second,
/// the branch `dev` on the first and one commit, `lost`, that is on none; an `empty.git`; and a
/// server of them. The first part of a URL's path says how the server behaves, as `git.py` has it.
#[derive(Debug)]
pub struct Git {
    /// The server of the sandbox.
    pub server: Server,
    /// The port of the git server, on the sandbox's loopback.
    pub port: String,
    /// The password and the token for what is private; the user is `user`. No other test has it.
    pub secret: String,
}

impl Git {
    /// Makes the sandbox, the repositories and the git server.
    ///
    /// # Panics
    /// When one of them cannot be made.
    pub async fn start(server: Server) -> Self {
        let secret = format!("t0k+n/{}", server.slot().name());
        server.put("/v1/sandboxes/s/files/srv/git/secret", secret.clone()).await;
        server.put("/v1/sandboxes/s/files/srv/git/git.py", include_str!("git.py")).await;
        let make = "set -e; cd /srv/git; export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b \
            GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b; git init -q -b main src; cd src; \
            for i in 1 2 3 4; do echo $i > file; git add file; git commit -qm c$i; done; \
            git tag lost; git reset -q --hard HEAD~1; git tag v1 HEAD~1; git branch dev HEAD~2; \
            git clone -q --bare . ../repos/repo.git; cd ../repos/repo.git; \
            git config uploadpack.allowAnySHA1InWant true; git tag -d lost >&2; \
            git init -q --bare ../empty.git; cd /srv/git; \
            (setsid python3 git.py /srv/git >/srv/git/log 2>&1 &); \
            for i in $(seq 6000); do [ -e port ] && exec cat port; sleep 0.01; done; cat log; exit 1";
        let port = server.shell("s", make).await.trim().to_owned();
        Self { server, port, secret }
    }

    /// The URL of `path` on the git server.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Runs a shell text in the sandbox and returns its stdout.
    ///
    /// # Panics
    /// When it fails.
    pub async fn shell(&self, command: &str) -> String {
        self.server.shell("s", command).await
    }

    /// Asks for a checkout of `path` on the git server, with the fields `more`.
    ///
    /// # Panics
    /// When no response comes.
    pub async fn checkout(&self, path: &str, more: Value) -> Answer {
        self.ask(&self.url(path), more).await
    }

    /// Asks for a checkout of `url`, with the fields `more`.
    ///
    /// # Panics
    /// When no response comes, or `more` is no object.
    pub async fn ask(&self, url: &str, more: Value) -> Answer {
        let mut body = json!({ "url": url });
        let more = more.as_object().cloned().expect("fields are an object");
        body.as_object_mut().expect("it is an object").extend(more);
        self.server.post("/v1/sandboxes/s/git/checkout", &body).await
    }

    /// Waits until the git server holds a request back.
    ///
    /// # Panics
    /// When it does not for a minute.
    pub async fn until_held(&self) {
        let held =
            "for i in $(seq 6000); do [ -e /srv/git/waiting ] && exit; sleep 0.01; done; exit 1";
        self.shell(held).await;
    }

    /// Has the git server refuse what it held back.
    ///
    /// # Panics
    /// When the file cannot be written that says so.
    pub async fn release(&self) {
        let released = self.server.put("/v1/sandboxes/s/files/srv/git/released", "").await;
        assert!(released.status < 300, "{}", released.text);
    }

    /// The id of a commit by its name in the repository.
    ///
    /// # Panics
    /// When there is none.
    pub async fn commit(&self, name: &str) -> String {
        self.shell(&format!("git -C /srv/git/src rev-parse {name}")).await.trim().to_owned()
    }
}
