use std::path::PathBuf;

use super::*;

#[test]
fn a_missing_shim_is_named_with_the_place_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let search = Search {
        shim: Some(folder.path().to_owned()),
        tensorrt: None,
    };
    let message = load(&search).unwrap_err().to_string();
    assert!(message.contains("libenginewright_trt.so"), "{message}");
    assert!(
        message.contains(&folder.path().display().to_string()),
        "{message}"
    );
    assert!(message.contains("make shim"), "{message}");
}

#[test]
fn a_library_that_is_no_shim_is_refused() {
    let search = Search {
        shim: Some(PathBuf::from("/proc/self/exe")),
        tensorrt: None,
    };
    let error = load(&search).unwrap_err();
    assert!(matches!(error, TensorRtError::WrongShim { .. }), "{error}");
}

#[test]
fn a_missing_tensorrt_says_who_has_it() {
    let missing = |flavour| {
        TensorRtError::NotFound {
            flavour,
            tried: "here".to_owned(),
        }
        .to_string()
    };
    let jetson = missing(Flavour::Enterprise);
    assert!(
        jetson.starts_with("libnvinfer.so.10 was not found in here"),
        "{jetson}"
    );
    assert!(jetson.contains("JetPack has it in"), "{jetson}");
    let rtx = missing(Flavour::Rtx);
    assert!(rtx.contains("scripts/tools trt"), "{rtx}");
}

#[test]
fn two_products_of_the_same_number_have_different_names_in_keys() {
    let version = Version([1, 6, 1, 120]);
    assert_eq!(Flavour::Rtx.in_key(version), "rtx-1.6.1.120");
    assert_eq!(Flavour::Enterprise.in_key(version), "1.6.1.120");
}

#[test]
fn only_bytes_with_the_stated_digest_are_a_trusted_plan() {
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    TrustedPlan::check(b"abc", digest).unwrap();
    for (bytes, digest) in [(b"abd".as_slice(), digest), (b"abc", ""), (b"", digest)] {
        let error = TrustedPlan::check(bytes, digest).unwrap_err();
        assert!(matches!(error, TensorRtError::Untrusted { .. }), "{error}");
    }
}

#[test]
fn the_interface_number_is_that_of_the_header() {
    let header = include_str!("shim/enginewright_trt.h");
    assert!(header.contains("#define EW_ABI_VERSION 1\n"));
}
