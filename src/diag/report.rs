//! Faults as text: what is wrong, where, the line with carets, and how to mend it.

use std::fmt::Write;

use super::issue::{Issue, Severity};
use super::locate::{Lines, Outline, Spot};

/// One text that faults may lie in.
#[derive(Clone, Debug)]
pub struct Source {
    /// What the reader knows it by, which is mostly its file name.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// A fault and the text it lies in.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which of the sources.
    pub source: usize,
    /// Where, if that is known already; else it is looked up by the issue's path.
    pub spot: Option<Spot>,
    /// The fault. Its path is the one within this source.
    pub issue: Issue,
}

/// A line wider than this is cut to a window around the fault.
const WINDOW: usize = 100;
/// How much of a cut line is shown before the fault.
const BEFORE: usize = 40;

/// All findings as text, by source and line, and at last their count. No line feed at the end; empty without findings.
pub fn report(sources: &[Source], findings: &[Finding], colour: bool) -> String {
    let mut text = String::new();
    let (mut errors, mut warnings) = (0, 0);
    for (index, source) in sources.iter().enumerate() {
        let inside: Vec<&Finding> = findings.iter().filter(|finding| finding.source == index).collect();
        if inside.is_empty() {
            continue;
        }
        let (outline, lines) = (Outline::of(&source.text), Lines::of(&source.text));
        let mut placed: Vec<(Spot, &Issue)> = inside
            .iter()
            .map(|found| {
                (found.spot.unwrap_or_else(|| outline.find(&found.issue.path, found.issue.place)), &found.issue)
            })
            .collect();
        placed.sort_by_key(|(spot, _)| *spot);
        // What an alias repeats is wrong once.
        placed.dedup_by(|(a_spot, a), (b_spot, b)| a_spot == b_spot && a.message == b.message);
        for (spot, issue) in placed {
            match issue.severity {
                Severity::Error => errors += 1,
                Severity::Warning => warnings += 1,
            }
            entry(&mut text, source, &lines, spot, issue, colour);
            text.push('\n');
        }
    }
    let counts = [(errors, "error"), (warnings, "warning")].into_iter().filter(|(count, _)| *count > 0);
    let counts = counts.map(|(count, name)| format!("{count} {name}{}", if count == 1 { "" } else { "s" }));
    text + &counts.collect::<Vec<_>>().join(", ")
}

fn entry(text: &mut String, source: &Source, lines: &Lines<'_>, spot: Spot, issue: &Issue, colour: bool) {
    let (name, code) = match issue.severity {
        Severity::Error => ("error:", "1;31"),
        Severity::Warning => ("warning:", "1;33"),
    };
    let name = if colour { format!("\x1b[{code}m{name}\x1b[0m") } else { name.to_owned() };
    let path = issue.path.to_string();
    let path = if path.is_empty() { path } else { format!(" ({})", tame(&path)) };
    let (line, column) = lines.position(spot.start);
    let margin = " ".repeat(line.to_string().len());
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(text, "{name} {}", tame(&issue.message));
    if source.text.is_empty() {
        let _ = writeln!(text, " --> {}{path}", tame(&source.name));
    } else {
        let marked = source.text.get(spot.start..spot.end).map_or(0, |marked| marked.chars().count());
        let (shown, carets) = snippet(lines.line(line), column - 1, marked);
        let _ = writeln!(text, "{margin}--> {}:{line}:{column}{path}", tame(&source.name));
        let _ = writeln!(text, "{margin} |\n{line} | {shown}\n{margin} | {carets}");
    }
    if let Some(hint) = &issue.hint {
        let _ = writeln!(text, "hint: {}", tame(hint));
    }
}

/// The line as shown, and the carets below it. `start` and `marked` count characters of the line.
fn snippet(line: &str, start: usize, marked: usize) -> (String, String) {
    let cells: Vec<(String, usize)> = line.trim_end().chars().map(cell).collect();
    let start = start.min(cells.len());
    let (mut first, mut last) = (0, cells.len());
    if cells.len() > WINDOW {
        first = start.saturating_sub(BEFORE);
        last = cells.len().min(first + WINDOW);
    }
    let mut shown = if first > 0 { "…".to_owned() } else { String::new() };
    let mut carets = " ".repeat(usize::from(first > 0));
    for (position, (piece, width)) in cells.iter().enumerate().take(last).skip(first) {
        shown.push_str(piece);
        match position {
            _ if position < start => carets.push_str(&" ".repeat(*width)),
            _ if position < start + marked => carets.push_str(&"^".repeat(*width)),
            _ => {}
        }
    }
    if last < cells.len() {
        shown.push('…');
    }
    if !carets.ends_with('^') {
        carets.push('^');
    }
    (shown, carets)
}

/// One character as shown, and how many columns of a terminal it takes.
fn cell(character: char) -> (String, usize) {
    match character {
        '\t' => ("    ".to_owned(), 4),
        _ if character.is_control() => ("\u{fffd}".to_owned(), 1),
        // Marks that join the letter before them, and the joiners of emoji.
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}' => (character.to_string(), 0),
        // The blocks of East Asian wide letters (Unicode Annex 11) and of emoji.
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1f64f}'
        | '\u{1f680}'..='\u{1f6ff}'
        | '\u{1f900}'..='\u{1f9ff}'
        | '\u{20000}'..='\u{3fffd}' => (character.to_string(), 2),
        _ => (character.to_string(), 1),
    }
}

/// A document's text may end up on a terminal by way of a message: nothing in it may steer that.
fn tame(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::{Path, Place};

    fn source(text: &str) -> Source {
        Source { name: "shop.yaml".to_owned(), text: text.to_owned() }
    }

    fn found(path: Path, severity: Severity, message: &str, hint: Option<&str>) -> Finding {
        let hint = hint.map(str::to_owned);
        let issue = Issue { path, place: Place::Value, severity, message: message.to_owned(), hint };
        Finding { source: 0, spot: None, issue }
    }

    const SHOP: &str =
        "listeners: [\":80\"]\n\nupstreams:\n  shop: [127.0.0.1:80]\nroutes:\n  - match: /\n    proxy: shpo\n";

    #[test]
    fn a_report_names_place_fault_and_mend() {
        let root = Path::default;
        let findings = [
            found(
                root().key("routes").index(0).key("proxy"),
                Severity::Error,
                "no upstream is named `shpo`",
                Some("did you mean `shop`?"),
            ),
            found(root().key("upstreams").key("shop"), Severity::Warning, "no route uses the upstream `shop`", None),
        ];
        let expected = "\
warning: no route uses the upstream `shop`
 --> shop.yaml:4:9 (upstreams.shop)
  |
4 |   shop: [127.0.0.1:80]
  |         ^^^^^^^^^^^^^^

error: no upstream is named `shpo`
 --> shop.yaml:7:12 (routes[0].proxy)
  |
7 |     proxy: shpo
  |            ^^^^
hint: did you mean `shop`?

1 error, 1 warning";
        assert_eq!(report(&[source(SHOP)], &findings, false), expected);
    }

    #[test]
    fn only_the_severity_is_coloured_and_only_when_asked() {
        let findings = [found(Path::default().key("routes"), Severity::Error, "no", None)];
        let coloured = report(&[source(SHOP)], &findings, true);
        assert!(coloured.starts_with("\x1b[1;31merror:\x1b[0m no\n"), "{coloured}");
        assert_eq!(coloured.matches('\x1b').count(), 2);
    }

    #[test]
    fn nothing_found_is_nothing_told_and_a_text_that_is_missing_has_no_lines() {
        assert_eq!(report(&[source(SHOP)], &[], false), "");
        let told = report(&[source("")], &[found(Path::default(), Severity::Error, "no such file", None)], false);
        assert_eq!(told, "error: no such file\n --> shop.yaml\n\n1 error");
    }

    #[test]
    fn carets_stand_below_what_they_mark() {
        let long = "x".repeat(300);
        for (line, start, marked, shown, carets) in [
            ("\ta: b", 4, 1, "    a: b", "       ^"),
            ("漢字: é", 4, 1, "漢字: é", "      ^"),
            ("a: 漢字", 3, 2, "a: 漢字", "   ^^^^"),
            ("a: \x1b[31m", 3, 5, "a: \u{fffd}[31m", "   ^^^^^"),
            ("a:", 2, 0, "a:", "  ^"),
            ("", 0, 0, "", "^"),
            ("short", 99, 3, "short", "     ^"),
        ] {
            assert_eq!(snippet(line, start, marked), (shown.to_owned(), carets.to_owned()), "{line:?}");
        }
        let (shown, carets) = snippet(&long, 200, 3);
        assert_eq!(shown.chars().count(), WINDOW + 2);
        assert_eq!(carets, format!("{}^^^", " ".repeat(BEFORE + 1)));
        let (shown, carets) = snippet(&long, 0, 300);
        assert_eq!((shown.chars().count(), carets.len()), (WINDOW + 1, WINDOW));
    }

    #[test]
    fn lines_of_two_digits_widen_the_margin() {
        let text = format!("{}a: b\n", "\n".repeat(11));
        let told = report(&[source(&text)], &[found(Path::default().key("a"), Severity::Error, "no", None)], false);
        assert_eq!(told, "error: no\n  --> shop.yaml:12:4 (a)\n   |\n12 | a: b\n   |    ^\n\n1 error");
    }

    #[test]
    fn a_fault_that_an_alias_repeats_is_told_once() {
        let text = "a: &x\n  b: 1\nc: *x\n";
        let at = |key| found(Path::default().key(key).key("b"), Severity::Error, "no", None);
        assert!(report(&[source(text)], &[at("a"), at("c")], false).ends_with("\n\n1 error"));
    }
}
