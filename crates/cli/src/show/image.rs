//! How far an image has come: a line that changes on a terminal, a line for each thing that happened in a pipe.

use std::sync::Mutex;
use std::sync::PoisonError;

use executr_images::{Sent, Update};

use super::progress::Progress;
use super::time::amount;

/// Shows how an image is pulled, built or pushed.
#[derive(Debug)]
pub(crate) struct ImageProgress {
    what: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    progress: Progress,
    /// Bytes that travel, and those that have.
    total: u64,
    done: u64,
    sizes: Vec<(executr_spec::Digest, u64)>,
}

impl ImageProgress {
    pub(crate) fn new(what: String) -> Self {
        let progress = Progress::of_bytes(&what, 0);
        Self { what, state: Mutex::new(State { progress, total: 0, done: 0, sizes: Vec::new() }) }
    }

    /// A line that stays.
    pub(crate) fn say(&self, text: &str) {
        self.with(|state| state.progress.say(text));
    }

    /// What was pushed.
    pub(crate) fn sent(&self, sent: &Sent) {
        let Sent { blobs, bytes, mounted, .. } = sent;
        self.say(&format!("sent {blobs} blobs, {}; {mounted} were in another repository there", amount(*bytes)));
    }

    fn with(&self, work: impl FnOnce(&mut State)) {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl executr_images::Progress for ImageProgress {
    fn update(&self, update: Update<'_>) {
        self.with(|state| match update {
            Update::Resolved { layers, .. } => {
                state.sizes = layers.to_vec();
                state.total = layers.iter().map(|(_, size)| size).sum();
                state.done = 0;
                let text = format!("{}: {} layers, {}", self.what, layers.len(), amount(state.total));
                state.progress.say_in_pipe(&text);
            }
            Update::Moved { bytes, .. } => {
                state.done += bytes;
                state.progress.reach(state.done.min(state.total), state.total);
            }
            Update::Done { layer, was_there } => {
                let size = state.sizes.iter().find(|(digest, _)| *digest == layer).map_or(0, |(_, size)| *size);
                if was_there {
                    state.done += size;
                    state.progress.reach(state.done.min(state.total), state.total);
                }
                let how = if was_there { "was there" } else { "done" };
                state.progress.say_in_pipe(&format!("layer {}: {how}", &layer.to_string()[..12]));
            }
            Update::Again { why } => state.progress.say(&format!("trying again: {why}")),
        });
    }
}
