//! The run-time states of an engine, one for each profile in use, and the sizes that they are given.

use std::collections::BTreeMap;

use super::plan::pass::largest_shapes;
use super::plan::{Geometry, Shape};
use super::ports::Ports;
use crate::tensorrt::{Engine, Session, SessionError, Stream};

/// Sizes of every input of a step.
pub(super) fn shapes<'a>(
    ports: &'a Ports,
    geometry: &Geometry,
    shape: Shape,
) -> impl Iterator<Item = (&'a str, Vec<i64>)> {
    let rows = i64::from(shape.rows);
    let cells = vec![rows, i64::from(shape.tokens)];
    let (heads, capacity) = (geometry.kv_heads.into(), geometry.capacity.into());
    let past = vec![rows, heads, capacity, geometry.head_length.into()];
    let inputs = [
        (ports.tokens.as_str(), cells.clone()),
        (ports.positions.as_str(), cells),
        (ports.lengths.as_str(), vec![rows]),
        (ports.context.as_str(), vec![shape.bucket.into()]),
        (ports.rows.as_str(), vec![rows]),
    ];
    let cache = ports.cache.iter();
    let cache = cache.map(move |port| (port.past.as_str(), past.clone()));
    inputs.into_iter().chain(cache)
}

/// One for each profile in use.
pub(super) type Sessions = BTreeMap<u32, Session>;

/// Sessions for all profiles in use, and the bytes of scratch space for the largest step of each
/// kind that will be run: less than what a profile could need, which may take a chunk of every slot
/// at once. `kernels` are those of an earlier start.
pub(super) fn sessions(
    engine: &Engine,
    (ports, geometry): (&Ports, &Geometry),
    mut kernels: Vec<u8>,
    stream: &mut Stream,
) -> Result<(Sessions, u64), SessionError> {
    let mut sessions = Sessions::new();
    let mut largest = 0;
    for shape in largest_shapes(geometry) {
        let mut session = match sessions.remove(&shape.profile) {
            Some(session) => session,
            None => Session::new(engine, shape.profile, &kernels, stream)?,
        };
        largest = largest.max(session.set_shapes(shapes(ports, geometry, shape))?);
        if let Some(more) = session.runtime_cache() {
            kernels = more;
        }
        sessions.insert(shape.profile, session);
    }
    Ok((sessions, largest))
}
