//! Events: what a change of the conditions tells people. Which there are is decided here, pure;
//! publishing them is best effort, and the recorder folds repetitions into one.

use kube::runtime::events::{Event, EventType, Recorder};

use crate::api::conditions::{ConditionStatus, ConditionType, Reason};
use crate::api::{Condition, InferenceEngineStatus};
use crate::controller::Owner;
use k8s_openapi::api::core::v1::ObjectReference;

/// Longest note that the API takes, in bytes.
const NOTE: usize = 1024;

/// What a change from one status to another tells.
pub fn told(before: &InferenceEngineStatus, after: &InferenceEngineStatus) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for kind in [
        ConditionType::Ready,
        ConditionType::Available,
        ConditionType::FallbackActive,
    ] {
        let Some(next) = find(after, kind) else {
            continue;
        };
        let same = find(before, kind)
            .is_some_and(|old| old.status == next.status && old.reason == next.reason);
        let heard = events
            .iter()
            .any(|event| event.reason == next.reason.as_str());
        if !same && !heard && next.reason != Reason::Pending {
            events.push(event(kind, next, is_bad(after, kind, next.status)));
        }
    }
    events
}

fn find(status: &InferenceEngineStatus, kind: ConditionType) -> Option<&Condition> {
    status.conditions.iter().find(|one| one.kind == kind)
}

/// Being on the way is no reason to warn.
fn is_bad(after: &InferenceEngineStatus, kind: ConditionType, status: ConditionStatus) -> bool {
    let stalled = find(after, ConditionType::Stalled).is_some();
    match kind {
        ConditionType::Ready => stalled,
        ConditionType::Available => status == ConditionStatus::False && stalled,
        _ => false,
    }
}

fn event(kind: ConditionType, condition: &Condition, bad: bool) -> Event {
    let mut note = condition.message.clone();
    note.truncate(note.floor_char_boundary(NOTE));
    Event {
        type_: if bad {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: condition.reason.as_str().to_owned(),
        note: Some(note),
        action: kind.as_str().to_owned(),
        secondary: None,
    }
}

/// Publishes; an event that is lost is only an event.
pub async fn publish(recorder: &Recorder, owner: &Owner, events: Vec<Event>) {
    let reference = ObjectReference {
        api_version: Some("enginewright.dev/v1alpha1".to_owned()),
        kind: Some("InferenceEngine".to_owned()),
        name: Some(owner.name.to_string()),
        namespace: Some(owner.namespace.clone()),
        uid: Some(owner.uid.clone()),
        ..ObjectReference::default()
    };
    for event in events {
        if let Err(error) = recorder.publish(&event, &reference).await {
            tracing::debug!(%error, reason = event.reason, "an event was lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(words: &[(ConditionType, ConditionStatus, Reason)]) -> InferenceEngineStatus {
        InferenceEngineStatus {
            conditions: words
                .iter()
                .map(|(kind, status, reason)| Condition {
                    kind: *kind,
                    status: *status,
                    observed_generation: None,
                    last_transition_time: String::new(),
                    reason: *reason,
                    message: "é".repeat(NOTE),
                })
                .collect(),
            ..InferenceEngineStatus::default()
        }
    }

    #[test]
    fn an_event_is_told_once_for_each_change_and_fits_the_api() {
        use ConditionStatus::{False, True};
        use ConditionType::{Available, Ready, Stalled};
        let nothing = InferenceEngineStatus::default();
        let fetching = status(&[(Ready, False, Reason::FetchingModel)]);
        let events = told(&nothing, &fetching);
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].type_, EventType::Normal);
        assert!(events[0].note.as_ref().unwrap().len() <= NOTE);
        assert!(told(&fetching, &fetching).is_empty());
        let stalled = status(&[
            (Ready, False, Reason::ModelNotFound),
            (Stalled, True, Reason::ModelNotFound),
            (Available, False, Reason::NothingServing),
        ]);
        let reasons: Vec<_> = told(&fetching, &stalled)
            .into_iter()
            .map(|event| (event.reason, event.type_))
            .collect();
        assert_eq!(
            reasons,
            [
                ("ModelNotFound".to_owned(), EventType::Warning),
                ("NothingServing".to_owned(), EventType::Warning)
            ]
        );
    }
}
