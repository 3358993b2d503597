use super::*;

#[test]
fn releases_are_compared_as_numbers() {
    for (text, understood) in [
        ("0.12.6", true),
        ("0.6.5", true),
        ("0.6.4", false),
        ("0.5.13", false),
        ("1.0.0", true),
        ("0.13.0-rc1", true),
        ("0.0.0", true),
    ] {
        let version = Version::parse(text).unwrap();
        assert_eq!(version.is_understood(), understood, "{text}");
    }
    for bad in ["", "1", "1.2", "1.2.3.4", "a.b.c", "latest"] {
        assert_eq!(Version::parse(bad), None, "{bad}");
    }
}

#[test]
fn a_name_without_a_tag_is_the_latest() {
    assert_eq!(with_tag("m"), "m:latest");
    assert_eq!(with_tag("m:8b"), "m:8b");
    assert_eq!(with_tag("host:5000/m"), "host:5000/m:latest");
}

#[test]
fn a_pull_reports_bytes_success_and_errors() {
    let mut seen = Vec::new();
    let mut progress = |done, total| seen.push((done, total));
    let lines = [
        (r#"{"status":"pulling manifest"}"#, Some(false)),
        (
            r#"{"status":"pulling","completed":5,"total":10}"#,
            Some(false),
        ),
        (r#"{"status":"success"}"#, Some(true)),
        (
            r#"{"error":"pull model manifest: file does not exist"}"#,
            None,
        ),
        ("<html>", None),
    ];
    for (line, expected) in lines {
        assert_eq!(
            pulled(line.as_bytes(), &mut progress).ok(),
            expected,
            "{line}"
        );
    }
    assert_eq!(seen, [(5, Some(10))]);
}
