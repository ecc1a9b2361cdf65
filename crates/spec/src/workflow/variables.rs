//! In which order the variables of a workflow's job come together, and what of them is known before it runs.

use std::collections::BTreeMap;

use super::provider::Provider;
use crate::expression::Template;
use crate::job::JobSpec;

/// Variables of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariableLayer<'a> {
    /// What these say, the first the weakest.
    Sources(&'a [Provider]),
    /// What is written; values may hold `${{ }}`.
    Written(&'a BTreeMap<String, String>),
    /// Secrets of these names.
    Secrets(&'a [String]),
}

impl JobSpec {
    /// The variables of a workflow's job below what its steps hand over and declare, a later layer over those before it. None for other
    /// jobs.
    pub fn variable_layers(&self) -> impl Iterator<Item = VariableLayer<'_>> {
        self.workflow.iter().flat_map(|workflow| {
            [
                VariableLayer::Sources(&workflow.workflow_env_from),
                VariableLayer::Written(&workflow.workflow_env),
                VariableLayer::Sources(&workflow.env_from),
                VariableLayer::Secrets(&workflow.secrets),
                VariableLayer::Written(&self.env),
            ]
        })
    }

    /// The variables that are known before the job runs: written without expressions, or given on the command line, where no
    /// higher layer can say something else.
    #[must_use]
    pub fn literal_variables(&self) -> BTreeMap<&str, &str> {
        let mut known: BTreeMap<&str, &str> = BTreeMap::new();
        for layer in self.variable_layers() {
            match layer {
                VariableLayer::Written(variables) => {
                    for (name, value) in variables {
                        if Template::is_in(value) {
                            known.remove(name.as_str());
                        } else {
                            known.insert(name, value);
                        }
                    }
                }
                VariableLayer::Secrets(names) => {
                    for name in names {
                        known.remove(name.as_str());
                    }
                }
                VariableLayer::Sources(sources) => {
                    for source in sources {
                        match source {
                            Provider::Required(_) => {}
                            Provider::Static(variables) => {
                                known.extend(variables.iter().map(|(name, value)| (name.as_str(), value.as_str())));
                            }
                            // These may say anything.
                            Provider::File { .. } | Provider::Sops { .. } | Provider::Command(_) => known.clear(),
                        }
                    }
                }
            }
        }
        if let Some(workflow) = &self.workflow {
            known.extend(workflow.overrides.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::WorkflowJob;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_a_higher_layer_may_hide_is_not_known() {
        let mut spec = JobSpec::new(Vec::new());
        spec.env = map(&[("JOB", "j"), ("EVALUATED", "${{ run.id }}")]);
        spec.workflow = Some(Box::new(WorkflowJob {
            workflow_env: map(&[("A", "w"), ("JOB", "w"), ("EVALUATED", "w"), ("GIVEN", "w"), ("TOKEN", "w")]),
            overrides: map(&[("GIVEN", "g")]),
            secrets: vec!["TOKEN".to_owned()],
            env_from: vec![Provider::Static(map(&[("STATIC", "s")])), Provider::Required(vec!["A".to_owned()])],
            ..WorkflowJob::default()
        }));
        let known = |spec: &JobSpec| {
            spec.literal_variables().into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(known(&spec), ["A=w", "GIVEN=g", "JOB=j", "STATIC=s"]);
        let file = Provider::File { path: ".env".to_owned(), required: false };
        if let Some(workflow) = &mut spec.workflow {
            workflow.env_from.push(file);
        }
        assert_eq!(known(&spec), ["GIVEN=g", "JOB=j"]);
        assert!(JobSpec::new(Vec::new()).literal_variables().is_empty());
    }
}
