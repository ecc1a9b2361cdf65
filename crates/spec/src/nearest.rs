//! What was probably meant by a name that doesn't exist.

/// The one of `names` that is nearest to `written`, when it is near enough to be meant.
pub(crate) fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Names that no one can mistype beyond recognition are short; a third of the letters may be wrong.
    let most = (written.chars().count() / 3).max(1);
    let distances = names.into_iter().map(|name| (distance(written, name, most), name));
    distances.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// The same as half a sentence: `; did you mean `needs`?`, or nothing.
pub(crate) fn did_you_mean<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(written, names).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// How many letters have to be put in, left out, replaced, or swapped with their neighbour (optimal string alignment); more
/// than `most` when it is more than that.
fn distance(a: &str, b: &str, most: usize) -> usize {
    let (a, b): (Vec<_>, Vec<_>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > most || a.len() > 100 {
        return most + 1;
    }
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<_> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, right) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(left != right);
            row[j + 1] = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *left == b[j - 1] && a[i - 1] == *right {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let names = ["needs", "steps", "env", "env_from", "timeout"];
        for (written, meant) in [
            ("nedes", Some("needs")),
            ("need", Some("needs")),
            ("stpes", Some("steps")),
            ("timout", Some("timeout")),
            ("envv", Some("env")),
            ("banana", None),
            ("x", None),
        ] {
            assert_eq!(nearest(written, names), meant, "{written}");
        }
    }
}
