//! Logs, the metrics registry, traces.
