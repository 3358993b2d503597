//! The next step: `plan(observed, now) -> Plan`. Pure: shared by `run` and the operator.
