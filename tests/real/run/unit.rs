//! The systemd unit is one that systemd understands.

use std::process::Command;

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let unit = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/manifests/systemd/enginewright.service"
    ))
    .unwrap();
    // The program need not be installed for the check.
    let program = crate::tools::binary().display().to_string();
    let here = unit.replace("/usr/local/bin/enginewright", &program);
    assert_ne!(unit, here);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("enginewright.service");
    std::fs::write(&file, here).unwrap();
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&file)
        .output()
        .expect("systemd-analyze is missing: run `make tools` first");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=25"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "too little hardened:\n{said}");
}
