//! What expressions come to.

#![allow(clippy::unwrap_used, reason = "a test says in one word that this cannot fail")]

use executr_expressions::{Context, Expression, Status, decide, evaluate, interpolate};
use executr_spec::{Condition, JobSpec, RunId, Step, StepCommand};
use serde_json::{Value, json};

fn context() -> Context {
    Context::new()
        .with("matrix", json!({"os": "linux", "n": 3, "fast": true, "list": [1, "two"]}))
        .with(
            "needs",
            json!({"build-it": {"result": "success", "outputs": {"version": "1.2", "ok": "true", "none": ""}}}),
        )
        .with("env", json!({"A": "x", "N": "3"}))
        .with_status(Status::GOOD)
}

fn of(text: &str) -> Value {
    let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    evaluate(&expression, &context()).unwrap_or_else(|error| panic!("{text}: {error}")).into_owned()
}

fn error(text: &str) -> String {
    let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    evaluate(&expression, &context()).expect_err(text).to_string()
}

#[test]
fn expressions_have_values() {
    for (text, value) in [
        ("matrix.os", json!("linux")),
        ("matrix['os'] == 'linux'", json!(true)),
        ("needs.build-it.outputs.version", json!("1.2")),
        ("matrix.list[1]", json!("two")),
        ("matrix.n > 2 && matrix.n <= 3.0", json!(true)),
        ("matrix.n == 3.0", json!(true)),
        ("matrix.n != 3", json!(false)),
        ("'a' < 'b'", json!(true)),
        ("!matrix.fast || needs.build-it.outputs.ok", json!(true)),
        ("null == matrix.os", json!(false)),
        ("needs.build-it.outputs.none == ''", json!(true)),
        ("false && nothing.here", json!(false)),
        ("true || nothing.here", json!(true)),
        ("contains('hello', 'ell')", json!(true)),
        ("contains(matrix.list, 'two')", json!(true)),
        ("contains(matrix.list, '1')", json!(false)),
        ("startsWith(matrix.os, 'lin') && endsWith(matrix.os, 'ux')", json!(true)),
        ("join(matrix.list)", json!("1,two")),
        ("join(matrix.list, ' - ')", json!("1 - two")),
        ("format('{{{1}}} of {0}', matrix.os, matrix.n)", json!("{3} of linux")),
        ("toJSON(matrix.list)", json!("[1,\"two\"]")),
        ("fromJSON('{\"a\": [1, {\"b\": true}]}').a[1].b", json!(true)),
        ("fromJSON(env.N) == 3", json!(true)),
        ("success() && !failure() && !cancelled() && always()", json!(true)),
        ("9007199254740993 == 9007199254740992", json!(false)),
    ] {
        assert_eq!(of(text), value, "{text}");
    }
}

#[test]
fn what_comes_to_nothing_says_why() {
    for (text, told) in [
        ("matrix.so", "there is no `so` in `matrix`; it has fast, list, n, os"),
        ("needs.build-it.outputs.versoin", "there is no `versoin` in `needs.build-it.outputs`"),
        ("matrix.list[2]", "there is no `2` in `matrix.list`; it has 2, counted from 0"),
        ("matrix.list['x']", "not a number"),
        ("matrix.os.name", "not something with keys"),
        ("steps.a.stdout", "`steps` isn't known here"),
        ("env.N == 3", "`==` compares a text with a number; put the other in quotes"),
        ("env.N > 2", "fromJSON()"),
        ("matrix.fast < true", "have an order"),
        ("matrix.list == 'a'", "never the same"),
        ("!matrix.os", "is a text, not true or false"),
        ("matrix.n && true", "is a number, not true or false"),
        ("true && 'yes'", "is a text, not true or false"),
        ("contains(matrix.n, 'a')", "contains(): `3` is a number, not a text or a list"),
        ("join('a')", "is a text, not a list"),
        ("format('{1}', 'a')", "no value for `{1}`"),
        ("format('{', 'a')", "a single `{`"),
        ("fromJSON('{')", "no JSON"),
    ] {
        let found = error(text);
        assert!(found.contains(told), "{text}: {found}");
    }
}

#[test]
fn texts_take_in_values() {
    let text =
        |text: &str| interpolate(text, &context()).map(|text| text.into_owned()).map_err(|error| error.to_string());
    assert_eq!(text("lib-${{ matrix.os }}-${{ matrix.n }}.so"), Ok("lib-linux-3.so".into()));
    assert_eq!(text("plain $HOME {}"), Ok("plain $HOME {}".into()));
    assert_eq!(text("${{ '${{' }} x }}"), Ok("${{ x }}".into()));
    assert!(text("${{ matrix.list }}").unwrap_err().contains("toJSON()"));
    assert!(text("${{ null }}").unwrap_err().contains("null"));
    assert!(text("${{ matrix. }}").unwrap_err().contains("a name follows a dot"));
}

#[test]
fn what_an_expression_becomes_is_bounded() {
    let mut text = "toJSON(matrix.os)".to_owned();
    for _ in 0..30 {
        text = format!("format('{{0}}{{0}}{{0}}', {text})");
    }
    assert!(error(&text).contains("larger than"));
    let long = "x".repeat(3 << 20);
    let context = Context::new().with("env", json!({ "A": long }));
    assert!(interpolate("${{ env.A }}${{ env.A }}", &context).unwrap_err().to_string().contains("larger than"));
}

fn verdict(condition: &str, status: Status) -> Result<String, String> {
    let condition = Condition::parse(condition);
    let context = context().with_status(status);
    decide(&condition, &context).map(|verdict| format!("{verdict:?}")).map_err(|error| error.to_string())
}

#[test]
fn conditions_are_decided() {
    let good = Status::GOOD;
    let bad = Status { success: false, failure: true, cancelled: false };
    let stopped = Status { success: false, failure: false, cancelled: true };
    for (condition, verdicts) in [
        ("success()", ["Run", "Skip", "Skip"]),
        ("failure()", ["Skip", "Run", "Skip"]),
        ("always()", ["Run", "Run", "Run"]),
        ("cancelled()", ["Skip", "Skip", "Run"]),
        ("test -f x", ["Script(\"test -f x\")", "Skip", "Skip"]),
        // Without a function of its own, success() has to hold besides; then nothing else is looked at.
        ("${{ matrix.os == 'linux' }}", ["Run", "Skip", "Skip"]),
        ("${{ needs.build-it.outputs.ok }}", ["Run", "Skip", "Skip"]),
        ("${{ failure() || cancelled() }}", ["Skip", "Run", "Run"]),
        ("${{ always() && matrix.os == 'mac' }}", ["Skip", "Skip", "Skip"]),
    ] {
        for (status, wanted) in [good, bad, stopped].into_iter().zip(verdicts) {
            assert_eq!(verdict(condition, status).as_deref(), Ok(wanted), "{condition} {status:?}");
        }
    }
    assert!(verdict("${{ matrix.os }}", good).unwrap_err().contains("not true or false"));
    assert_eq!(verdict("${{ matrix.os }}", bad).as_deref(), Ok("Skip"));
}

#[test]
fn a_job_knows_what_is_written_literally() {
    let mut spec = JobSpec::new(vec![Step::new(StepCommand::Run("x".into()))]);
    spec.env = [("A", "job"), ("C", "${{ run.id }}")].map(|(name, value)| (name.into(), value.into())).into();
    let workflow = spec.workflow.get_or_insert_default();
    workflow.workflow = "ci".into();
    workflow.name = "build".into();
    workflow.workflow_env =
        [("A", "w"), ("B", "w"), ("C", "w")].map(|(name, value)| (name.into(), value.into())).into();
    workflow.overrides = [("B".into(), "over".into())].into();
    let context = Context::of_job(&spec, &RunId(uuid::Uuid::nil()));
    let text =
        |text: &str| interpolate(text, &context).map(|text| text.into_owned()).map_err(|error| error.to_string());
    assert_eq!(text("${{ env.A }} ${{ env.B }} ${{ run.name }} ${{ job.name }}"), Ok("job over ci build".into()));
    assert!(text("${{ env.C }}").unwrap_err().contains("isn't known yet"));
    assert!(text("${{ needs.a.result }}").is_err());
}
