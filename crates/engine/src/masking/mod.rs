//! Keeps secret values out of all that leaves the worker.
//!
//! - [`forms`]: in which forms a value is looked for: as it is, by lines, in base64, percent and JSON escapes;
//! - [`stream`]: masks bytes that come piece by piece, wherever they are cut;
//! - [`output`]: an attempt's two streams.
//!
//! Every byte that belongs to an occurrence of any form is masked, and each run of such bytes becomes `***`; so what
//! comes out doesn't depend on which of two overlapping secrets is found first. Values shorter than [`SHORTEST`] bytes,
//! and `true` and `false`, are not masked: they are no secrets, and a log without them would be none.

mod forms;
mod output;
mod stream;

use std::borrow::Cow;
use std::collections::BTreeSet;

use aho_corasick::AhoCorasick;

pub(crate) use output::OutputMasking;
pub(crate) use stream::MaskedStream;

/// What stands in the place of a secret.
pub(crate) const MASK: &str = "***";
/// The fewest bytes of a value, of a line of it or of an encoded form that are masked.
pub(crate) const SHORTEST: usize = 4;

/// Finds secret values.
#[derive(Debug)]
pub(crate) struct Masker {
    automaton: AhoCorasick,
    /// All forms, sorted: by it the beginnings of forms are found.
    forms: Vec<Vec<u8>>,
    longest: usize,
    /// Whether a form begins with the byte.
    begins: [bool; 256],
}

impl Masker {
    /// A masker of these values; `None` when there is nothing to mask.
    pub(crate) fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut forms = BTreeSet::new();
        for value in values {
            forms::of_value(value, &mut forms);
        }
        if forms.is_empty() {
            return None;
        }
        // The longer forms of one value contain shorter ones; all are needed, since they may stand alone.
        let forms: Vec<Vec<u8>> = forms.into_iter().collect();
        // It can't be built only from more patterns than fit a 31-bit number, of which this is far.
        let automaton = AhoCorasick::new(&forms).ok()?;
        let mut begins = [false; 256];
        for form in &forms {
            begins[usize::from(form[0])] = true;
        }
        let longest = forms.iter().map(Vec::len).max().unwrap_or(0);
        Some(Self { automaton, forms, longest, begins })
    }

    /// A whole text, masked.
    pub(crate) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.automaton.is_match(text) {
            return Cow::Borrowed(text);
        }
        let mut stream = MaskedStream::default();
        let mut out = Vec::new();
        stream.push(self, text.as_bytes(), &mut out);
        stream.end(&mut out);
        // Forms may cut characters only where base64 or a value's own bytes do, which are whole characters.
        Cow::Owned(String::from_utf8_lossy(&out).into_owned())
    }

    /// From where on the bytes at the end of `text` are the beginning of a form, and might become a whole one.
    fn unsure_from(&self, text: &[u8]) -> usize {
        let first = text.len().saturating_sub(self.longest - 1);
        (first..text.len())
            .find(|&start| self.begins[usize::from(text[start])] && self.begins_a_form(&text[start..]))
            .unwrap_or(text.len())
    }

    fn begins_a_form(&self, part: &[u8]) -> bool {
        // Of all forms that begin with `part` the first is the next after it in order; `part` itself is whole, not
        // a beginning, but a longer form may follow it.
        let after = self.forms.partition_point(|form| form.as_slice() <= part);
        self.forms.get(after).is_some_and(|form| form.starts_with(part))
    }

    /// Sets `covered` where `text` has an occurrence of a form.
    fn cover(&self, text: &[u8], covered: &mut [bool]) {
        // Occurrences come by their ends; those that touch become one, so that each byte is set once.
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for found in self.automaton.find_overlapping_iter(text) {
            let mut start = found.start();
            while let Some((earlier, _)) = runs.pop_if(|(_, end)| *end >= start) {
                start = start.min(earlier);
            }
            runs.push((start, found.end()));
        }
        for (start, end) in runs {
            covered[start..end].fill(true);
        }
    }
}
