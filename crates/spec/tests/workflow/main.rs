//! Workflow files: what they are read as, what is found wrong with them, what plans are made of them.

#![allow(clippy::unwrap_used, reason = "a test says in one word that this cannot fail")]

mod checks;
mod mistakes;
mod pictures;
mod plans;
mod schema;

use executr_spec::workflow::{PlanOptions, RunPlan, Workflow};

/// The workflow in this file.
fn parse(file: &str) -> Workflow {
    Workflow::parse(file).unwrap_or_else(|problems| panic!("{file}\n{}", problems.of_file("test.yaml")))
}

/// The plan of all its jobs.
fn plan(file: &str) -> RunPlan {
    plan_with(file, &PlanOptions::default())
}

fn plan_with(file: &str, options: &PlanOptions) -> RunPlan {
    parse(file).plan(options).unwrap_or_else(|problems| panic!("{file}\n{problems}"))
}

/// What is wrong with this file.
fn wrong(file: &str) -> String {
    match Workflow::parse(file) {
        Ok(_) => panic!("nothing is found wrong with\n{file}"),
        Err(problems) => problems.of_file("test.yaml").to_string(),
    }
}
