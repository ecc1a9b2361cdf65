//! An attempt on another host.

use std::sync::Arc;

use executr_executors::contract::{JobPlan, Sandbox};
use executr_executors::ssh::{SshOptions, SshWorkspace};
use executr_spec::{ExecutorKind, JobSpec};

use super::Attempt;
use super::steps::Progress;
use crate::host::Hosts;
use crate::verdict::StepVerdict;

/// The settings of a job's hosts.
fn options(spec: &JobSpec) -> Result<SshOptions, StepVerdict> {
    let choice = spec.workflow.as_deref().map(|workflow| &workflow.executor);
    let settings = choice.map(|choice| choice.options.clone()).unwrap_or_default();
    serde_json::from_value(settings).map_err(|error| {
        let name = choice.map(|choice| choice.name.as_str()).unwrap_or_default();
        StepVerdict::failed(format!("executor `{name}`: {error}"), false)
    })
}

/// Whether the job may have the hosts it wants.
pub(super) fn check(spec: &JobSpec, allowed: Hosts) -> Result<(), StepVerdict> {
    let refused = |what: &str, word: &str| {
        Err(StepVerdict::failed(format!("this worker {what}; start it with `--allow {word}`"), true))
    };
    let options = options(spec)?;
    match allowed {
        Hosts::None => refused("runs no jobs on other hosts", "ssh"),
        Hosts::Configured if options.identity_file.is_some() => refused("uses no key that a job names", "ssh-files"),
        Hosts::Configured if options.config_file.is_some() => {
            refused("uses no configuration of ssh that a job names", "ssh-files")
        }
        Hosts::Configured | Hosts::Any => Ok(()),
    }
}

impl Attempt<'_> {
    /// Whether the job runs on another host.
    pub(super) fn is_hosted(&self) -> bool {
        self.spec.workflow.as_ref().is_some_and(|workflow| workflow.executor.kind == ExecutorKind::Ssh)
    }

    pub(super) async fn run_hosted(&mut self, plan: JobPlan) -> Progress {
        match self.hosted(plan).await {
            Ok(mut sandbox) => self.run_and_leave(sandbox.as_mut()).await,
            Err(verdict) => Progress::of(None, verdict),
        }
    }

    async fn hosted(&mut self, plan: JobPlan) -> Result<Box<dyn Sandbox>, StepVerdict> {
        let workspace = SshWorkspace::new(Arc::clone(&self.engine.hosts), options(self.spec)?);
        self.room(&workspace, plan, self.job_deadline()).await
    }
}

#[cfg(test)]
mod tests {
    use executr_spec::workflow::{ExecutorChoice, WorkflowJob};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_worker_uses_what_it_was_told_to() {
        let spec = |options| {
            let executor = ExecutorChoice { kind: ExecutorKind::Ssh, name: "far".to_owned(), options };
            let workflow = WorkflowJob { executor, ..WorkflowJob::default() };
            JobSpec { workflow: Some(Box::new(workflow)), ..JobSpec::new(Vec::new()) }
        };
        let refused = |spec: &JobSpec, allowed| check(spec, allowed).expect_err("it may not").message.expect("why");
        let plain = spec(json!({"host": "build-1"}));
        assert!(check(&plain, Hosts::Configured).is_ok());
        assert!(refused(&plain, Hosts::None).ends_with("`--allow ssh`"));
        for key in ["identity_file", "config_file"] {
            let named = spec(json!({"host": "build-1", key: "/etc/shadow"}));
            assert!(refused(&named, Hosts::Configured).ends_with("`--allow ssh-files`"));
            assert!(check(&named, Hosts::Any).is_ok());
        }
        let wrong = refused(&spec(json!({"hosst": "x"})), Hosts::Any);
        assert!(wrong.contains("far") && wrong.contains("hosst"), "{wrong}");
    }
}
