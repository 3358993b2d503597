//! What pods are taken for.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::pods::{Standing, standing};
use crate::api::Reason;

fn pod(container: &Value) -> Pod {
    let mut status = json!({"name": "engine", "image": "", "imageID": "", "ready": false,
        "restartCount": 0});
    let fields = status.as_object_mut().unwrap();
    fields.extend(container.as_object().unwrap().clone());
    serde_json::from_value(json!({"status": {"containerStatuses": [status]}})).unwrap()
}

fn ended(container: &Value) -> (Reason, Option<i32>, bool) {
    match standing(&pod(container), "engine") {
        Standing::Ended(failure) => (failure.reason, failure.exit_code, failure.transient),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_container_that_ended_is_ended_also_when_the_kubelet_starts_it_again() {
    let crash = json!({"terminated": {"exitCode": 139, "reason": "Error"}});
    let expected = (Reason::EngineCrashed, Some(139), false);
    assert_eq!(ended(&json!({"state": crash})), expected);
    let again = json!({"state": {"running": {}}, "lastState": crash, "restartCount": 1});
    assert_eq!(ended(&again), expected);
}

#[test]
fn memory_and_the_environment_are_told_from_crashes() {
    let oom = json!({"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}});
    assert_eq!(ended(&oom), (Reason::EngineOutOfMemory, Some(137), false));
    let disk = json!({"state": {"terminated": {"exitCode": 4, "reason": "Error"}}});
    assert_eq!(ended(&disk), (Reason::EnvironmentError, Some(4), true));
}

#[test]
fn the_end_of_the_node_is_not_the_engines_fault() {
    let rebooted = json!({"started": true, "state": {"running": {}}, "restartCount": 1,
        "lastState": {"terminated": {"exitCode": 255, "reason": "Unknown"}}});
    assert_eq!(standing(&pod(&rebooted), "engine"), Standing::Started);
}

#[test]
fn an_image_that_is_not_there_may_come() {
    let waiting = |reason: &str| json!({"state": {"waiting": {"reason": reason, "message": "x"}}});
    let standing = |reason: &str| standing(&pod(&waiting(reason)), "engine");
    assert!(matches!(standing("ImagePullBackOff"), Standing::Stuck(why) if why.transient));
    assert!(matches!(standing("InvalidImageName"), Standing::Stuck(why) if !why.transient));
    assert_eq!(standing("ContainerCreating"), Standing::Coming);
}

#[test]
fn last_words_are_quoted_without_their_json() {
    let said = "{\"level\":\"INFO\",\"message\":\"loading\"}\n{\"message\":\"no such file\"}\n";
    let container = json!({"state": {"terminated": {"exitCode": 3, "message": said}}});
    match standing(&pod(&container), "engine") {
        Standing::Ended(failure) => {
            assert!(failure.message.contains("no such file"), "{failure:?}");
            assert!(!failure.message.contains('{'), "{failure:?}");
        }
        other => panic!("{other:?}"),
    }
}
