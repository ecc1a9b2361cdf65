//! Jobs wherever somebody's scripts say.

use super::Finding;

pub(super) fn findings(bash: Option<&str>) -> Vec<Finding> {
    vec![match bash {
        Some(version) => Finding::ok("bash", version),
        None => Finding::lacks(
            "bash",
            "not found: hooks can't be run",
            "install it (Debian: apt-get install bash); jobs themselves don't need it",
        ),
    }]
}
