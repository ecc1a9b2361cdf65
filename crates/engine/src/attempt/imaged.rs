//! A step that names its own image: a container for each of its tries, on the directory of the job.

use std::collections::BTreeMap;

use executr_api::Usage;
use executr_executors::contract::{JobPlan, Place, Sandbox};
use executr_executors::oci::{Mode, OciOptions};
use executr_spec::{JobSpec, StepImage};

use super::execution::Deadline;
use super::marks::name_of;
use super::tries::Planned;
use super::{Attempt, contained, lost};
use crate::verdict::StepVerdict;

impl Attempt<'_> {
    /// One try in a container of its own, which the step leaves its job's directory and what it hands over, and nothing else.
    pub(super) async fn try_in_image(
        &mut self,
        sandbox: &mut dyn Sandbox,
        image: &StepImage,
        planned: &mut Planned<'_>,
        deadline: Deadline,
    ) -> (StepVerdict, Option<Usage>, BTreeMap<String, String>) {
        let mut own = match self.own_container(sandbox, image, planned, deadline).await {
            Ok(own) => own,
            Err(verdict) => return (verdict, None, BTreeMap::new()),
        };
        let (mut verdict, usage, outputs) = self.try_in(own.as_mut(), planned, false, deadline).await;
        self.leave(own.as_mut()).await;
        // What is lost is the step's place: the job's is as it was, and so is another try's.
        verdict.place_lost = false;
        // Files that belong to the step's user go to the job's again.
        if let Err(error) = sandbox.make_directory().await {
            verdict = lost(&error);
        }
        (verdict, usage, outputs)
    }

    async fn own_container(
        &mut self,
        sandbox: &mut dyn Sandbox,
        image: &StepImage,
        planned: &Planned<'_>,
        deadline: Deadline,
    ) -> Result<Box<dyn Sandbox>, StepVerdict> {
        sandbox.make_directory().await.map_err(|error| lost(&error))?;
        let mut labels = self.labels();
        labels.insert("executr.job".to_owned(), self.fence.job.to_string());
        labels.insert("executr.step".to_owned(), name_of(planned.step, planned.index));
        let plan = JobPlan { place: Place::Directory(sandbox.directory().to_owned()), ..self.plan() };
        let here = |verdict| StepVerdict { place_lost: false, ..verdict };
        let workspace = self.open(options(self.spec, image)?, labels, deadline).await.map_err(here)?;
        self.room(workspace.as_ref(), plan, deadline).await.map_err(here)
    }
}

/// The container of a step: as its job's, but of its own image.
fn options(spec: &JobSpec, image: &StepImage) -> Result<OciOptions, StepVerdict> {
    let of_job = if contained::is_contained(spec) { contained::options(spec)? } else { OciOptions::default() };
    // What isn't of this machine's files is only as far from it as any other container.
    let of_job =
        if of_job.of_machine { OciOptions { network: of_job.network, ..OciOptions::default() } } else { of_job };
    let mut container_env = of_job.container_env;
    container_env.extend(image.container_env.clone());
    Ok(OciOptions {
        image: image.name.clone(),
        mode: Mode::Isolated,
        // Another image has other users.
        user: image.user.clone(),
        container_env,
        ..of_job
    })
}

#[cfg(test)]
mod tests {
    use executr_spec::ExecutorKind;
    use executr_spec::workflow::{ExecutorChoice, WorkflowJob};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_step_has_all_of_its_job_s_container_but_the_image_and_its_user() {
        let settings = json!({"image": "a", "user": "ann", "network": "none", "container_env": {"A": "1", "B": "1"}});
        let executor = ExecutorChoice { kind: ExecutorKind::Oci, name: "box".to_owned(), options: settings };
        let workflow = WorkflowJob { executor, ..WorkflowJob::default() };
        let spec = JobSpec { workflow: Some(Box::new(workflow)), ..JobSpec::new(Vec::new()) };
        let image =
            StepImage { name: "b".to_owned(), user: None, container_env: [("B".to_owned(), "2".to_owned())].into() };
        let options = options(&spec, &image).expect("settings");
        assert_eq!((options.image.as_str(), options.mode, options.user), ("b", Mode::Isolated, None));
        assert_eq!(options.network.as_str(), "none");
        assert_eq!(options.container_env, [("A", "1"), ("B", "2")].map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }
}
