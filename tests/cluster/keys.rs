//! Keys and certificates of a cluster that lives for minutes, made with `openssl`.

use std::path::Path;
use std::process::Command;

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("openssl is installed: run `scripts/tools system`");
    assert!(
        output.status.success(),
        "openssl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

const NEW_KEY: [&str; 5] = [
    "req",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
];

/// Writes `sa.key`, with which service account tokens are signed.
pub fn token_key(folder: &Path) {
    // The API server reads no public key from PKCS#8; this command writes SEC 1.
    let key = [
        "ecparam",
        "-genkey",
        "-noout",
        "-name",
        "prime256v1",
        "-out",
        "sa.key",
    ];
    openssl(folder, &key);
}

/// Writes `ca.key` and `ca.crt`.
pub fn authority(folder: &Path) {
    let rest = [
        "-x509",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
        "-subj",
        "/CN=test-ca",
        "-days",
        "2",
    ];
    openssl(folder, &[&NEW_KEY[..], &rest].concat());
}

/// Writes `NAME.key` and `NAME.crt`, signed by the authority: `subject` as `/O=…/CN=…`, `names` as
/// `IP:127.0.0.1,DNS:localhost` for a server, empty for a client.
pub fn certificate(folder: &Path, name: &str, subject: &str, names: &str) {
    let (key, request, certificate) = (
        format!("{name}.key"),
        format!("{name}.csr"),
        format!("{name}.crt"),
    );
    let rest = [
        "-nodes", "-keyout", &key, "-out", &request, "-subj", subject,
    ];
    openssl(folder, &[&NEW_KEY[..], &rest].concat());
    let usage = if names.is_empty() {
        "extendedKeyUsage=clientAuth".to_owned()
    } else {
        format!("extendedKeyUsage=serverAuth\nsubjectAltName={names}")
    };
    std::fs::write(folder.join("extensions"), usage).expect("a file in a new folder");
    openssl(
        folder,
        &[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-out",
            &certificate,
            "-days",
            "2",
            "-extfile",
            "extensions",
        ],
    );
}
