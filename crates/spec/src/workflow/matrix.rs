//! From a matrix to its cells.

use std::collections::BTreeMap;

use serde_json::Value;

use super::plan::{ArtifactInput, ArtifactOutput};
use super::selection::ModifiedFiles;
use crate::expression::{Piece, Template, Term};

/// The most jobs a matrix may make.
pub const MAX_CELLS: usize = 10_000;

/// A matrix as it is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Matrix {
    pub(super) dimensions: BTreeMap<String, Vec<Value>>,
    pub(super) include: Vec<BTreeMap<String, Value>>,
    pub(super) exclude: Vec<BTreeMap<String, Value>>,
    pub(super) max_parallel: Option<u32>,
}

/// One job of a matrix, or of no matrix.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cell {
    /// The job's name in the run.
    pub(super) name: String,
    /// What its name has more than its job's: `-os-linux`.
    pub(super) suffix: String,
    /// `matrix.<dimension>`
    pub(super) values: BTreeMap<String, Value>,
    /// Filled in once all jobs' names are known.
    pub(super) inputs: Vec<ArtifactInput>,
    pub(super) outputs: Vec<ArtifactOutput>,
    pub(super) modified: Option<ModifiedFiles>,
}

impl Matrix {
    /// Its cells: the product of its dimensions with sorted names, the last one changing fastest, without those excluded; then
    /// what `include` adds. An entry of `include` adds its values to each cell that has the same values for all dimensions
    /// the entry names; when there is none, it is a cell of its own.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn cells(&self, job: &str) -> Result<Vec<Cell>, String> {
        let sizes = self.dimensions.values().map(Vec::len);
        let product = sizes.fold(1_usize, usize::saturating_mul);
        if product.saturating_add(self.include.len()) > MAX_CELLS {
            return Err(format!("makes {product} jobs; at most {MAX_CELLS} are allowed"));
        }
        let mut cells = if self.dimensions.is_empty() { Vec::new() } else { vec![BTreeMap::new()] };
        for (dimension, values) in &self.dimensions {
            let longer = |cell: &BTreeMap<String, Value>| {
                let mut cell = cell.clone();
                values
                    .iter()
                    .map(|value| {
                        cell.insert(dimension.clone(), value.clone());
                        cell.clone()
                    })
                    .collect::<Vec<_>>()
            };
            cells = cells.iter().flat_map(longer).collect();
        }
        for entry in &self.exclude {
            if let Some(key) = entry.keys().find(|key| !self.dimensions.contains_key(*key)) {
                return Err(format!("excludes by `{key}`, which is none of its dimensions"));
            }
            let before = cells.len();
            cells.retain(|cell| !entry.iter().all(|(key, value)| cell.get(key) == Some(value)));
            if cells.len() == before {
                return Err(format!("excludes {}, which it doesn't have", written(entry)));
            }
        }
        let named: Vec<_> = cells.iter().map(|cell| suffix(cell.iter())).collect();
        let mut cells: Vec<_> = named.into_iter().zip(cells).collect();
        let products = cells.len();
        for entry in &self.include {
            let mut matched = false;
            for (_, cell) in &mut cells[..products] {
                let same = |(key, value): (&String, &Value)| {
                    !self.dimensions.contains_key(key) || cell.get(key) == Some(value)
                };
                if entry.iter().all(same) {
                    matched = true;
                    cell.extend(entry.clone());
                }
            }
            if !matched {
                cells.push((suffix(entry.iter()), entry.clone()));
            }
        }
        if cells.is_empty() {
            return Err("has no cell left; give it a dimension with values".to_owned());
        }
        let cell = |(suffix, values)| Cell { name: format!("{job}{suffix}"), suffix, values, ..Cell::default() };
        Ok(cells.into_iter().map(cell).collect())
    }
}

/// `-dim1-value1-dim2-value2`. What can't stand in a name becomes `_`.
fn suffix<'a>(values: impl Iterator<Item = (&'a String, &'a Value)>) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    let part =
        |(key, value): (&String, &Value)| format!("-{key}-{}", as_text(value).chars().map(allowed).collect::<String>());
    values.map(part).collect()
}

fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn written(entry: &BTreeMap<String, Value>) -> String {
    entry.iter().map(|(key, value)| format!("{key} {}", as_text(value))).collect::<Vec<_>>().join(", ")
}

/// A text with the cell's values in the place of `${{ matrix.… }}`.
///
/// # Errors
/// What can't be known here.
pub(super) fn substitute(text: &str, values: &BTreeMap<String, Value>) -> Result<String, String> {
    if !Template::is_in(text) {
        return Ok(text.to_owned());
    }
    let template = Template::parse(text).map_err(|error| error.to_string())?;
    let mut written = String::new();
    for piece in template.pieces() {
        match piece {
            Piece::Text(text) => written.push_str(text),
            Piece::Expression(expression) => {
                let (Term::Member(..), [name]) = (expression.term(), expression.names()) else {
                    return Err("is decided before the run: only `${{ matrix.<dimension> }}` can stand here".to_owned());
                };
                let (Some(dimension), "matrix", 2) = (name.word(1), name.root(), name.0.len()) else {
                    return Err(format!(
                        "is decided before the run, when `{name}` isn't known; only `${{{{ matrix.<dimension> }}}}` can stand here"
                    ));
                };
                let value = values.get(dimension);
                written.push_str(&as_text(value.ok_or_else(|| format!("there is no `{name}` here"))?));
            }
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matrix(value: Value) -> Matrix {
        let maps = |key| serde_json::from_value(value.get(key).cloned().unwrap_or(json!([]))).expect(key);
        let dimensions = serde_json::from_value(value["of"].clone()).expect("dimensions");
        Matrix { dimensions, include: maps("include"), exclude: maps("exclude"), max_parallel: None }
    }

    fn names(value: Value) -> Vec<String> {
        matrix(value).cells("t").expect("cells").into_iter().map(|cell| cell.name).collect()
    }

    #[test]
    fn cells_are_named_by_sorted_dimensions() {
        let cells = names(json!({"of": {"py": ["3.11", "3.12"], "os": ["linux", "mac os"]}}));
        assert_eq!(cells, ["t-os-linux-py-3.11", "t-os-linux-py-3.12", "t-os-mac_os-py-3.11", "t-os-mac_os-py-3.12"]);
    }

    #[test]
    fn cells_are_left_out_and_added() {
        let cells = names(json!({
            "of": {"os": ["a", "b"], "n": [1, 2]},
            "exclude": [{"os": "a", "n": 2}],
            "include": [{"os": "c", "n": 9}],
        }));
        assert_eq!(cells, ["t-n-1-os-a", "t-n-1-os-b", "t-n-2-os-b", "t-n-9-os-c"]);
    }

    #[test]
    fn include_adds_values_to_the_cells_it_matches() {
        let cells = matrix(json!({"of": {"os": ["a", "b"]}, "include": [{"os": "b", "extra": true}, {"all": 1}]}))
            .cells("t")
            .expect("cells");
        assert_eq!(cells.len(), 2);
        assert_eq!(cells[0].values, BTreeMap::from([("os".into(), json!("a")), ("all".into(), json!(1))]));
        assert_eq!(cells[1].values["extra"], json!(true));
        assert_eq!(cells[1].name, "t-os-b");
    }

    #[test]
    fn a_matrix_that_makes_no_sense_is_refused() {
        let many: Vec<_> = (0..200).collect();
        for (value, told) in [
            (json!({"of": {}}), "no cell"),
            (json!({"of": {"a": []}}), "no cell"),
            (json!({"of": {"a": [1]}, "exclude": [{"a": 1}]}), "no cell"),
            (json!({"of": {"a": [1]}, "exclude": [{"b": 1}]}), "none of its dimensions"),
            (json!({"of": {"a": [1]}, "exclude": [{"a": 2}]}), "doesn't have"),
            (json!({"of": {"a": many, "b": many, "c": many}}), "at most"),
        ] {
            let error = matrix(value).cells("t").expect_err(told);
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn only_the_matrix_is_known_before_the_run() {
        let values = BTreeMap::from([("os".to_owned(), json!("linux")), ("n".to_owned(), json!(2))]);
        assert_eq!(substitute("lib-${{ matrix.os }}-${{matrix['n']}}", &values).expect("known"), "lib-linux-2");
        for (text, told) in [
            ("${{ matrix.py }}", "no `matrix.py`"),
            ("${{ run.id }}", "isn't known"),
            ("${{ matrix.os == 'a' }}", "only"),
            ("${{ matrix", "no end"),
        ] {
            assert!(substitute(text, &values).expect_err(text).contains(told), "{text}");
        }
    }
}
