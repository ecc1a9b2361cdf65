//! Masks bytes that come piece by piece.
//!
//! Only bytes that may be the beginning of a secret are held back, until what follows tells. When nothing follows for a
//! while, [`quiet`](MaskedStream::quiet) lets go of them if they are fewer than could be told to be one: a prompt that
//! ends like a secret begins is still seen. They stay known: a secret that goes on after that is masked from there on.

use super::{MASK, Masker, SHORTEST};

/// One stream on its way through a masker.
#[derive(Debug, Default)]
pub(crate) struct MaskedStream {
    /// What was held back.
    held: Vec<u8>,
    /// Which bytes of it an occurrence covers.
    covered: Vec<bool>,
    /// How many of its first bytes were let go already.
    let_go: usize,
    /// Whether the last byte let go belongs to a run that a mask stands for already.
    in_mask: bool,
}

impl MaskedStream {
    /// Takes what comes next; appends to `out` what is sure by then.
    pub(crate) fn push(&mut self, masker: &Masker, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        self.covered.resize(self.held.len(), false);
        masker.cover(&self.held, &mut self.covered);
        let sure = masker.unsure_from(&self.held);
        self.release(sure, out);
        self.held.drain(..sure);
        self.covered.drain(..sure);
        self.let_go = self.let_go.saturating_sub(sure);
    }

    /// Whether [`quiet`](Self::quiet) would let go of something.
    pub(crate) fn is_holding_little(&self) -> bool {
        self.let_go < self.held.len() && self.held.len() < SHORTEST
    }

    /// Nothing came for a while.
    pub(crate) fn quiet(&mut self, out: &mut Vec<u8>) {
        if self.is_holding_little() {
            self.release(self.held.len(), out);
            self.let_go = self.held.len();
        }
    }

    /// Nothing comes any more.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) {
        self.release(self.held.len(), out);
        *self = Self::default();
    }

    /// Lets go of what is held up to `end`.
    fn release(&mut self, end: usize, out: &mut Vec<u8>) {
        for at in self.let_go..end {
            if !self.covered[at] {
                out.push(self.held[at]);
                self.in_mask = false;
            } else if !self.in_mask {
                out.extend_from_slice(MASK.as_bytes());
                self.in_mask = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(masker: &Masker, pieces: &[&[u8]]) -> Vec<u8> {
        let (mut stream, mut out) = (MaskedStream::default(), Vec::new());
        for piece in pieces {
            stream.push(masker, piece, &mut out);
        }
        stream.end(&mut out);
        out
    }

    fn text(masker: &Masker, text: &str) -> String {
        String::from_utf8(masked(masker, &[text.as_bytes()])).unwrap()
    }

    #[test]
    fn secrets_are_masked_and_nothing_else() {
        let masker = Masker::new(["hunter2", "correct horse"]).unwrap();
        assert_eq!(text(&masker, "a hunter2, a hunter, a correct horse"), "a ***, a hunter, a ***");
        assert_eq!(text(&masker, "hunter2hunter2"), "***");
        assert_eq!(masker.text("say hunter2"), "say ***");
        assert_eq!(masker.text("say nothing"), "say nothing");
        assert!(Masker::new(["abc", "", "true"]).is_none());
    }

    #[test]
    fn secrets_that_overlap_are_masked_whole() {
        let masker = Masker::new(["abcdef", "defghi", "abcd", "efgh"]).unwrap();
        assert_eq!(text(&masker, "<abcdefghi>"), "<***>");
        assert_eq!(text(&masker, "<abcdefg>"), "<***g>");
    }

    #[test]
    fn a_prompt_is_seen_and_a_secret_that_goes_on_after_it_is_masked() {
        let masker = Masker::new([": secret"]).unwrap();
        let (mut stream, mut out) = (MaskedStream::default(), Vec::new());
        stream.push(&masker, b"Name: ", &mut out);
        assert_eq!(out, b"Name");
        assert!(stream.is_holding_little());
        stream.quiet(&mut out);
        assert_eq!(out, b"Name: ");
        assert!(!stream.is_holding_little());
        stream.push(&masker, b"secret", &mut out);
        stream.push(&masker, b"!", &mut out);
        assert_eq!(out, b"Name: ***!");
        stream.push(&masker, b": sec", &mut out);
        assert!(!stream.is_holding_little(), "so much of a secret isn't shown while more may come");
        stream.end(&mut out);
        assert_eq!(out, b"Name: ***!: sec");
    }

    fn word() -> impl Strategy<Value = String> {
        // Few letters, so that words overlap and begin like each other.
        "[abc]{4,9}"
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference_and_no_secret_survives(
            secrets in prop::collection::vec(word(), 1..4),
            parts in prop::collection::vec(prop_oneof![word(), "[abcx \n]{0,6}"], 0..12),
            used in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            quiet in any::<bool>(),
        ) {
            let masker = Masker::new(secrets.iter().map(String::as_str)).unwrap();
            let mut whole = parts.concat();
            for index in &used {
                whole.push_str(&secrets[index.index(secrets.len())]);
            }
            let whole = whole.into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
            cuts.push(0);
            cuts.push(whole.len());
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &whole[pair[0]..pair[1]]).collect();
            let at_once = masked(&masker, &[&whole]);
            prop_assert_eq!(&masked(&masker, &pieces), &at_once);
            for secret in &secrets {
                let bytes = secret.as_bytes();
                prop_assert!(!at_once.windows(bytes.len()).any(|part| part == bytes));
            }
            if quiet {
                let (mut stream, mut out) = (MaskedStream::default(), Vec::new());
                for piece in &pieces {
                    stream.push(&masker, piece, &mut out);
                    stream.quiet(&mut out);
                }
                stream.end(&mut out);
                for secret in &secrets {
                    let bytes = secret.as_bytes();
                    prop_assert!(!out.windows(bytes.len()).any(|part| part == bytes), "not even after pauses");
                }
            }
        }
    }
}
