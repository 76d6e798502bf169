//! Timings of one measure, and what is said of them.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::table::Table;

/// Timings of one measure, in milliseconds, as they were taken.
#[derive(Debug, Clone)]
pub(super) struct Samples {
    name: String,
    milliseconds: Vec<f64>,
    failures: usize,
    first_failure: Option<String>,
}

/// What is said of them. Absent when no attempt succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Samples {
    pub(super) fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { name, milliseconds: Vec::new(), failures: 0, first_failure: None }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The same under another name.
    pub(super) fn named(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }

    pub(super) fn milliseconds(&self) -> &[f64] {
        &self.milliseconds
    }

    pub(super) fn failures(&self) -> usize {
        self.failures
    }

    pub(super) fn first_failure(&self) -> Option<&str> {
        self.first_failure.as_deref()
    }

    /// Counts an attempt that began at `begin`: its time if it succeeded, the failure if not.
    pub(super) fn record<T, E: std::fmt::Display>(
        &mut self,
        begin: Instant,
        result: Result<T, E>,
    ) -> Option<T> {
        let elapsed = begin.elapsed();
        match result {
            Ok(value) => {
                self.push(elapsed);
                Some(value)
            }
            Err(error) => {
                self.take(Err(error));
                None
            }
        }
    }

    /// Counts an attempt that was timed elsewhere.
    pub(super) fn take<E: std::fmt::Display>(&mut self, result: Result<Duration, E>) {
        match result {
            Ok(took) => self.push(took),
            Err(error) => {
                self.failures += 1;
                // All of the chain, where there is one.
                self.first_failure.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }

    /// Those that failed included.
    pub(super) fn attempts(&self) -> usize {
        self.milliseconds.len() + self.failures
    }

    pub(super) fn push(&mut self, elapsed: Duration) {
        self.milliseconds.push(elapsed.as_secs_f64() * 1000.0);
    }

    /// What the quickest tenth took at most: what is the least disturbed by whatever else goes on. Absent when
    /// no attempt succeeded.
    pub(super) fn quick(&self) -> Option<f64> {
        let mut sorted = self.milliseconds.clone();
        sorted.sort_by(f64::total_cmp);
        percentile(&sorted, 10)
    }

    pub(super) fn summary(&self) -> Option<Summary> {
        let mut sorted = self.milliseconds.clone();
        sorted.sort_by(f64::total_cmp);
        Some(Summary {
            p50: percentile(&sorted, 50)?,
            p90: percentile(&sorted, 90)?,
            p99: percentile(&sorted, 99)?,
            max: *sorted.last()?,
        })
    }
}

/// The nearest rank: the smallest sample that at least `percent` of all are not above.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Measures as rows.
pub(super) fn table<'a>(
    heading: &str,
    measures: impl IntoIterator<Item = &'a Samples>,
) -> Table<7> {
    let mut table =
        Table::new([heading, "     p50", "     p90", "     p99", "     max", "runs", "failed"]);
    for samples in measures {
        let number = |value: f64| format!("{value:8.2}");
        let [p50, p90, p99, max] = match samples.summary() {
            Some(s) => [s.p50, s.p90, s.p99, s.max].map(number),
            None => std::array::from_fn(|_| format!("{:>8}", "-")),
        };
        let runs = samples.attempts();
        let failed = samples.failures().to_string();
        table.row([samples.name().to_owned(), p50, p90, p99, max, runs.to_string(), failed]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_at_their_rank() {
        let mut samples = Samples::new("x");
        for millis in (1..=200).rev() {
            samples.push(Duration::from_millis(millis));
        }
        assert_eq!(samples.quick(), Some(20.0));
        let summary = samples.summary().unwrap();
        assert_eq!(summary, Summary { p50: 100.0, p90: 180.0, p99: 198.0, max: 200.0 });
    }

    #[test]
    fn one_sample_is_all_percentiles_and_none_is_nothing() {
        let mut samples = Samples::new("x");
        assert_eq!(samples.summary(), None);
        samples.push(Duration::from_millis(5));
        assert_eq!(samples.summary(), Some(Summary { p50: 5.0, p90: 5.0, p99: 5.0, max: 5.0 }));
    }

    #[test]
    fn failures_are_counted_and_not_timed() {
        let mut samples = Samples::new("x");
        assert_eq!(samples.record(Instant::now(), Err::<(), _>("first")), None);
        assert_eq!(samples.record(Instant::now(), Err::<(), _>("second")), None);
        assert_eq!(samples.record(Instant::now(), Ok::<_, &str>(7)), Some(7));
        assert_eq!((samples.failures(), samples.first_failure()), (2, Some("first")));
        assert_eq!(samples.milliseconds().len(), 1);
    }
}
