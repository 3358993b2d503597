//! The inference server: HTTP in front of one thread that owns the device.
//!
//! [`worker`] owns the device and knows no HTTP; [`request`] and [`answer`] translate between the
//! dialects of [`crate::wire`] and [`generation`]; [`router`] is a function of [`state`], so tests
//! need no socket; [`http`] has the connections and their deadlines; [`lifecycle`] loads, proves,
//! serves and drains.

pub mod admin;
pub mod answer;
pub mod auth;
pub mod body;
pub mod edge;
pub mod generation;
mod handlers;
pub mod http;
pub mod lifecycle;
pub mod load;
pub mod metrics;
pub mod model;
pub mod request;
mod router;
pub mod state;
mod warm;
pub mod worker;

pub use lifecycle::{ServeError, bring_up, serve};
pub use router::{ROUTES, Route, router};
pub use state::{Phase, ServerConfig, ServerState, Service};
