//! How far something has come: a line that changes on a terminal, plain lines in a pipe. Always on standard error.

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressStyle};

/// Something that goes on.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Bytes that are moved.
    pub(crate) fn of_bytes(what: &str, total: u64) -> Self {
        Self::start(what, total, "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}")
    }

    /// Things that end one by one.
    pub(crate) fn of_things(what: &str, total: u64) -> Self {
        Self::start(what, total, "{spinner} {msg} {pos}/{len} {elapsed}")
    }

    fn start(what: &str, total: u64, template: &str) -> Self {
        if !io::stderr().is_terminal() {
            return Self { bar: None };
        }
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total).with_message(what.to_owned()).with_style(style);
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        Self { bar: Some(bar) }
    }

    /// So much more is done.
    pub(crate) fn advance(&self, by: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(by);
        }
    }

    /// So much is done of what is known by now.
    pub(crate) fn reach(&self, done: u64, of: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(of);
            bar.set_position(done);
        }
    }

    /// Writes something else meanwhile.
    pub(crate) fn beside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Says something on standard error, above what changes there.
    pub(crate) fn say(&self, text: &str) {
        // A standard error that is gone is no reason to stop.
        self.beside(|| drop(writeln!(io::stderr(), "{text}")));
    }

    /// Says on standard error what a terminal shows anyway.
    pub(crate) fn say_in_pipe(&self, text: &str) {
        if self.bar.is_none() {
            // A standard error that is gone is no reason to stop.
            drop(writeln!(io::stderr(), "{text}"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
