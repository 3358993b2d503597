//! The report in the words of the resource: from [`Status`] to `status` of an `InferenceEngine`.
//! Decides nothing but the times of conditions, which are given to it.

use super::types::{Measured, Status};
use crate::api::inference_engine::{FailedRevision, MeasuredStatus};
use crate::api::{Condition, InferenceEngineStatus, format_span};

/// The planner's report in the words of the resource. `now`: RFC 3339; times of conditions that did
/// not change are kept from `before`.
pub fn status_of(
    status: &Status,
    before: &InferenceEngineStatus,
    endpoint: Option<&str>,
    retry_token: Option<&str>,
    now: &str,
) -> InferenceEngineStatus {
    let generation = i64::try_from(status.observed_generation).ok();
    let conditions = status
        .conditions
        .iter()
        .map(|condition| {
            let old = before
                .conditions
                .iter()
                .find(|old| old.kind == condition.kind && old.status == condition.status);
            Condition {
                kind: condition.kind,
                status: condition.status,
                observed_generation: i64::try_from(condition.observed_generation).ok(),
                last_transition_time: old
                    .map_or(now, |old| old.last_transition_time.as_str())
                    .to_owned(),
                reason: condition.reason,
                message: condition.message.clone(),
            }
        })
        .collect();
    InferenceEngineStatus {
        observed_generation: generation,
        active_backend: status.active_backend,
        endpoint: endpoint.map(str::to_owned),
        desired_revision: Some(status.desired.to_string()),
        active_revision: status.active.as_ref().map(ToString::to_string),
        last_good_revision: status.last_good.as_ref().map(ToString::to_string),
        failed_revisions: status.failed.iter().rev().map(failed).collect(),
        observed_retry_token: retry_token.map(str::to_owned),
        measured: measured(status),
        conditions,
        ..InferenceEngineStatus::default()
    }
}

fn failed(one: &super::types::FailedRevision) -> FailedRevision {
    FailedRevision {
        revision: one.revision.to_string(),
        node: None,
        digest: None,
        reason: one.reason,
        message: one.message.clone(),
        exit_code: one.exit_code,
        attempts: one.attempts,
    }
}

fn measured(status: &Status) -> Option<MeasuredStatus> {
    let Measured {
        first_token_seconds,
        completion_seconds,
        tokens_per_second,
        tool_call_accuracy,
    } = status.measured?;
    let span = |seconds: Option<f64>| {
        let duration = std::time::Duration::try_from_secs_f64(seconds?).ok()?;
        Some(format_span(duration))
    };
    Some(MeasuredStatus {
        revision: status.active.as_ref()?.to_string(),
        first_token: span(first_token_seconds),
        completion: span(completion_seconds),
        tokens_per_second: tokens_per_second.map(|value| (value * 10.0).round() / 10.0),
        tool_call_accuracy,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::{ActiveBackend, ConditionStatus, ConditionType, Reason, RevisionId};

    fn status(ready: ConditionStatus) -> Status {
        Status {
            observed_generation: 3,
            active_backend: ActiveBackend::Cpu,
            desired: RevisionId::new("aaaa"),
            active: Some(RevisionId::new("aaaa")),
            last_good: None,
            failed: Vec::new(),
            measured: Some(Measured {
                first_token_seconds: Some(0.25),
                completion_seconds: None,
                tokens_per_second: Some(33.333),
                tool_call_accuracy: None,
            }),
            conditions: vec![crate::planner::types::Condition {
                kind: ConditionType::Ready,
                status: ready,
                reason: Reason::Serving,
                message: String::new(),
                observed_generation: 3,
            }],
        }
    }

    fn convert(
        ready: ConditionStatus,
        before: &InferenceEngineStatus,
        now: &str,
    ) -> InferenceEngineStatus {
        status_of(
            &status(ready),
            before,
            Some("http://127.0.0.1:1"),
            None,
            now,
        )
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let first = convert(
            ConditionStatus::False,
            &InferenceEngineStatus::default(),
            "1",
        );
        let second = convert(ConditionStatus::False, &first, "2");
        let third = convert(ConditionStatus::True, &second, "3");
        let time =
            |status: &InferenceEngineStatus| status.conditions[0].last_transition_time.clone();
        assert_eq!([time(&first), time(&second), time(&third)], ["1", "1", "3"]);
        assert_eq!(first, second, "nothing changes by itself");
    }

    #[test]
    fn what_was_measured_is_rounded_for_people() {
        let status = convert(
            ConditionStatus::True,
            &InferenceEngineStatus::default(),
            "1",
        );
        let measured = status.measured.unwrap();
        assert_eq!(measured.first_token.as_deref(), Some("250ms"));
        assert_eq!(measured.tokens_per_second, Some(33.3));
    }
}
