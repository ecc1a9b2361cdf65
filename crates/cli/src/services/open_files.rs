//! How many files and connections this process may have open.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the process began with, when it has raised it.
static BEGAN_WITH: OnceLock<u64> = OnceLock::new();

/// Allows this process as many as its owner may have: a thousand idle workers alone come to the usual limit. Jobs don't
/// get it, see [`jobs_limit`].
pub(crate) fn allow_many_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(soft) = current.filter(|_| current != maximum) else { return };
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        // Called again it would find the raised one.
        Ok(()) => drop(BEGAN_WITH.set(soft)),
        Err(error) => tracing::debug!(%error, soft, "the limit on open files stays as it is"),
    }
}

/// The limit for keepers and their jobs, where it differs from this process's: there are programs that look through all
/// files they may have open, and ones that use `select`.
pub(crate) fn jobs_limit() -> Option<u64> {
    BEGAN_WITH.get().copied()
}

/// Takes the limit back to `soft`, in a keeper.
pub(crate) fn limit_open_files(soft: u64) -> std::io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_what_the_owner_may_have_and_goes_back_for_jobs() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(1_000), maximum }).unwrap();
        allow_many_open_files();
        assert_eq!((getrlimit(Resource::Nofile).current, jobs_limit()), (maximum, Some(1_000)));
        limit_open_files(1_000).unwrap();
        assert_eq!(getrlimit(Resource::Nofile), Rlimit { current: Some(1_000), maximum });
    }
}
