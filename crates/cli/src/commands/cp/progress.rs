//! How far a copy has come, on one line of the terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::Output;

/// Between two frames.
const FRAME: Duration = Duration::from_millis(120);

/// Counts, and shows the counts where somebody looks. Clones show on the same line.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn new(out: Output) -> Self {
        if !out.shows_progress() {
            return Self { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::new_spinner();
        let template = "{spinner} {msg}{binary_bytes}  {binary_bytes_per_sec}  {elapsed}";
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_fault| ProgressStyle::default_spinner());
        bar.set_style(style);
        bar.enable_steady_tick(FRAME);
        Self { bar }
    }

    /// Bytes have arrived on the other side, or are under way to it.
    pub(super) fn bytes(&self, count: usize) {
        self.bar.inc(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// So many files are done.
    pub(super) fn files(&self, count: u64) {
        self.bar.set_message(format!("{count} files  "));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
