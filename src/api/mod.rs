//! The custom resources: types, defaults, bounds, validation. Pure: no client, no clock.
