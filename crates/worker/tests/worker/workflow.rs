//! Jobs of runs: what they are told, what they hand on, what is kept secret.

use std::collections::BTreeMap;
use std::time::Duration;

use executr_api::output::{Record, Stream};
use executr_api::{Fence, Outcome, RunContext, StepEvent, StepMark, StepOutcome};
use executr_spec::workflow::{Provider, WorkflowJob};
use executr_spec::{BackoffKind, Condition, JobSpec, Retry, RunId, Span, Step, StepCommand};
use executr_worker::{Inherit, Policy};
use uuid::Uuid;

use crate::rig::Rig;

fn step(script: &str) -> Step {
    Step::new(StepCommand::Run(script.to_owned()))
}

fn env<const N: usize>(variables: [(&str, &str); N]) -> BTreeMap<String, String> {
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn job(steps: Vec<Step>) -> JobSpec {
    let workflow = WorkflowJob { workflow: "ci".to_owned(), name: "build".to_owned(), ..WorkflowJob::default() };
    JobSpec { workflow: Some(Box::new(workflow)), ..JobSpec::new(steps) }
}

fn in_workflow(spec: &mut JobSpec) -> &mut WorkflowJob {
    spec.workflow.as_deref_mut().unwrap()
}

fn context() -> RunContext {
    RunContext { run: RunId(Uuid::from_u128(7)), needs: BTreeMap::new(), artifacts: vec![], workspace: None }
}

fn submit(rig: &Rig, spec: &JobSpec) -> Fence {
    rig.coordinator.submit_in(spec, Some(context()))
}

/// What was written, without marks.
fn text(rig: &Rig, fence: Fence) -> String {
    let mut text = Vec::new();
    for record in rig.coordinator.output(fence) {
        if let Record::Data { stream: Stream::Stdout | Stream::Stderr, bytes } = record {
            text.extend_from_slice(&bytes);
        }
    }
    String::from_utf8(text).unwrap()
}

fn marks(rig: &Rig, fence: Fence) -> Vec<StepMark> {
    let mut lines = Vec::new();
    for record in rig.coordinator.output(fence) {
        if let Record::Data { stream: Stream::Mark, bytes } = record {
            lines.extend_from_slice(&bytes);
        }
    }
    String::from_utf8(lines).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_come_in_layers() {
    let rig = Rig::start(|_| ()).await;
    // Each name's value tells which layer it should come from.
    let layers = ["wf_from", "wf", "job_from", "job", "handed", "step_from", "step", "override"];
    let layer = |at: usize| -> BTreeMap<String, String> {
        layers[..=at].iter().map(|name| (format!("V_{name}"), layers[at].to_owned())).collect()
    };
    let given = |at| vec![Provider::Static(layer(at))];
    let handed: String = layer(4).iter().map(|(name, value)| format!("echo {name}={value} >> $JOB_ENV;")).collect();
    let mut last = step("env | grep ^V_ | sort");
    last.env_from = given(5);
    last.env = layer(6);
    let mut spec = job(vec![step(&handed), last]);
    spec.env = layer(3);
    let workflow = in_workflow(&mut spec);
    workflow.workflow_env_from = given(0);
    workflow.workflow_env = layer(1);
    workflow.env_from = given(2);
    workflow.overrides = layer(7);
    let fence = submit(&rig, &spec);
    assert_eq!(rig.coordinator.result(fence).await.outcome, Outcome::Succeeded);
    assert_eq!(
        text(&rig, fence),
        layers.map(|name| format!("V_{name}=override\n")).into_iter().collect::<Vec<_>>().concat_sorted()
    );
    // Without the upper ones, one after another.
    for below in (0..7).rev() {
        let workflow = in_workflow(&mut spec);
        workflow.overrides.clear();
        match below {
            6 => {}
            5 => spec.steps[1].env.clear(),
            4 => spec.steps[1].env_from.clear(),
            3 => spec.steps[0] = step("true"),
            2 => spec.env.clear(),
            1 => workflow.env_from.clear(),
            _ => workflow.workflow_env.clear(),
        }
        let fence = submit(&rig, &spec);
        rig.coordinator.result(fence).await;
        let expected: Vec<String> =
            layers[..=below].iter().map(|name| format!("V_{name}={}\n", layers[below])).collect();
        assert_eq!(text(&rig, fence), expected.concat_sorted(), "{below}");
    }
    rig.drain().await;
}

trait ConcatSorted {
    fn concat_sorted(self) -> String;
}

impl ConcatSorted for Vec<String> {
    fn concat_sorted(mut self) -> String {
        self.sort();
        self.concat()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_told_where_it_is_and_hands_on_what_its_steps_wrote() {
    let rig = Rig::start(|_| ()).await;
    let mut named = step("echo $EXECUTR_WORKFLOW $EXECUTR_JOB_NAME $EXECUTR_STEP $EXECUTR_RUN_ID; ls -A");
    named.name = Some("look".to_owned());
    let spec = job(vec![
        step("echo version=1 >> $STEP_OUTPUT; echo kept=yes >> $STEP_OUTPUT; echo $EXECUTR_STEP"),
        named,
        step("printf 'version<<E\\n2\\n3\\nE\\n' > $STEP_OUTPUT"),
    ]);
    let fence = submit(&rig, &spec);
    let result = rig.coordinator.result(fence).await;
    assert_eq!(text(&rig, fence), format!("1\nci build look {}\n", context().run));
    assert_eq!(result.outputs, env([("kept", "yes"), ("version", "2\n3")]));
    let fence = submit(&rig, &job(vec![step("echo nonsense >> $JOB_ENV")]));
    let result = rig.coordinator.result(fence).await;
    assert_eq!(result.outcome, Outcome::Failed);
    assert!(result.error_message.is_some_and(|message| message.contains("$JOB_ENV")));
    let much = "head -c 70000 /dev/zero | tr '\\0' x | sed 's/^/much=/' > $STEP_OUTPUT";
    let result = rig.coordinator.result(submit(&rig, &job(vec![step(much)]))).await;
    assert!(result.outputs.is_empty() && result.error_message.is_some_and(|message| message.contains("65536")));
    let left: Vec<_> =
        std::fs::read_dir(rig.directory.path().join("jobs")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().starts_with(".executr-")), "{left:?}");
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_tell_of_each_try_in_its_place() {
    let rig = Rig::start(|_| ()).await;
    let wait = Span(Duration::from_millis(2));
    let mut tried = step("echo x >> tries; test $(wc -l < tries) -ge 2");
    tried.name = Some("flaky".to_owned());
    tried.env = env([("COLOUR", "blue")]);
    tried.retry = Some(Retry { max_attempts: 3, backoff: BackoffKind::Constant, min_time: wait, max_time: wait });
    let spec = job(vec![tried, step("echo out; exit 3"), step("true")]);
    let fence = submit(&rig, &spec);
    rig.coordinator.result(fence).await;
    let marks = marks(&rig, fence);
    let told: Vec<_> = marks
        .iter()
        .map(|mark| (mark.event, mark.step.as_str(), mark.attempt, mark.max_attempts, mark.exit_code))
        .collect();
    use StepEvent::{Failed, Retry as Again, Skipped, Start, Success};
    assert_eq!(
        told,
        [
            (Start, "flaky", 1, 3, None),
            (Again, "flaky", 1, 3, Some(1)),
            (Start, "flaky", 2, 3, None),
            (Success, "flaky", 2, 3, Some(0)),
            (Start, "2", 1, 1, None),
            (Failed, "2", 1, 1, Some(3)),
            (Skipped, "3", 1, 1, None),
        ]
    );
    assert_eq!((marks[1].delay_ms, &marks[0].env), (Some(2), &env([("COLOUR", "blue")])));
    let records = rig.coordinator.output(fence);
    let at = |wanted: &dyn Fn(&Record) -> bool| records.iter().position(wanted).unwrap();
    let out = at(&|record| matches!(record, Record::Data { bytes, .. } if &bytes[..] == b"out\n"));
    let failed =
        at(&|record| matches!(record, Record::Data { bytes, .. } if bytes.starts_with(b"{\"event\":\"failed\"")));
    assert!(out < failed);
    // Jobs of no run have none.
    let alone = rig.coordinator.submit_run("echo alone");
    rig.coordinator.result(alone).await;
    assert_eq!(rig.coordinator.text(alone), "alone\n");
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_jobs_own_script_decides_first() {
    let rig = Rig::start(|_| ()).await;
    for (script, outcome, said) in [
        ("test $WANTED = yes", Outcome::Succeeded, "ran\n"),
        ("exit 1", Outcome::Skipped, ""),
        ("echo why >&2; exit 2", Outcome::Failed, "why\n"),
    ] {
        let mut spec = job(vec![step("echo ran")]);
        spec.env = env([("WANTED", "yes")]);
        in_workflow(&mut spec).condition = Some(script.to_owned());
        let fence = submit(&rig, &spec);
        let result = rig.coordinator.result(fence).await;
        assert_eq!((result.outcome, text(&rig, fence).as_str()), (outcome, said), "{script}");
        let told = result.error_message.unwrap_or_default();
        assert_eq!(told.contains("its condition failed"), outcome == Outcome::Failed, "{told}");
    }
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_used_and_never_seen() {
    let rig = Rig::start(|options| {
        options.host.secrets = env([("GIVEN", "hunter2 & co")]);
        options.host.variables.insert("EXECUTR_SECRET_OWN".into(), "swordfish".into());
        options.host.variables.insert("NOT_YOURS".into(), "private".into());
    })
    .await;
    let script = "test \"$GIVEN\" = 'hunter2 & co' || exit 9
        echo $GIVEN; echo $OWN >&2
        echo \"$GIVEN\" | base64; printf hunter; sleep 0.01; printf '2 & co!\\n'
        echo pass=$OWN >> $STEP_OUTPUT
        exit 3";
    let mut spec = job(vec![Step { name: Some("swordfish".to_owned()), ..step(script) }, step("true")]);
    spec.env = env([("COPY", "<swordfish>")]);
    in_workflow(&mut spec).secrets = vec!["GIVEN".to_owned(), "OWN".to_owned()];
    let fence = submit(&rig, &spec);
    let result = rig.coordinator.result(fence).await;
    assert_eq!(result.exit_code, Some(3));
    let text = text(&rig, fence);
    assert!(text.contains("***!\n"), "{text}");
    assert_eq!(result.outputs, env([("pass", "***")]));
    assert_eq!(marks(&rig, fence)[0].env, env([("GIVEN", "***"), ("OWN", "***"), ("COPY", "<***>")]));
    let all = format!("{text} {:?} {:?}", result.error_message, marks(&rig, fence)[0].env);
    for secret in ["hunter2", "swordfish", "aHVudGVyMiAmIGNv"] {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
    // Not in the words of an error either, and never where other processes see it.
    let mut wrong = spec.clone();
    wrong.env = env([("BOOL", "${{ env.OWN || 'none' }}")]);
    let mut shown = job(vec![Step::new(StepCommand::Argv(vec!["echo".to_owned(), "${{ env.OWN }}".to_owned()]))]);
    in_workflow(&mut shown).secrets = vec!["OWN".to_owned()];
    for (spec, told) in [(&wrong, "not true or false"), (&shown, "argv[1]")] {
        let result = rig.coordinator.result(submit(&rig, spec)).await;
        let message = result.error_message.unwrap_or_default();
        assert!(message.contains(told) && !message.contains("swordfish"), "{message}");
    }
    in_workflow(&mut spec).secrets = vec!["NOT_YOURS".to_owned()];
    let result = rig.coordinator.result(submit(&rig, &spec)).await;
    assert!(result.retryable && result.outcome == Outcome::Failed, "another worker may have it");
    assert!(
        result.error_message.is_some_and(|message| message.contains("`NOT_YOURS`") && message.contains("--secret"))
    );
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_of_variables_that_fails_names_itself_and_nothing_starts() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join(".env"), "TOKEN=from the file\nMODE=true\n").unwrap();
    let root = place.path().to_owned();
    let rig = Rig::start(|options| {
        options.host.repository = Some(root);
        options.host.variables.insert("EDITOR".into(), "ed".into());
        options.policy = Policy { providers: true, inherit: Inherit::AllButOurs, ..Policy::default() };
    })
    .await;
    let file = |path: &str| Provider::File { path: path.to_owned(), required: true };
    let with = |sources: Vec<Provider>| {
        let mut spec = job(vec![step("echo $TOKEN $MODE")]);
        spec.inherit = vec!["EDITOR".to_owned()];
        in_workflow(&mut spec).env_from = sources;
        spec
    };
    let names = |names: &[&str]| Provider::Required(names.iter().map(|&name| name.to_owned()).collect());
    let fence = submit(&rig, &with(vec![file(".env"), names(&["TOKEN", "EDITOR"])]));
    assert_eq!(rig.coordinator.result(fence).await.outcome, Outcome::Succeeded);
    assert_eq!(text(&rig, fence), "*** true\n");
    for (source, told) in [
        (file("absent"), "file `absent`"),
        (Provider::Command(vec!["false".to_owned()]), "command `false`"),
        (names(&["TOKEN", "OTHER"]), "TOKEN, OTHER"),
    ] {
        let fence = submit(&rig, &with(vec![source]));
        let result = rig.coordinator.result(fence).await;
        assert_eq!((result.outcome, result.retryable, result.fails_run), (Outcome::Failed, false, true));
        assert!(result.error_message.as_ref().is_some_and(|message| message.contains(told)), "{result:?}");
        assert!(result.steps.iter().all(|step| step.outcome == StepOutcome::Skipped) && text(&rig, fence).is_empty());
    }
    rig.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expressions_see_what_earlier_steps_came_to() {
    let rig = Rig::start(|_| ()).await;
    let mut first = step("echo 1.2; echo noise >&2; echo n=5 >> $STEP_OUTPUT; exit 4");
    first.name = Some("first".to_owned());
    first.continue_on_error = true;
    let mut skipped = step("echo never");
    skipped.condition = Condition::parse("${{ steps.first.stdout == 'other' }}");
    let mut last = step("echo \"$SAID\"");
    last.condition = Condition::parse("${{ previous_step.exit_code == 4 && matrix.os == 'linux' }}");
    let said = "${{ steps.first.stdout }} ${{ steps.first.outputs.n }} ${{ previous_step.outcome }} ${{ env.BASE }} ${{ steps.first.stderr }}";
    last.env = env([("SAID", said)]);
    let words = ["echo", "<${{ previous_step.stdout }}>", "${{ matrix.os }}", "$HOME"];
    let argv = Step::new(StepCommand::Argv(words.map(str::to_owned).to_vec()));
    let mut spec = job(vec![first, skipped, last, argv]);
    spec.env = env([("BASE", "${{ job.name }}-${{ matrix.os }}")]);
    in_workflow(&mut spec).matrix.insert("os".to_owned(), "linux".into());
    let fence = submit(&rig, &spec);
    let result = rig.coordinator.result(fence).await;
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert!(
        text(&rig, fence).ends_with("1.2 5 failure build-linux noise\n<1.2 5 failure build-linux noise> linux $HOME\n"),
        "{}",
        text(&rig, fence)
    );
    let mut wrong = step("true");
    wrong.env = env([("A", "${{ steps.absent.stdout }}")]);
    let fence = submit(&rig, &job(vec![step("true"), wrong]));
    let result = rig.coordinator.result(fence).await;
    assert!(result.error_message.is_some_and(|message| message.contains("env.A") && message.contains("absent")));
    let told: Vec<_> = marks(&rig, fence).iter().map(|mark| (mark.event, mark.step.clone())).collect();
    assert_eq!(told[2..], [(StepEvent::Failed, "2".to_owned())]);
    rig.drain().await;
}
