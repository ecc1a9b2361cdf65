//! What a job's needs are to it: `needs.<name>.result` and `needs.<name>.outputs`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// How a job ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// `success`, `failure`, `cancelled` or `skipped`.
    pub result: &'a str,
    /// What its steps handed on.
    pub outputs: &'a BTreeMap<String, String>,
}

/// The context `needs`: by the names in the file, the jobs of the run that each means, and how those ended.
///
/// The result of a name that means several jobs is the worst of theirs: failure, then cancelled, then success, then
/// skipped. Its outputs are all of theirs; of two with the same key the later job's is taken.
#[must_use]
pub fn needs<'a>(names: &BTreeMap<String, Vec<String>>, ended: impl Fn(&str) -> Option<Ended<'a>>) -> Value {
    let need = |jobs: &Vec<String>| {
        let jobs: Vec<_> = jobs.iter().filter_map(|job| ended(job)).collect();
        let result = jobs.iter().map(|job| job.result).max_by_key(|result| badness(result)).unwrap_or("skipped");
        let outputs = jobs.iter().flat_map(|job| job.outputs);
        let outputs: Map<_, _> = outputs.map(|(key, value)| (key.clone(), value.clone().into())).collect();
        json!({ "result": result, "outputs": outputs })
    };
    names.iter().map(|(name, jobs)| (name.clone(), need(jobs))).collect::<Map<_, _>>().into()
}

fn badness(result: &str) -> u8 {
    match result {
        "failure" => 3,
        "cancelled" => 2,
        "success" => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_means_several_jobs_has_the_worst_of_their_results() {
        let outputs = |value: &str| BTreeMap::from([("v".to_owned(), value.to_owned())]);
        let ended = BTreeMap::from([
            ("a-1", ("success", outputs("1"))),
            ("a-2", ("cancelled", outputs("2"))),
            ("b-1", ("skipped", BTreeMap::new())),
            ("b-2", ("success", outputs("3"))),
        ]);
        let names = |jobs: &[&str]| jobs.iter().map(|job| (*job).to_owned()).collect::<Vec<_>>();
        let all = BTreeMap::from([("a".to_owned(), names(&["a-1", "a-2"])), ("b".to_owned(), names(&["b-1", "b-2"]))]);
        let found = needs(&all, |job| ended.get(job).map(|(result, outputs)| Ended { result, outputs }));
        assert_eq!(
            found,
            json!({
                "a": {"result": "cancelled", "outputs": {"v": "2"}},
                "b": {"result": "success", "outputs": {"v": "3"}},
            })
        );
    }
}
