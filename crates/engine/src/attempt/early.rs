//! What the coordinator decides of a job before it runs is what the job itself would say: the contexts of both, compared.

use std::collections::BTreeMap;

use executr_api::{Need, NeedResult, RunContext};
use executr_expressions::{Context, Ended, Evaluated, Expression, Status, evaluate_early, needs};
use executr_spec::workflow::{Provider, VariableLayer, WorkflowJob};
use executr_spec::{JobSpec, RunId, Step, StepCommand};
use proptest::prelude::*;

use super::{scope, variables};

const NAMES: [&str; 4] = ["A", "B", "C", "D"];

type Layer = BTreeMap<String, String>;

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(NAMES.to_vec()).prop_map(str::to_owned)
}

/// What is written: values, and expressions that come to something whatever is around them.
fn written() -> impl Strategy<Value = Layer> {
    let value =
        prop::sample::select(vec!["x", "true", "3", "${{ run.name }}", "${{ matrix.os }}", "is ${{ job.name }}"]);
    prop::collection::btree_map(name(), value.prop_map(str::to_owned), 0..3)
}

fn plain() -> impl Strategy<Value = Layer> {
    prop::collection::btree_map(name(), prop::sample::select(vec!["x", "true", "y"]).prop_map(str::to_owned), 0..3)
}

/// Sources, and what those that may say anything do say.
fn sources() -> impl Strategy<Value = Vec<(Provider, Layer)>> {
    let file = || Provider::File { path: ".env".to_owned(), required: false };
    let source = prop_oneof![
        plain().prop_map(|said| (Provider::Static(said.clone()), said)),
        plain().prop_map(move |said| (file(), said)),
        plain().prop_map(|said| (Provider::Command(vec!["vault".to_owned()]), said)),
        name().prop_map(|name| (Provider::Required(vec![name]), Layer::new())),
    ];
    prop::collection::vec(source, 0..3)
}

#[derive(Debug)]
struct Case {
    spec: JobSpec,
    /// What the workflow's sources say, then the job's.
    said: [Vec<Layer>; 2],
    run: RunContext,
    status: Status,
}

fn case() -> impl Strategy<Value = Case> {
    let env = (written(), written(), plain(), prop::collection::vec(name(), 0..2));
    let status = prop::sample::select(vec![
        Status::GOOD,
        Status { success: false, failure: true, cancelled: false },
        Status { success: false, failure: false, cancelled: true },
    ]);
    let result = prop::sample::select(vec![NeedResult::Success, NeedResult::Failure, NeedResult::Skipped]);
    (env, sources(), sources(), status, result, prop::sample::select(vec!["linux", "true", "x"])).prop_map(
        |((workflow_env, env, overrides, secrets), above, own, status, result, os)| {
            let (workflow_env_from, of_workflow) = above.into_iter().unzip();
            let (env_from, of_job) = own.into_iter().unzip();
            let workflow = WorkflowJob {
                workflow: "ci".to_owned(),
                name: "build-linux".to_owned(),
                matrix: [("os".to_owned(), os.into())].into(),
                needs: [("a".to_owned(), vec!["a-1".to_owned()])].into(),
                workflow_env_from,
                workflow_env,
                env_from,
                overrides,
                secrets,
                ..WorkflowJob::default()
            };
            let mut spec = JobSpec::new(vec![Step::new(StepCommand::Run("true".to_owned()))]);
            (spec.env, spec.workflow) = (env, Some(Box::new(workflow)));
            let outputs = [("x".to_owned(), os.to_owned())].into();
            let run = RunContext {
                run: RunId(uuid::Uuid::from_u128(7)),
                needs: [("a-1".to_owned(), Need { result, outputs })].into(),
                artifacts: vec![],
                workspace: None,
            };
            Case { spec, said: [of_workflow, of_job], run, status }
        },
    )
}

impl Case {
    /// As the coordinator decides.
    fn early(&self) -> Context {
        let names = &self.spec.workflow.as_ref().unwrap().needs;
        let ended = |job: &str| {
            let need = self.run.needs.get(job)?;
            Some(Ended { result: need.result.as_str(), outputs: &need.outputs })
        };
        Context::of_job(&self.spec, &self.run.run).with_status(self.status).with("needs", needs(names, ended))
    }

    /// As the job itself sees it.
    fn late(&self) -> Context {
        let mut known = Layer::new();
        let mut said = self.said.iter();
        for layer in self.spec.variable_layers() {
            match layer {
                VariableLayer::Sources(_) => known.extend(said.next().unwrap().iter().flatten().map(pair)),
                VariableLayer::Secrets(names) => {
                    known.extend(names.iter().map(|name| (name.clone(), "secret".to_owned())));
                }
                VariableLayer::Written(env) => {
                    variables::evaluate(&self.spec, Some(&self.run), &[], env, &mut known).unwrap();
                }
            }
        }
        known.extend(self.spec.workflow.as_ref().unwrap().overrides.iter().map(pair));
        scope::context(&self.spec, Some(&self.run), &known, &[], self.status)
    }
}

fn pair((name, value): (&String, &String)) -> (String, String) {
    (name.clone(), value.clone())
}

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "env.A",
        "env.B",
        "env.C",
        "env.D",
        "env",
        "matrix.os",
        "matrix.gone",
        "needs.a.result",
        "needs.a.outputs.x",
        "needs.b.result",
        "run.name",
        "run.id",
        "job.name",
        "steps.one.outcome",
        "previous_step.exit_code",
        "nothing.here",
        "success()",
        "failure()",
        "always()",
        "'x'",
        "true",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(4, 24, 3, |inner| {
        let operator = prop::sample::select(vec!["&&", "||", "==", "!="]);
        prop_oneof![
            4 => (inner.clone(), operator, inner.clone()).prop_map(|(a, operator, b)| format!("({a} {operator} {b})")),
            1 => inner.clone().prop_map(|a| format!("!{a}")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("(env[{a}] == {b})")),
            1 => inner.prop_map(|a| format!("toJSON({a})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_coordinator_knows_is_what_the_job_sees(case in case(), text in expression()) {
        let expression = Expression::parse(&text).unwrap();
        let (early, late) = (case.early(), case.late());
        let late = executr_expressions::evaluate(&expression, &late);
        match evaluate_early(&expression, &early) {
            Ok(Evaluated::Known(early)) => prop_assert_eq!(Ok(early), late),
            Ok(Evaluated::NotYet(_)) => {}
            Err(early) => prop_assert_eq!(Err(early), late),
        }
    }

    #[test]
    fn a_variable_is_known_early_unless_something_may_hide_it(case in case()) {
        let workflow = case.spec.workflow.as_ref().unwrap();
        let early = case.early();
        for name in NAMES {
            let text = format!("env.{name}");
            let expression = Expression::parse(&text).unwrap();
            let is_known = matches!(evaluate_early(&expression, &early), Ok(Evaluated::Known(_)));
            let is_literal = case.spec.env.get(name).is_some_and(|value| !value.contains("${{"));
            prop_assert!(is_known || !(is_literal || workflow.overrides.contains_key(name)), "{name}");
        }
    }
}
