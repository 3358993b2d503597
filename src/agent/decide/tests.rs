//! What is written, and above all what is not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use proptest::prelude::*;

use super::*;
use crate::hardware::{Gpu, Jetson, Memory, Module, Software};

fn orin_nx() -> Hardware {
    Hardware {
        machine: "NVIDIA Jetson Orin NX Engineering Reference Developer Kit Super".to_owned(),
        memory: Memory {
            total: Bytes(15_656 << 20),
            ..Memory::default()
        },
        gpu: Some(Gpu {
            name: "integrated".to_owned(),
            sm: None,
            memory: None,
            free: None,
        }),
        jetson: Some(Jetson {
            module: Some(Module::OrinNx16),
            part: Some("p3767-0000".to_owned()),
            l4t: "36.4.3".parse().ok(),
            ..Jetson::default()
        }),
        software: Software {
            cuda: Some("12.6.68".to_owned()),
            tensorrt: Some("10.3.0.30".to_owned()),
            container_runtime: Some(true),
            ..Software::default()
        },
        ..Hardware::default()
    }
}

fn first_look() -> Seen {
    Seen {
        host: Host {
            hardware: orin_nx(),
            free_disk: Some(Bytes(112 * GIB)),
        },
        node: NodeSeen {
            name: "jetson-0".to_owned(),
            uid: "1".to_owned(),
            ..NodeSeen::default()
        },
        edge_node: None,
        runtime_class: true,
        now: "2026-01-01T00:00:00Z".to_owned(),
    }
}

fn no_edge_node() -> EdgeNode {
    let empty = serde_json::json!({
        "apiVersion": "enginewright.dev/v1alpha1", "kind": "EdgeNode", "metadata": {},
    });
    serde_json::from_value(empty).unwrap()
}

/// The cluster as it is after the writes, seen later.
fn after(mut seen: Seen, writes: &[Write]) -> Seen {
    for write in writes {
        let edge_node = seen.edge_node.get_or_insert_with(no_edge_node);
        match write {
            Write::Object { owner } => {
                edge_node.metadata = ObjectMeta {
                    owner_references: Some(vec![OwnerReference {
                        uid: owner.clone(),
                        ..OwnerReference::default()
                    }]),
                    ..ObjectMeta::default()
                };
            }
            Write::Status(status) => edge_node.status = Some((**status).clone()),
            Write::Labels(labels) => {
                let ours = std::mem::take(&mut seen.node.ours);
                seen.node.labels.retain(|key, _| !ours.contains(key));
                seen.node.ours = labels.keys().cloned().collect();
                seen.node.labels.extend(labels.clone());
            }
        }
    }
    seen.now = "2026-01-02T00:00:00Z".to_owned();
    seen
}

fn kinds(writes: &[Write]) -> Vec<WriteKind> {
    writes.iter().map(Write::kind).collect()
}

fn status_of(seen: &Seen) -> EdgeNodeStatus {
    decide(seen)
        .into_iter()
        .find_map(|write| match write {
            Write::Status(status) => Some(*status),
            _ => None,
        })
        .unwrap()
}

#[test]
fn a_first_look_writes_all_three_and_a_second_one_nothing() {
    let seen = first_look();
    let writes = decide(&seen);
    let all = [WriteKind::EdgeNode, WriteKind::Status, WriteKind::Labels];
    assert_eq!(kinds(&writes), all);
    assert_eq!(decide(&after(seen, &writes)), []);
}

#[test]
fn a_status_says_what_people_look_for() {
    let status = status_of(&first_look());
    assert_eq!(status.module.unwrap().name, "Jetson Orin NX 16GB");
    assert_eq!(status.gpu.unwrap().sm, "8.7");
    assert_eq!(status.memory.as_deref(), Some("15Gi"));
    assert_eq!(status.software.l4t.as_deref(), Some("36.4.3"));
    assert_eq!(status.software.jetpack.as_deref(), Some("6.2"));
    assert_eq!(status.runtime_class.as_deref(), Some("nvidia"));
    assert_eq!(status.free_disk.as_deref(), Some("112Gi"));
    assert_eq!(status.conditions[0].reason, Reason::HardwareFound);
}

#[test]
fn a_gpu_that_no_container_can_use_makes_the_node_unready_with_the_remedy() {
    let mut seen = first_look();
    seen.runtime_class = false;
    let condition = status_of(&seen).conditions.remove(0);
    assert_eq!(condition.status, ConditionStatus::False);
    assert_eq!(condition.reason, Reason::RuntimeClassMissing);
    assert!(
        condition.message.contains("has no RuntimeClass nvidia"),
        "{}",
        condition.message
    );
    assert!(
        condition
            .message
            .contains("Install the NVIDIA container toolkit")
    );
}

#[test]
fn a_machine_without_a_gpu_is_ready_for_the_cpu_back_end() {
    let mut seen = first_look();
    seen.host.hardware.gpu = None;
    seen.host.hardware.jetson = None;
    let status = status_of(&seen);
    assert_eq!(status.conditions[0].status, ConditionStatus::True);
    assert_eq!(status.conditions[0].reason, Reason::GpuNotFound);
    assert_eq!((status.gpu, status.module), (None, None));
}

#[test]
fn the_time_of_a_condition_changes_with_its_status_only() {
    let seen = first_look();
    let mut seen = after(seen.clone(), &decide(&seen));
    seen.host.hardware.software.cuda = Some("12.6.99".to_owned());
    let same = status_of(&seen).conditions.remove(0);
    assert_eq!(same.last_transition_time, "2026-01-01T00:00:00Z");
    seen.runtime_class = false;
    let other = status_of(&seen).conditions.remove(0);
    assert_eq!(other.last_transition_time, "2026-01-02T00:00:00Z");
}

#[test]
fn a_little_more_or_less_free_disk_writes_nothing() {
    let seen = first_look();
    let mut seen = after(seen.clone(), &decide(&seen));
    for gib in [106, 112, 118] {
        seen.host.free_disk = Some(Bytes(gib * GIB));
        assert_eq!(decide(&seen), [], "{gib}");
    }
    seen.host.free_disk = Some(Bytes(100 * GIB));
    assert_eq!(status_of(&seen).free_disk.as_deref(), Some("100Gi"));
}

#[test]
fn a_node_that_came_back_under_its_name_becomes_the_owner() {
    let seen = first_look();
    let mut seen = after(seen.clone(), &decide(&seen));
    seen.node.uid = "2".to_owned();
    let owner = "2".to_owned();
    assert_eq!(decide(&seen), [Write::Object { owner }]);
}

#[test]
fn labels_of_the_user_are_left_and_our_stale_ones_go() {
    let seen = first_look();
    let mut seen = after(seen.clone(), &decide(&seen));
    let wave = "enginewright.dev/wave".to_owned();
    seen.node.labels.insert(wave, "canary".to_owned());
    assert_eq!(decide(&seen), []);
    seen.host.hardware.software.tensorrt = None;
    let writes = decide(&seen);
    assert_eq!(kinds(&writes), [WriteKind::Status, WriteKind::Labels]);
    let seen = after(seen, &writes);
    assert!(!seen.node.labels.contains_key("enginewright.dev/tensorrt"));
    assert!(seen.node.labels.contains_key("enginewright.dev/wave"));
}

#[test]
fn a_label_that_was_changed_is_put_back() {
    let seen = first_look();
    let mut seen = after(seen.clone(), &decide(&seen));
    let sm = seen.node.labels.get_mut("enginewright.dev/sm").unwrap();
    *sm = "9.0".to_owned();
    assert_eq!(kinds(&decide(&seen)), [WriteKind::Labels]);
}

proptest! {
    #[test]
    fn whatever_is_seen_the_second_look_writes_nothing(
        machine in "\\PC{0,200}",
        total in any::<u64>(),
        free in proptest::option::of(any::<u64>()),
        tensorrt in proptest::option::of("\\PC{0,60}"),
        notes in proptest::collection::vec("\\PC{0,900}", 0..8),
        runtime_class in any::<bool>(),
        jetson in any::<bool>(),
    ) {
        let mut seen = first_look();
        let hardware = &mut seen.host.hardware;
        hardware.machine = machine;
        hardware.memory.total = Bytes(total);
        hardware.software.tensorrt = tensorrt;
        hardware.notes = notes;
        if jetson {
            hardware.jetson = Some(Jetson { soc: Some("tegra234".to_owned()), ..Jetson::default() });
        }
        seen.host.free_disk = free.map(Bytes);
        seen.runtime_class = runtime_class;
        let writes = decide(&seen);
        let seen = after(seen, &writes);
        prop_assert_eq!(decide(&seen), []);
        let message = &seen.edge_node.unwrap().status.unwrap().conditions[0].message;
        prop_assert!(message.chars().count() <= 4096);
    }
}
