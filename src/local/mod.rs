//! `run`: the planner driven with processes on one machine, without Kubernetes.

pub mod guard;
