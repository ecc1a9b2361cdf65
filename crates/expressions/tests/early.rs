//! What can be decided early is decided the same way late.

#![allow(clippy::unwrap_used, reason = "a test says in one word that this cannot fail")]

use executr_expressions::{Context, Evaluated, Expression, Status, decide, decide_early, evaluate, evaluate_early};
use executr_spec::Condition;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Expressions of which many come to something, some to an error, and most ask for something that is known late.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "true",
        "false",
        "null",
        "'true'",
        "'linux'",
        "3",
        "matrix.os",
        "matrix.n",
        "matrix.gone",
        "needs.a.result",
        "needs.a.outputs.x",
        "needs.b.result",
        "env.LITERAL",
        "env.PROVIDED",
        "env.NONE",
        "steps.one.stdout",
        "steps.one.exit_code",
        "success()",
        "failure()",
        "cancelled()",
        "always()",
        "run.name",
        "nothing.here",
        "matrix.list",
        "env",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(5, 40, 3, |inner| {
        let operator = prop::sample::select(vec!["&&", "||", "==", "!=", "<", ">="]);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(a, operator, b)| format!("({a} {operator} {b})")),
            inner.clone().prop_map(|a| format!("!{a}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("contains({a}, {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("format('{{0}}-{{1}}', {a}, {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("(env[{a}] == {b})")),
            inner.prop_map(|a| format!("toJSON({a})")),
        ]
    })
}

/// A run as it turns out: values, and how much of them is known early.
#[derive(Debug)]
struct Run {
    early: Context,
    late: Context,
}

fn run() -> impl Strategy<Value = Run> {
    let word = || prop::sample::select(vec!["success", "failure", "true", "false", "linux", "3"]);
    let status = prop::sample::select(vec![
        Status::GOOD,
        Status { success: false, failure: true, cancelled: false },
        Status { success: false, failure: false, cancelled: true },
    ]);
    (word(), word(), word(), word(), status, any::<[bool; 5]>()).prop_map(
        |(os, result, provided, stdout, status, known)| {
            let values: [(&str, Value); 5] = [
                ("matrix", json!({"os": os, "n": 3, "list": ["a", os]})),
                ("needs", json!({"a": {"result": result, "outputs": {"x": stdout}}})),
                ("steps", json!({"one": {"stdout": stdout, "exit_code": 3}})),
                ("run", json!({"name": "ci"})),
                ("env", json!({"LITERAL": "true", "PROVIDED": provided})),
            ];
            let (mut early, mut late) = (Context::new(), Context::new().with_status(status));
            for ((root, value), known) in values.into_iter().zip(known) {
                early = match (root, known) {
                    ("env", false) => early.with_part("env", json!({"LITERAL": "true"})),
                    (_, true) => early.with(root, value.clone()),
                    (_, false) => early.later(root),
                };
                late = late.with(root, value);
            }
            if known[0] {
                early = early.with_status(status);
            }
            Run { early, late }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_value_known_early_is_the_value_late(text in expression(), run in run()) {
        let expression = Expression::parse(&text).unwrap();
        let late = evaluate(&expression, &run.late);
        match evaluate_early(&expression, &run.early) {
            Ok(Evaluated::Known(early)) => prop_assert_eq!(Ok(early), late),
            Ok(Evaluated::NotYet(_)) => {}
            Err(early) => prop_assert_eq!(Err(early), late),
        }
    }

    #[test]
    fn a_condition_decided_early_is_decided_the_same_way_late(text in expression(), run in run()) {
        let condition = Condition::Expression(text);
        let late = decide(&condition, &run.late);
        match decide_early(&condition, &run.early) {
            Ok(Some(early)) => prop_assert_eq!(Ok(early), late),
            Ok(None) => {}
            Err(early) => prop_assert_eq!(Err(early), late),
        }
    }

    #[test]
    fn any_text_is_an_expression_or_told_why_not(text in "[a-z'().&|=!<>\\[\\], ${}0-9-]{0,40}") {
        if let Err(error) = Expression::parse(&text) {
            prop_assert!(text.get(error.offset..).is_some(), "{error}");
        }
    }
}

#[test]
fn much_is_decided_early() {
    let early = Context::new().with("matrix", json!({"os": "mac"})).later("needs").with_status(Status::GOOD);
    for (text, known) in [
        ("matrix.os == 'linux' && needs.a.result == 'success'", true),
        ("needs.a.result == 'success' && matrix.os == 'linux'", false),
        ("matrix.os == 'mac' || needs.a.outputs.x", true),
    ] {
        let condition = Condition::Expression(text.to_owned());
        assert_eq!(decide_early(&condition, &early).unwrap().is_some(), known, "{text}");
    }
}
