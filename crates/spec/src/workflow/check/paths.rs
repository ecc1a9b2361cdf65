//! Paths that lead out of the job directory.

use super::tell;
use crate::workflow::file::Job;
use crate::workflow::matrix::substitute;
use crate::workflow::problem::Problem;

/// Tells of paths that can't be used.
pub(super) fn check(job: &Job, problems: &mut Vec<Problem>) {
    for cell in &job.cells {
        let decided = |text: &str| substitute(text, &cell.values).ok();
        for (step, place) in job.template.steps.iter().zip(&job.steps) {
            if let Some(wrong) = step.workdir.as_deref().and_then(decided).and_then(|path| wrong(&path)) {
                tell(problems, place.at, format!("{}.workdir", place.key), wrong);
            }
        }
        for output in &job.outputs {
            let Some(path) = decided(&output.value.path) else { continue };
            let empty = path.is_empty().then(|| "is empty; name a file or directory, or `.` for all".to_owned());
            if let Some(wrong) = empty.or_else(|| wrong(&path)) {
                tell(problems, output.at, output.key.clone(), wrong);
            }
        }
        for input in &job.inputs {
            if let Some(wrong) = decided(&input.value.path).and_then(|path| wrong(&path)) {
                tell(problems, input.at, input.key.clone(), wrong);
            }
        }
        if let (Some(modified), Some(located)) = (&cell.modified, &job.modified)
            && let Some(to) = &modified.to
        {
            let empty = to.is_empty().then(|| "is empty; name a directory, or `.` for the current one".to_owned());
            let outside = plain(to)
                .is_none()
                .then(|| format!("`{}` isn't below the current directory; write a path like `out`", to.escape_debug()));
            if let Some(wrong) = empty.or(outside) {
                tell(problems, located.at, located.key.clone(), wrong);
            }
        }
    }
    let files = job.template.workflow.iter().flat_map(|workflow| workflow.files.keys()).chain(job.local_files.keys());
    let mut seen = std::collections::BTreeMap::new();
    for path in files {
        let key = format!("jobs.{}.files.{path}", job.name);
        match plain(path) {
            None => tell(problems, job.at, key, outside(path)),
            Some(plain) if plain.is_empty() || path.ends_with('/') => {
                tell(problems, job.at, key, format!("`{path}` is a directory; name a file in it"));
            }
            Some(_) if path.contains("${{") => {
                tell(problems, job.at, key, "`${{ }}` isn't evaluated in the paths of `files`");
            }
            Some(plain) => {
                if let Some(other) = seen.insert(plain, path) {
                    tell(problems, job.at, key, format!("is the same file as `{other}`"));
                }
            }
        }
    }
}

fn wrong(path: &str) -> Option<String> {
    plain(path).is_none().then(|| outside(path))
}

fn outside(path: &str) -> String {
    format!("`{}` isn't inside of the job directory; write a path from there, like `build/out`", path.escape_debug())
}

/// A path from the job directory without `.` and `..`: nothing when it leads out of it, empty when it is the directory
/// itself.
pub(super) fn plain(path: &str) -> Option<String> {
    if path.starts_with('/') || path.contains('\0') {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_inside() {
        for (path, inside) in [
            ("a/./b//c", Some("a/b/c")),
            ("a/../b", Some("b")),
            (".", Some("")),
            ("..", None),
            ("a/../../b", None),
            ("/etc", None),
            ("a\0", None),
        ] {
            assert_eq!(plain(path).as_deref(), inside, "{path}");
        }
    }
}
