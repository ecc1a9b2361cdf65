//! What later expressions see of a step's output, kept only where one names it.

use executr_api::output::Stream;

/// The most bytes kept of a stream; what comes after them is not seen by expressions.
const MOST: usize = 1 << 20;

/// Two streams on their way into expressions.
#[derive(Debug, Default)]
pub(super) struct Capture {
    stdout: Option<Vec<u8>>,
    stderr: Option<Vec<u8>>,
}

impl Capture {
    /// Keeps the streams that are wanted.
    pub(super) fn of(stdout: bool, stderr: bool) -> Self {
        Self { stdout: stdout.then(Vec::new), stderr: stderr.then(Vec::new) }
    }

    /// Takes what was written next.
    pub(super) fn take(&mut self, stream: Stream, bytes: &[u8]) {
        let kept = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
            Stream::Gap | Stream::Mark => return,
        };
        if let Some(kept) = kept {
            let room = MOST.saturating_sub(kept.len());
            kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// Forgets what an earlier try wrote.
    pub(super) fn clear(&mut self) {
        for kept in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            kept.clear();
        }
    }

    /// What was written to each stream, without the newlines at its end.
    pub(super) fn texts(self) -> (Option<String>, Option<String>) {
        let text = |kept: Option<Vec<u8>>| {
            kept.map(|bytes| {
                let text = String::from_utf8_lossy(&bytes);
                text.trim_end_matches(['\n', '\r']).to_owned()
            })
        };
        (text(self.stdout), text(self.stderr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_kept_within_bounds() {
        let mut capture = Capture::of(true, false);
        capture.take(Stream::Stdout, b"first try");
        capture.clear();
        capture.take(Stream::Stdout, b"1.2\n\n");
        capture.take(Stream::Stderr, b"noise");
        assert_eq!(capture.texts(), (Some("1.2".to_owned()), None));
        let mut capture = Capture::of(true, true);
        capture.take(Stream::Stdout, &vec![b'x'; MOST - 1]);
        capture.take(Stream::Stdout, b"yz");
        let (stdout, stderr) = capture.texts();
        assert!(stdout.is_some_and(|text| text.len() == MOST && text.ends_with('y')));
        assert_eq!(stderr.as_deref(), Some(""));
    }
}
