use std::{path::Path, thread::JoinHandle};

use api::error::ErrorCode;
use futures_util::FutureExt;

use super::*;

/// Keys whose records are in `dir`.
struct Opened {
    keys: Keys,
    records: Records,
    work: TaskTracker,
    closing: CancellationToken,
    thread: JoinHandle<()>,
}

const LOCAL_SECRET: &str = "local-0123456789abcdef0123456789abcdef";

fn local() -> Keys {
    Keys::new(&Secret::new(LOCAL_SECRET).unwrap(), 5, 2)
}

fn open(dir: &Path) -> Opened {
    let (records, loaded, thread) = Records::open(&dir.join("db")).unwrap();
    let (keys, work, closing) = (local(), TaskTracker::new(), CancellationToken::new());
    let store = Store { records: records.clone(), work: work.clone(), closing: closing.clone() };
    keys.open(loaded.keys, store);
    Opened { keys, records, work, closing, thread }
}

impl Opened {
    fn close(self) {
        self.records.close();
        self.thread.join().unwrap();
    }

    async fn create(&self, name: &str, prefix: Option<&str>) -> String {
        self.keys.create(request(name, prefix)).await.unwrap().secret
    }
}

fn request(name: &str, prefix: Option<&str>) -> CreateKey {
    let scope = match prefix {
        None => KeyScope::Admin {},
        Some(prefix) => {
            KeyScope::Sandboxes { prefix: prefix.parse().unwrap(), max_sandboxes: None }
        }
    };
    CreateKey { name: name.parse().unwrap(), scope, expires_in_secs: None }
}

fn name(text: &str) -> KeyName {
    text.parse().unwrap()
}

fn found(keys: &Keys, secret: &str) -> Option<Arc<Key>> {
    match keys.find(secret.as_bytes()) {
        Presented::Key(key) => Some(key),
        Presented::Unknown => None,
        Presented::NotYet => panic!("the keys are open"),
    }
}

fn names(keys: &Keys) -> Vec<String> {
    keys.list().keys.into_iter().map(|key| key.name.into()).collect()
}

#[test]
fn before_the_records_are_read_local_alone_is_known_and_nobody_is_called_unknown() {
    let keys = local();

    assert!(
        matches!(keys.find(LOCAL_SECRET.as_bytes()), Presented::Key(key) if key.name().as_str() == "local")
    );
    for text in ["", "local", "sbk_anything"] {
        assert!(matches!(keys.find(text.as_bytes()), Presented::NotYet), "{text}");
    }
}

#[tokio::test]
async fn a_key_is_found_by_its_whole_secret_and_by_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let secret = opened.create("ci", Some("ci-")).await;

    let key = found(&opened.keys, &secret).unwrap();
    assert_eq!(key.name().as_str(), "ci");
    assert_eq!(key.scope().prefix().map(IdPrefix::as_str), Some("ci-"));
    for other in [
        secret.to_uppercase(),
        format!("{secret} "),
        secret[..secret.len() - 1].to_owned(),
        secret.trim_start_matches("sbk_").to_owned(),
        "ci".to_owned(),
        String::new(),
    ] {
        assert!(found(&opened.keys, &other).is_none(), "{other:?}");
    }
    opened.close();
}

#[tokio::test]
async fn keys_outlive_the_process_and_their_secrets_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let (kept, gone) = (opened.create("kept", None).await, opened.create("gone", None).await);
    opened.keys.remove(&name("gone")).await.unwrap();
    assert!(found(&opened.keys, &kept).is_some());
    opened.close();

    let opened = open(dir.path());
    assert_eq!(names(&opened.keys), ["kept", "local"]);
    assert!(found(&opened.keys, &kept).is_some());
    assert!(found(&opened.keys, &gone).is_none());
    opened.close();
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        for secret in [&kept, &gone] {
            let digits = secret.trim_start_matches("sbk_").as_bytes();
            assert!(!bytes.windows(digits.len()).any(|part| part == digits));
        }
    }
}

#[tokio::test]
async fn a_removed_key_opens_nothing_and_what_it_had_opened_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let secret = opened.create("ci", None).await;
    let other = opened.create("other", None).await;
    let key = found(&opened.keys, &secret).unwrap();
    let ended = key.ended();
    assert!(key.ended().now_or_never().is_none());

    opened.keys.remove(key.name()).await.unwrap();

    ended.now_or_never().expect("the end is told at once");
    assert!(found(&opened.keys, &secret).is_none());
    assert!(found(&opened.keys, &other).unwrap().ended().now_or_never().is_none());
    let again = opened.keys.remove(key.name()).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::KeyNotFound);
    // The name is free; the secret is not.
    let renewed = opened.create("ci", None).await;
    assert!(found(&opened.keys, &renewed).is_some() && found(&opened.keys, &secret).is_none());
    opened.close();
}

#[tokio::test]
async fn names_are_taken_once_and_local_always() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    opened.create("ci", None).await;

    for taken in ["ci", "local"] {
        let error = opened.keys.create(request(taken, None)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::KeyExists, "{taken}");
    }
    let error = opened.keys.remove(&name("local")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Forbidden);
    assert!(found(&opened.keys, LOCAL_SECRET).is_some());

    let same = (0..8).map(|_| opened.keys.create(request("same", None)));
    let made = futures_util::future::join_all(same).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1);
    for error in made.into_iter().filter_map(Result::err) {
        assert!(matches!(error.code, ErrorCode::ResourceBusy | ErrorCode::KeyExists), "{error}");
    }
    opened.close();
}

#[tokio::test]
async fn there_are_so_many_keys_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let all = (0..KEYS).map(|number| opened.keys.create(request(&format!("k{number}"), None)));
    assert!(futures_util::future::join_all(all).await.iter().all(Result::is_ok));

    let error = opened.keys.create(request("more", None)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::CapacityExceeded);
    opened.keys.remove(&name("k7")).await.unwrap();
    opened.create("more", None).await;
    opened.close();
}

#[tokio::test]
async fn a_change_goes_on_without_its_caller() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());

    // Polled once, which begins it, and dropped.
    assert!(opened.keys.create(request("ci", None)).now_or_never().is_none());
    opened.work.close();
    opened.work.wait().await;
    assert_eq!(names(&opened.keys), ["ci", "local"]);
    assert!(opened.keys.remove(&name("ci")).now_or_never().is_none());
    opened.work.wait().await;
    assert_eq!(names(&opened.keys), ["local"]);

    opened.closing.cancel();
    let error = opened.keys.create(request("late", None)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ShuttingDown);
    opened.close();
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let secret = opened.create("ci", None).await;
    opened.records.close();

    opened.keys.create(request("more", None)).await.unwrap_err();
    opened.keys.remove(&name("ci")).await.unwrap_err();

    assert_eq!(names(&opened.keys), ["ci", "local"]);
    assert!(found(&opened.keys, &secret).is_some());
    opened.close();
}

#[tokio::test]
async fn a_key_expires_for_new_requests_and_for_those_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    for secs in [0, KEY_EXPIRY_SECS + 1, u64::MAX] {
        let asked = CreateKey { expires_in_secs: Some(secs), ..request("ci", None) };
        let error = opened.keys.create(asked).await.unwrap_err();
        assert_eq!(error.details["field"], "expiresInSecs", "{secs}");
    }
    let long = CreateKey { expires_in_secs: Some(KEY_EXPIRY_SECS), ..request("long", None) };
    let long = opened.keys.create(long).await.unwrap();
    // Long enough for it to be found before its end, however long this machine takes to record it.
    let mut secs = 1;
    let (short, key) = loop {
        let asked = CreateKey { expires_in_secs: Some(secs), ..request("short", None) };
        let short = opened.keys.create(asked).await.unwrap();
        if let Some(key) = found(&opened.keys, &short.secret) {
            break (short, key);
        }
        opened.keys.remove(&name("short")).await.unwrap();
        secs *= 2;
    };
    let lasting = found(&opened.keys, &long.secret).unwrap();
    let end = short.key.created_at_ms + 1000 * i64::try_from(secs).unwrap();
    assert_eq!(short.key.expires_at_ms, Some(end));

    key.ended().await;

    // The timer may be a little ahead of the clock.
    while found(&opened.keys, &short.secret).is_some() {
        tokio::task::yield_now().await;
    }
    assert!(lasting.ended().now_or_never().is_none());
    // It stays in the list until it is removed, so that it can be told what became of it.
    assert_eq!(names(&opened.keys), ["local", "long", "short"]);
    opened.close();
    let opened = open(dir.path());
    assert!(found(&opened.keys, &short.secret).is_none());
    assert!(found(&opened.keys, &long.secret).is_some());
    opened.close();
}

#[tokio::test]
async fn the_last_use_is_kept_to_the_hour() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let secret = opened.create("ci", None).await;
    let used = |keys: &Keys| keys.list().keys[0].last_used_at_ms;
    assert_eq!(used(&opened.keys), None);

    let key = found(&opened.keys, &secret).unwrap();
    assert!(key.note_use().is_none_or(|at| at % USE_STEP_MS == 0));
    let at = used(&opened.keys).unwrap();
    assert!(at % USE_STEP_MS == 0 && (0..=USE_STEP_MS).contains(&(now_ms() - at)));
    opened.close();

    let opened = open(dir.path());
    assert_eq!(used(&opened.keys), Some(at));
    opened.close();
}

#[tokio::test]
async fn a_new_local_key_ends_the_old_one() {
    let keys = local();
    let Presented::Key(old) = keys.find(LOCAL_SECRET.as_bytes()) else { panic!("local is known") };
    let secret = Secret::generate().unwrap();

    let description = keys.replace_local(&secret);

    assert_eq!(description.name.as_str(), "local");
    assert!(description.created_at_ms > 5);
    old.ended().now_or_never().expect("the end is told at once");
    assert!(matches!(keys.find(LOCAL_SECRET.as_bytes()), Presented::NotYet));
    assert!(matches!(keys.find(secret.reveal().as_bytes()), Presented::Key(_)));
}

#[tokio::test]
async fn places_are_a_keys_own_and_admins_have_the_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let scoped = found(&opened.keys, &opened.create("ci", Some("ci-")).await).unwrap();
    let admin = found(&opened.keys, &opened.create("admin", None).await).unwrap();
    let node = Places::new(4, 1);

    // Two requests are what `local()` gives each key.
    let _held = [scoped.place(&node).unwrap(), scoped.place(&node).unwrap()];
    assert_eq!(scoped.place(&node).unwrap_err(), Full::Key);
    let _more = [admin.place(&node).unwrap(), admin.place(&node).unwrap()];
    assert_eq!(admin.place(&node).unwrap_err(), Full::Node);

    let node = Places::new(1, 0);
    let creation = By::Key(&scoped).creation(&node).unwrap();
    let error = By::Key(&scoped).creation(&node).unwrap_err();
    assert_eq!(error.code, ErrorCode::CapacityExceeded);
    drop(creation);
    let node = Places::new(2 * CREATES_PER_KEY, 0);
    let _all: Vec<_> =
        (0..CREATES_PER_KEY).map(|_| By::Key(&scoped).creation(&node).unwrap()).collect();
    let error = By::Key(&scoped).creation(&node).unwrap_err();
    assert_eq!(error.code, ErrorCode::TooManyRequests);
    assert_eq!(error.details["limit"], CREATES_PER_KEY);
    assert!(By::Key(&admin).creation(&node).is_ok());
    // Visitors have as many, among themselves.
    let visitors = Visitors::default();
    let _theirs: Vec<_> =
        (0..CREATES_PER_KEY).map_while(|_| By::Visitors(&visitors).creation(&node).ok()).collect();
    let error = By::Visitors(&visitors).creation(&node).unwrap_err();
    assert_eq!(error.code, ErrorCode::TooManyRequests);
    opened.close();
}
