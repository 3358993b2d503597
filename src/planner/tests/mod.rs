//! The planner driven through a simulated world, and path by path.

mod events;
mod laws;
mod nature;
mod paths;
mod properties;
mod world;
