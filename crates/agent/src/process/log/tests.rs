use OutputStream::{Stderr, Stdout};
use futures_util::FutureExt;

use super::*;

fn log(retention: Retention) -> Log {
    Log::new(retention, Arc::new(Budget::new(BUDGET_BYTES)))
}

/// Everything from `cursor` on, as `(stream, bytes)` with equal streams joined, and what is missing.
fn all(log: &Log, mut cursor: u64) -> (Vec<(OutputStream, Vec<u8>)>, u64) {
    let (mut runs, mut missing): (Vec<(OutputStream, Vec<u8>)>, u64) = (Vec::new(), 0);
    loop {
        let is_over = log.read(cursor, usize::MAX, |read| match read {
            Read::Bytes { stream, bytes, .. } => {
                cursor += bytes.len() as u64;
                match runs.last_mut() {
                    Some((last, run)) if *last == stream => run.extend_from_slice(bytes),
                    _ => runs.push((stream, bytes.to_vec())),
                }
                false
            }
            Read::Dropped(bytes) => {
                cursor += bytes;
                missing += bytes;
                false
            }
            Read::Event { .. } => panic!("nobody put one in"),
            Read::Pending | Read::End => true,
        });
        if is_over {
            return (runs, missing);
        }
    }
}

#[test]
fn any_cursor_leads_to_what_follows_it() {
    let log = log(Retention::Newest);
    for (stream, bytes) in [(Stdout, "ab"), (Stdout, "cd"), (Stderr, "ef"), (Stdout, "g")] {
        log.append(stream, bytes.into());
    }
    let whole = b"abcdefg";
    for cursor in 0..=7 {
        let (runs, missing) = all(&log, cursor);
        let bytes: Vec<u8> = runs.into_iter().flat_map(|(_, bytes)| bytes).collect();
        let start = usize::try_from(cursor).unwrap();
        assert_eq!((bytes.as_slice(), missing), (&whole[start..], 0), "{cursor}");
    }
    assert!(log.read(7, 1, |read| read == Read::Pending));
    log.close();
    assert!(log.read(7, 1, |read| read == Read::End));
    assert_eq!(log.tail(Stdout, 7, 3), b"cdg");
    assert_eq!(log.tail(Stdout, 3, 3), b"abc");
    assert_eq!(log.tail(Stderr, 4, 3), b"");
}

#[test]
fn the_newest_are_kept_and_the_rest_is_counted() {
    let log = log(Retention::Newest);
    let chunk = 32 * 1024;
    for number in 0..1024_usize {
        log.append(Stdout, vec![u8::try_from(number % 251).unwrap(); chunk]);
    }

    let state = log.describe();
    let (runs, missing) = all(&log, 0);

    let kept: usize = runs.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(state.next_cursor, 1024 * chunk as u64);
    assert_eq!(missing, state.dropped_bytes);
    assert_eq!(missing + kept as u64, state.next_cursor);
    assert!((LOG_BYTES - 2 * chunk..=LOG_BYTES).contains(&kept), "{kept}");
    assert_eq!(runs[0].1.last(), Some(&(u8::try_from(1023 % 251).unwrap())));
}

#[test]
fn many_small_writes_are_bounded_too() {
    let log = log(Retention::Newest);
    for number in 0..1_000_000 {
        log.append(if number % 2 == 0 { Stdout } else { Stderr }, vec![b'x']);
    }
    let state = log.state();
    assert!(state.weight <= LOG_BYTES);
    assert!(state.segments.len() * SEGMENT_OVERHEAD <= LOG_BYTES);
}

#[test]
fn the_oldest_are_kept_without_a_hole() {
    let log = log(Retention::Oldest);
    for _ in 0..17 {
        log.append(Stdout, vec![b'x'; 1024 * 1024]);
    }
    log.append(Stderr, b"late".to_vec());
    let (runs, missing) = all(&log, 0);
    assert_eq!(runs[1], (Stderr, b"late".to_vec()));
    assert_eq!((runs[0].1.len(), missing), (EXEC_OUTPUT_BYTES, 0));
    assert_eq!(log.describe().dropped_bytes, 1024 * 1024);
}

#[test]
fn a_spent_budget_leaves_each_log_its_free_part() {
    for retention in [Retention::Newest, Retention::Oldest] {
        let budget = Arc::new(Budget::new(0));
        let log = Log::new(retention, Arc::clone(&budget));
        for _ in 0..64 {
            log.append(Stdout, vec![b'x'; 4096]);
        }
        let (runs, missing) = all(&log, 0);
        let kept = runs.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        assert!((FREE_BYTES / 2..=FREE_BYTES).contains(&kept), "{retention:?} {kept}");
        assert_eq!(log.describe().dropped_bytes + kept as u64, 64 * 4096, "{missing}");
    }
}

#[test]
fn what_a_log_took_goes_back_to_the_budget() {
    let budget = Arc::new(Budget::new(BUDGET_BYTES));
    for retention in [Retention::Newest, Retention::Oldest, Retention::Unread { behind: 1 << 20 }] {
        let log = Log::new(retention, Arc::clone(&budget));
        for number in 1..=64_u64 {
            log.append(Stdout, vec![b'x'; 100_000]);
            log.advance(number * 50_000);
        }
        assert!(budget.0.load(Ordering::Relaxed) < BUDGET_BYTES);
        drop(log);
        assert_eq!(budget.0.load(Ordering::Relaxed), BUDGET_BYTES, "{retention:?}");
    }
}

#[tokio::test]
async fn a_writer_waits_for_its_reader_and_nothing_unread_is_dropped() {
    let log = log(Retention::Unread { behind: 10 });
    let ahead = usize::try_from(AHEAD_BYTES).unwrap();
    log.room().await;
    log.append(Stdout, vec![b'a'; ahead]);
    assert!(log.room().now_or_never().is_none());

    log.advance(100);

    log.room().await;
    let state = log.describe();
    assert_eq!(state.first_cursor, 0, "a segment goes whole");
    log.append(Stdout, vec![b'b'; ahead]);
    log.advance(AHEAD_BYTES + 10);
    assert_eq!(log.describe().first_cursor, AHEAD_BYTES);
    log.release();
    log.room().await;
}

#[tokio::test]
async fn a_reader_is_woken_by_bytes_and_by_the_end() {
    let log = Arc::new(log(Retention::Newest));
    let reader = tokio::spawn({
        let log = Arc::clone(&log);
        async move {
            log.readable(0).await;
            let first = log.read(0, 9, |read| matches!(read, Read::Bytes { bytes: b"x", .. }));
            log.readable(1).await;
            (first, log.read(1, 9, |read| read == Read::End))
        }
    });
    tokio::task::yield_now().await;
    log.append(Stdout, b"x".to_vec());
    tokio::task::yield_now().await;
    log.close();
    assert_eq!(reader.await.unwrap(), (true, true));
}

#[tokio::test]
async fn a_log_that_is_wanted_whole_waits_for_nobody() {
    let log = log(Retention::Unread { behind: RESUME_BYTES });
    log.append(Stdout, vec![b'a'; usize::try_from(AHEAD_BYTES).unwrap()]);
    assert!(log.room().now_or_never().is_none());

    log.keep_oldest();

    log.room().await;
    for _ in 0..EXEC_OUTPUT_BYTES / 65536 {
        log.append(Stdout, vec![b'b'; 65536]);
    }
    assert_eq!(log.describe().next_cursor, EXEC_OUTPUT_BYTES as u64);
    assert_eq!(log.refused(), AHEAD_BYTES);
}

#[test]
fn events_are_read_whole_between_the_bytes() {
    let log = log(Retention::Newest);
    log.append(Stdout, b"ab".to_vec());
    log.append_event(b"{}".to_vec(), false);
    log.append(Stdout, b"c".to_vec());
    log.close();
    let event = |cursor| {
        log.read(cursor, 1, |read| match read {
            Read::Event { text, length } => Some((text.map(<[u8]>::to_vec), length)),
            _ => None,
        })
    };
    assert_eq!(event(1), None);
    assert_eq!(event(2), Some((Some(b"{}".to_vec()), 2)));
    assert_eq!(event(3), Some((None, 1)), "a cursor inside an event leads to its end");
    assert_eq!(log.event(0), Some((b"{}".to_vec(), 4)));
    assert_eq!(log.event(4), None);
    assert_eq!(log.tail(Stdout, 5, 9), b"abc");
}

#[test]
fn an_event_is_kept_whole_or_not_at_all() {
    let log = log(Retention::Oldest);
    log.append_event(vec![b'a'; RUN_RESULTS_BYTES - 1], false);
    log.append_event(vec![b'b'; 2], false);
    log.append_event(vec![b'c'; 1], false);
    log.append_event(vec![b'd'; 2], true);
    assert_eq!(log.refused(), 3, "what comes after a refused event is refused too");
    let (_, next) = log.event(0).unwrap();
    assert_eq!(log.event(next).unwrap().0, b"dd");
}
