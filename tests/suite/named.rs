//! What the documentation names is there.

use std::path::{Path, PathBuf};

/// All sources below a folder, in one text.
fn text_of(folder: &str) -> String {
    let mut files: Vec<PathBuf> = Vec::new();
    super::layering::sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
        &mut files,
    );
    let texts = files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap());
    texts.collect::<Vec<_>>().join("\n")
}

/// Whether a word in backticks is a path of a test or the name of a law.
fn names_a_test(word: &str) -> bool {
    let law = word
        .strip_prefix('i')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && rest.contains('_'));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    word.chars().all(plain) && (law || word.contains("::"))
}

#[test]
fn every_test_that_the_operators_documentation_names_exists() {
    let sources = [text_of("src"), text_of("tests")].join("\n");
    let document = include_str!("../../docs/operator.md");
    let tables = document.split("## What is proven").nth(1).unwrap();
    let words = tables.split('`').skip(1).step_by(2);
    let named: Vec<&str> = words.filter(|word| names_a_test(word)).collect();
    assert!(named.len() > 40, "{named:?}");
    let missing: Vec<_> = named
        .iter()
        .filter(|path| {
            let last = path.rsplit("::").find(|part| !part.is_empty()).unwrap();
            let forms = [
                format!("fn {last}("),
                format!("mod {last};"),
                format!("mod {last} "),
            ];
            !forms.iter().any(|form| sources.contains(form))
        })
        .collect();
    assert_eq!(
        missing,
        Vec::<&&str>::new(),
        "rename them in docs/operator.md"
    );
}
