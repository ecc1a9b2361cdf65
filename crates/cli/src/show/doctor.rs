//! What `executr doctor` found, aligned.

use std::io::{self, Write};

use executr_executors::doctor::{Report, Standing};

use super::ink::{Ink, Paint};

/// Writes the findings in a block for each section; the remedy of one stands below it.
pub(crate) fn write_report(out: &mut impl Write, report: &Report, ink: Ink) -> io::Result<()> {
    let findings = || report.sections.iter().flat_map(|section| &section.findings);
    let width = findings().map(|finding| finding.subject.len()).max().unwrap_or(0);
    for section in &report.sections {
        writeln!(out, "{}", ink.paint(Paint::Heading, section.name))?;
        for finding in &section.findings {
            let (word, paint) = match finding.standing {
                Standing::Ok => ("ok", Paint::Good),
                Standing::Lacks => ("lacks", Paint::Busy),
                Standing::Broken => ("broken", Paint::Bad),
            };
            let gap = " ".repeat(STANDING - word.len());
            writeln!(out, "  {}{gap}  {:width$}  {}", ink.paint(paint, word), finding.subject, finding.says)?;
            if let Some(remedy) = &finding.remedy {
                let indent = " ".repeat(STANDING + width + 6);
                writeln!(out, "{indent}{}", ink.paint(Paint::Note, &format!("→ {remedy}")))?;
            }
        }
    }
    out.flush()
}

/// As wide as the longest word for a standing.
const STANDING: usize = "broken".len();

#[cfg(test)]
mod tests {
    use executr_executors::doctor::{Finding, Section};

    use super::*;

    #[test]
    fn columns_are_aligned_and_remedies_stand_below() {
        let finding = |subject, standing, remedy: Option<&str>| Finding {
            subject,
            standing,
            says: "so".to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        let report = Report {
            sections: vec![
                Section { name: "machine", findings: vec![finding("git", Standing::Ok, None)] },
                Section { name: "oci", findings: vec![finding("engine", Standing::Broken, Some("start it"))] },
            ],
        };
        let mut out = Vec::new();
        write_report(&mut out, &report, Ink::NONE).expect("memory");
        let expected = "\
machine
  ok      git     so
oci
  broken  engine  so
                  → start it
";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}
