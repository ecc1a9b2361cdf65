//! A job's own token: minted with its lease, opens that job's output and files, dies with the lease.

use executr_api::Fence;
use executr_spec::{JobId, LeaseId};
use uuid::Uuid;

const PREFIX: &str = "executr-job-";

/// The token of a lease. The lease's id is the secret in it: it is random and shown to nobody but its holder.
pub(crate) fn write(fence: &Fence) -> String {
    format!("{PREFIX}{}-{}", fence.job.0.simple(), fence.lease.0.simple())
}

/// The job and lease that a token names.
pub(crate) fn read(token: &str) -> Option<(JobId, LeaseId)> {
    let (job, lease) = token.strip_prefix(PREFIX)?.split_once('-')?;
    Some((JobId(Uuid::try_parse(job).ok()?), LeaseId(Uuid::try_parse(lease).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_job_and_lease() {
        let fence = Fence { job: JobId(Uuid::now_v7()), attempt: 3, lease: LeaseId(Uuid::new_v4()) };
        assert_eq!(read(&write(&fence)), Some((fence.job, fence.lease)));
        for text in ["", "executr-job-", "executr-job-1-2", "executr_abc"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
