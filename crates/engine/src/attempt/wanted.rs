//! What later expressions name of each step: nothing else is kept.

use executr_spec::expression::{Expression, Name, Template};
use executr_spec::{Condition, JobSpec, Step, StepCommand};

use super::capture::Capture;
use super::marks::name_of;

/// What is wanted of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OfStep {
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) changed_files: bool,
}

/// What is wanted of each step; empty when it is nothing of any.
#[derive(Debug, Default)]
pub(super) struct Wanted(Vec<OfStep>);

impl Wanted {
    /// Reads all expressions of a job's steps.
    pub(super) fn of(spec: &JobSpec) -> Self {
        let mut wanted = Vec::new();
        for (index, step) in spec.steps.iter().enumerate().skip(1) {
            let mut name = |name: &Name| want(&mut wanted, spec, index, name);
            if let Condition::Expression(text) = &step.condition
                && let Ok(expression) = Expression::parse(text)
            {
                expression.names().iter().for_each(&mut name);
            }
            let files = spec.workflow.iter().flat_map(|workflow| workflow.files.values());
            let texts = files.filter_map(|file| match &file.content {
                executr_spec::workflow::FileContent::Text(text) => Some(text),
                _ => None,
            });
            let words: &[String] = match &step.command {
                StepCommand::Argv(words) => words,
                StepCommand::Binary(binary) => &binary.args,
                StepCommand::Run(_) => &[],
            };
            for text in step.env.values().chain(words).chain(texts).filter(|text| Template::is_in(text)) {
                if let Ok(template) = Template::parse(text) {
                    template.expressions().flat_map(Expression::names).for_each(&mut name);
                }
            }
        }
        Self(wanted)
    }

    fn at(&self, index: usize) -> OfStep {
        self.0.get(index).copied().unwrap_or_default()
    }

    /// What is to be kept of a step's output.
    pub(super) fn capture(&self, index: usize) -> Capture {
        let wanted = self.at(index);
        Capture::of(wanted.stdout, wanted.stderr)
    }

    /// Whether somebody asks which files a step changed.
    pub(super) fn looks_after(&self, index: usize) -> bool {
        self.at(index).changed_files
    }
}

/// Notes what an expression of the step at `index` names of earlier ones.
fn want(wanted: &mut Vec<OfStep>, spec: &JobSpec, index: usize, name: &Name) {
    let (of, part): (Option<&str>, _) = match name.root() {
        "steps" => (name.word(1), name.word(2)),
        "previous_step" => (None, name.word(1)),
        _ => return,
    };
    let is_meant = |at: usize, step: &Step| of.is_none_or(|of| of == name_of(step, at));
    for (at, _) in spec.steps.iter().enumerate().take(index).filter(|(at, step)| is_meant(*at, step)) {
        wanted.resize(wanted.len().max(at + 1), OfStep::default());
        let all = part.is_none();
        wanted[at].stdout |= all || part == Some("stdout");
        wanted[at].stderr |= all || part == Some("stderr");
        wanted[at].changed_files |= all || part == Some("changed_files");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(conditions: &[&str]) -> Wanted {
        let steps = conditions.iter().enumerate().map(|(at, condition)| {
            let mut step = Step::new(StepCommand::Run("true".to_owned()));
            step.name = Some(format!("s{at}"));
            step.condition = Condition::parse(condition);
            step
        });
        Wanted::of(&JobSpec::new(steps.collect()))
    }

    #[test]
    fn only_what_a_later_expression_names_is_wanted() {
        let wanted =
            job(&["success()", "always()", "${{ steps.s0.stdout == 'x' }}", "${{ steps.s2.outcome == 'success' }}"]);
        assert_eq!(wanted.at(0), OfStep { stdout: true, ..OfStep::default() });
        assert!([1, 2, 3].into_iter().all(|at| wanted.at(at) == OfStep::default()));
        let wanted = job(&["success()", "success()", "${{ contains(previous_step.changed_files, 'a') }}"]);
        assert!(wanted.looks_after(0) && wanted.looks_after(1), "which one was skipped isn't known yet");
        let wanted = job(&["success()", "${{ contains(toJSON(steps), 'x') }}"]);
        assert_eq!(wanted.at(0), OfStep { stdout: true, stderr: true, changed_files: true });
        assert!(job(&["success()", "always()"]).0.is_empty());
    }
}
