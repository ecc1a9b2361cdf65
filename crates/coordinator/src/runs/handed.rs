//! What results hand on, checked before it is recorded.

use std::collections::BTreeSet;

use executr_api::{ApiError, AttemptResult, ErrorCode, Outcome};
use executr_spec::JobSpec;

use super::trees::Tree;
use crate::core::Core;
use crate::refusal;

/// What a job's steps may hand on: so many bytes of names and values together.
const MAX_OUTPUTS: usize = 64 << 10;

impl Core {
    /// Looks whether what a result hands on can be taken; when it can't, the attempt counts as failed, with words that say
    /// why. The blobs of its artifacts are kept from now on.
    ///
    /// # Errors
    /// Only when the store can't be asked.
    pub(crate) async fn check_handed(&self, result: &mut AttemptResult) -> Result<(), ApiError> {
        if result.outputs.is_empty() && result.artifacts.is_empty() {
            return Ok(());
        }
        match self.problem_with(result).await {
            Ok(None) => {}
            Ok(Some(problem)) => {
                let hands_on = matches!(result.outcome, Outcome::Succeeded);
                if hands_on {
                    result.outcome = Outcome::Failed;
                    result.retryable = false;
                    result.error_message = Some(problem);
                }
                result.outputs.clear();
                result.artifacts.clear();
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn problem_with(&self, result: &mut AttemptResult) -> Result<Option<String>, ApiError> {
        let bytes: usize = result.outputs.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > MAX_OUTPUTS {
            return Ok(Some(format!(
                "its steps hand on {bytes} bytes in `$STEP_OUTPUT`; at most {MAX_OUTPUTS} are allowed, so hand files on as artifacts"
            )));
        }
        if result.artifacts.is_empty() {
            return Ok(None);
        }
        let job = result.fence.job;
        let record = self.store.job(job).await.map_err(refusal::store)?;
        // What has no record any more has no lease either, which the store will say.
        let Some(record) = record else { return Ok(None) };
        let spec = record.spec.read().map_err(|error| refusal::unreadable(job, &error))?;
        let mut named = outputs(&spec);
        for artifact in &result.artifacts {
            if !named.remove(artifact.name.as_str()) {
                let name = artifact.name.escape_debug();
                return Ok(Some(format!("its worker saved `{name}`, which is none of the job's artifacts, or twice")));
            }
        }
        for artifact in &mut result.artifacts {
            let Tree { blobs, size, files } = match self.tree(artifact.tree).await {
                Ok(tree) => tree,
                Err(error) if error.code == ErrorCode::BadRequest => {
                    return Ok(Some(format!("its artifact `{}` can't be taken: {error}", artifact.name)));
                }
                Err(error) => return Err(error),
            };
            let missing = self.lacking(blobs.iter().copied()).await?;
            if let Some(first) = missing.first() {
                return Ok(Some(format!(
                    "its artifact `{}` can't be taken: {} of its {} blobs were not uploaded, {first} for one",
                    artifact.name,
                    missing.len(),
                    blobs.len()
                )));
            }
            // What a manifest says of sizes may be anything; databases know no larger numbers.
            if i64::try_from(size).is_err() {
                return Ok(Some(format!("its artifact `{}` can't be taken: no tree has {size} bytes", artifact.name)));
            }
            (artifact.size, artifact.files) = (size, files);
            self.runs_kept()?.keep_artifact(job, artifact.tree, blobs).await.map_err(refusal::store)?;
        }
        Ok(None)
    }
}

fn outputs(spec: &JobSpec) -> BTreeSet<&str> {
    let workflow = spec.workflow.as_deref();
    workflow.map(|workflow| workflow.artifacts().collect()).unwrap_or_default()
}
