//! Which tokens of which request run in the next step. Pure: no thread, no clock, no device.

pub mod admission;
