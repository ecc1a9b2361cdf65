//! An attempt's two streams on their way through a masker into its output.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executr_api::output::Stream;
use tokio::time::Instant;

use super::{MaskedStream, Masker};
use crate::output::OutputFeed;

/// After so long without output what was held back and may be shown is shown.
const QUIET: Duration = Duration::from_millis(200);

/// The streams, and what is masked in them. Without anything to mask it costs nothing.
#[derive(Debug, Default)]
pub(crate) struct OutputMasking {
    masker: Option<Arc<Masker>>,
    stdout: MaskedStream,
    stderr: MaskedStream,
    quiet_at: Option<Instant>,
    out: Vec<u8>,
}

impl OutputMasking {
    /// From now on masks with this. Only between steps.
    pub(crate) fn mask_with(&mut self, masker: Option<Arc<Masker>>) {
        self.masker = masker;
    }

    /// Takes what was written next.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &Bytes, feed: &mut OutputFeed) {
        let Some(masker) = &self.masker else { return feed.push(stream, bytes) };
        let masked = if stream == Stream::Stderr { &mut self.stderr } else { &mut self.stdout };
        masked.push(masker, bytes, &mut self.out);
        let little = self.stdout.is_holding_little() || self.stderr.is_holding_little();
        self.quiet_at = little.then(|| Instant::now() + QUIET);
        self.flush(stream, feed);
    }

    /// Whether something is held back that may be shown when nothing follows.
    pub(crate) fn waits_for_quiet(&self) -> bool {
        self.quiet_at.is_some()
    }

    /// Waits until nothing has followed for long enough.
    pub(crate) async fn quiet(&self) {
        match self.quiet_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Shows it.
    pub(crate) fn let_go(&mut self, feed: &mut OutputFeed) {
        self.quiet_at = None;
        self.stdout.quiet(&mut self.out);
        self.flush(Stream::Stdout, feed);
        self.stderr.quiet(&mut self.out);
        self.flush(Stream::Stderr, feed);
    }

    /// A step ended: nothing follows.
    pub(crate) fn end(&mut self, feed: &mut OutputFeed) {
        if self.masker.is_none() {
            return;
        }
        self.quiet_at = None;
        self.stdout.end(&mut self.out);
        self.flush(Stream::Stdout, feed);
        self.stderr.end(&mut self.out);
        self.flush(Stream::Stderr, feed);
    }

    /// A text for people or for other jobs, masked.
    pub(crate) fn text(&self, text: String) -> String {
        match &self.masker {
            Some(masker) => masker.text(&text).into_owned(),
            None => text,
        }
    }

    fn flush(&mut self, stream: Stream, feed: &mut OutputFeed) {
        if !self.out.is_empty() {
            feed.push(stream, &Bytes::copy_from_slice(&self.out));
            self.out.clear();
        }
    }
}
