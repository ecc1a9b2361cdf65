//! The variables of a workflow's job, by layers, a later one over those before it:
//!
//! ```text
//! fixed base                                (environment.rs)
//! workflow env_from, workflow env
//! job env_from, secrets, job env            evaluated once, before anything of the job is started
//! $JOB_ENV                                  what earlier steps handed over
//! step env_from, step env                   evaluated for each step
//! overrides                                 --env-file and the command line
//! ```
//!
//! `${{ }}` in a value sees the layers below its own as `env`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use executr_api::RunContext;
use executr_expressions::{Status, Template, interpolate};
use executr_spec::workflow::{Provider, VariableLayer};
use executr_spec::{JobSpec, Step};

use super::scope::StepRecord;
use super::{Attempt, scope, sources};
use crate::environment::OURS;
use crate::host::Inherit;
use crate::masking::Masker;
use crate::providers::ProviderError;
use crate::verdict::StepVerdict;

/// What is declared for a workflow's job.
#[derive(Debug, Default)]
pub(super) struct Variables {
    /// All below `$JOB_ENV`.
    job: BTreeMap<String, String>,
    /// What steps handed over.
    handed: BTreeMap<String, String>,
}

impl Variables {
    /// Takes what a step handed over to later ones.
    pub(super) fn hand_over(&mut self, found: BTreeMap<String, String>) {
        self.handed.extend(found);
    }
}

/// A layer on top of others.
fn add(layers: &mut BTreeMap<String, String>, layer: &BTreeMap<String, String>) {
    layers.extend(layer.iter().map(|(name, value)| (name.clone(), value.clone())));
}

impl Attempt<'_> {
    /// Works out everything below `$JOB_ENV`.
    ///
    /// # Errors
    /// When a source fails, a secret is missing or an expression can't be evaluated: the job can't run.
    pub(super) async fn job_variables(&mut self) -> Result<(), StepVerdict> {
        let spec = self.spec;
        if spec.workflow.is_none() {
            return Ok(());
        }
        let mut variables = Variables::default();
        let mut secrets = BTreeSet::new();
        for layer in spec.variable_layers() {
            match layer {
                VariableLayer::Sources(sources) => self.provide(sources, &mut variables.job, &mut secrets).await?,
                VariableLayer::Written(env) => self.evaluate(env, &mut variables.job)?,
                VariableLayer::Secrets(names) => {
                    for name in names {
                        let value = self.secret(name)?;
                        secrets.insert(value.clone());
                        variables.job.insert(name.clone(), value);
                    }
                    self.mask(&secrets);
                }
            }
        }
        self.variables = Some(variables);
        Ok(())
    }

    /// What is known before a step's own layers; `env` in its condition.
    pub(super) fn known_variables(&self) -> BTreeMap<String, String> {
        let mut known = match &self.variables {
            Some(variables) => {
                let mut known = variables.job.clone();
                add(&mut known, &variables.handed);
                known
            }
            None => self.spec.env.clone(),
        };
        if let Some(workflow) = &self.spec.workflow {
            add(&mut known, &workflow.overrides);
        }
        known
    }

    /// All that is declared for a step.
    ///
    /// # Errors
    /// When a source fails or an expression can't be evaluated: the step fails.
    pub(super) async fn step_variables(&mut self, step: &Step) -> Result<BTreeMap<String, String>, StepVerdict> {
        let mut declared = self.known_variables();
        if !step.env_from.is_empty() {
            let mut secrets = BTreeSet::new();
            self.provide(&step.env_from, &mut declared, &mut secrets).await?;
        }
        if self.variables.is_some() {
            self.evaluate(&step.env, &mut declared)?;
        } else {
            add(&mut declared, &step.env);
        }
        if let Some(workflow) = &self.spec.workflow {
            add(&mut declared, &workflow.overrides);
        }
        Ok(declared)
    }

    /// Adds what sources say, the first the weakest.
    async fn provide(
        &mut self,
        sources: &[Provider],
        layers: &mut BTreeMap<String, String>,
        secrets: &mut BTreeSet<String>,
    ) -> Result<(), StepVerdict> {
        for provider in sources {
            if let Provider::Required(names) = provider {
                self.require(provider, names, layers)?;
                continue;
            }
            let provided = self.ask(provider).await?;
            if provided.secret {
                secrets.extend(provided.variables.values().cloned());
                // Before anything fails with words about them.
                self.mask(secrets);
            }
            add(layers, &provided.variables);
        }
        Ok(())
    }

    fn require(
        &self,
        provider: &Provider,
        names: &[String],
        layers: &BTreeMap<String, String>,
    ) -> Result<(), StepVerdict> {
        let workflow = self.spec.workflow.as_deref();
        let has = |name: &String| {
            let given = |variables: &BTreeMap<String, String>| variables.get(name).is_some_and(|it| !it.is_empty());
            given(layers)
                || workflow.is_some_and(|workflow| given(&workflow.overrides) || workflow.secrets.contains(name))
                || self.spec.inherit.iter().any(|asked| asked == "*" || asked == name)
                    && self.inheritable(name).is_some()
        };
        let missing: Vec<&str> = names.iter().filter(|name| !has(name)).map(String::as_str).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let problem = format!("{} has no value; give it one with `--env` or in `env`", missing.join(", "));
        Err(sources::refused(ProviderError::new(provider, problem)))
    }

    /// A variable of the worker that jobs may have.
    fn inheritable(&self, name: &str) -> Option<String> {
        let value = self.engine.host.variable(name)?;
        let allowed = match self.engine.policy.inherit {
            Inherit::Nothing => false,
            Inherit::AllButOurs => !name.as_bytes().starts_with(OURS),
            Inherit::All => true,
        };
        allowed.then(|| String::from_utf8_lossy(value).into_owned())
    }

    /// The value of a secret: one that was given by name, `EXECUTR_SECRET_<name>` of the worker's environment, or, where
    /// jobs may inherit, the variable of that name.
    pub(super) fn secret(&self, name: &str) -> Result<String, StepVerdict> {
        let host = &self.engine.host;
        let own = || {
            let value = host.variable(&format!("EXECUTR_SECRET_{name}"))?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let value = host.secrets.get(name).cloned().or_else(own).or_else(|| self.inheritable(name));
        value.ok_or_else(|| {
            let message = format!(
                "the secret `{name}` is not known here: give it to `executr run` with `--secret {name}`, or to the \
                 executor as its variable EXECUTR_SECRET_{name}; where only some executors have it, label those and the job"
            );
            // Another worker may have it.
            StepVerdict::failed(message, host.repository.is_none())
        })
    }

    fn evaluate(
        &self,
        layer: &BTreeMap<String, String>,
        layers: &mut BTreeMap<String, String>,
    ) -> Result<(), StepVerdict> {
        evaluate(self.spec, self.run, &self.records, layer, layers)
    }

    /// Masks these from now on, besides what is masked already.
    pub(super) fn mask(&mut self, secrets: &BTreeSet<String>) {
        let known = self.secrets.len();
        self.secrets.extend(secrets.iter().cloned());
        if self.secrets.len() > known {
            if let Some(held) = &self.held {
                held.keep_secret(&self.secrets);
            }
            self.masking.mask_with(Masker::new(self.secrets.iter().map(String::as_str)).map(Arc::new));
        }
    }
}

/// Adds a layer whose values may hold `${{ }}` to those below it.
pub(super) fn evaluate(
    spec: &JobSpec,
    run: Option<&RunContext>,
    records: &[StepRecord],
    layer: &BTreeMap<String, String>,
    layers: &mut BTreeMap<String, String>,
) -> Result<(), StepVerdict> {
    if !layer.values().any(|value| Template::is_in(value)) {
        add(layers, layer);
        return Ok(());
    }
    // What the command line says is seen by what is derived from it.
    let mut seen = layers.clone();
    if let Some(workflow) = &spec.workflow {
        add(&mut seen, &workflow.overrides);
    }
    let context = scope::context(spec, run, &seen, records, Status::GOOD);
    let mut evaluated = BTreeMap::new();
    for (name, value) in layer {
        let value =
            interpolate(value, &context).map_err(|error| StepVerdict::failed(format!("env.{name}: {error}"), false))?;
        if value.contains('\0') {
            return Err(StepVerdict::failed(format!("env.{name}: holds a NUL character"), false));
        }
        evaluated.insert(name.clone(), value.into_owned());
    }
    layers.extend(evaluated);
    Ok(())
}
