//! What tests read out of a Markdown page: fenced blocks, links, tables' code.

/// A fenced block of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The words behind the opening fence: the language, then what our tests are told about it.
    pub info: Vec<String>,
    /// The lines between the fences, without the indentation of the opening one.
    pub text: String,
    /// The line of the opening fence, counted from 1.
    pub line: usize,
}

/// All fenced blocks of a page in their order.
///
/// # Panics
///
/// When a fence isn't closed.
#[must_use]
pub fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let indentation = line.len() - line.trim_start().len();
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let mut text = String::new();
        loop {
            let Some((_, line)) = lines.next() else { panic!("the fence of line {} stays open", number + 1) };
            if line.trim_start() == "```" {
                break;
            }
            text.push_str(line.get(indentation..).unwrap_or_default());
            text.push('\n');
        }
        found.push(Block { info: info.split_whitespace().map(str::to_owned).collect(), text, line: number + 1 });
    }
    found
}

/// The targets of all links `[text](target)` outside fenced blocks.
#[must_use]
pub fn links(page: &str) -> Vec<String> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for rest in line.split("](").skip(1) {
            if let Some((target, _)) = rest.split_once(')') {
                found.push(target.to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lose_their_indentation_and_keep_their_inner_one() {
        let page = "1. so\n\n   ```sh norun\n   a \\\n     b\n   ```\n```\nc\n```\n";
        let found = blocks(page);
        assert_eq!(found[0].info, ["sh", "norun"]);
        assert_eq!((found[0].text.as_str(), found[0].line), ("a \\\n  b\n", 3));
        assert_eq!((found[1].info.len(), found[1].text.as_str()), (0, "c\n"));
    }

    #[test]
    #[should_panic(expected = "line 2 stays open")]
    fn an_open_fence_is_no_block() {
        drop(blocks("text\n```sh\nforever\n"));
    }

    #[test]
    fn links_in_blocks_are_no_links() {
        assert_eq!(links("[a](b.md) and [c](d#e)\n```\n[no](x)\n```\n"), ["b.md", "d#e"]);
    }
}
