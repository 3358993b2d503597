//! Which tensor of an engine is what, and the shapes that the engine was built for: read off the
//! engine itself, so that no file beside it can say otherwise. Pure. The names are those that
//! `network::describe` gives.

use std::ops::RangeInclusive;

use super::plan::geometry::buckets;
use super::plan::{Form, Geometry, GeometryError, Profile};

/// A tensor of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Sizes; -1: differs from run to run.
    pub dims: Vec<i64>,
    /// An input with the smallest and largest sizes in each profile; `None`: an output.
    pub profiles: Option<Vec<(Vec<i64>, Vec<i64>)>>,
}

/// Names of one layer's keys or values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachePorts {
    /// What there was before the step.
    pub past: String,
    /// What the step gives: new ones (split form), or the cache with them (native form).
    pub given: String,
}

/// Names of an engine's tensors by what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Token ids.
    pub tokens: String,
    /// Positions.
    pub positions: String,
    /// What each slot holds.
    pub lengths: String,
    /// 0, 1, 2, … of the bucket.
    pub context: String,
    /// Rows that become logits.
    pub rows: String,
    /// Logits.
    pub logits: String,
    /// Keys of layer 0, values of layer 0, keys of layer 1, …
    pub cache: Vec<CachePorts>,
}

/// Why an engine cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortsError {
    /// It lacks a tensor.
    #[error("the engine has no tensor `{0}`: it was built by another program")]
    Missing(String),
    /// It has one that means nothing here.
    #[error(
        "the engine has a tensor `{0}`, which means nothing here: it was built by another program"
    )]
    Unknown(String),
    /// A tensor has other sizes than its place asks for.
    #[error("the engine's tensor `{name}` is {dims:?}, which does not fit the others")]
    Sizes {
        /// Its name.
        name: String,
        /// Its sizes.
        dims: Vec<i64>,
    },
    /// The shapes as a whole.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
}

/// Finds out what is what.
///
/// # Errors
/// When a tensor is missing, too many, or does not fit the others.
pub fn read(tensors: &[Tensor]) -> Result<(Ports, Geometry), PortsError> {
    let find = |name: &str| {
        let found = tensors.iter().find(|tensor| tensor.name == name);
        found.ok_or_else(|| PortsError::Missing(name.to_owned()))
    };
    let form = match find("keys.0") {
        Ok(_) => Form::Native,
        Err(_) => Form::Split,
    };
    let layers = (0..).take_while(|layer| find(&format!("past_keys.{layer}")).is_ok());
    let layers = u32::try_from(layers.count()).unwrap_or(u32::MAX);
    let past = find("past_keys.0")?;
    let mut cache = Vec::new();
    for (layer, kind) in (0..layers).flat_map(|layer| [(layer, "keys"), (layer, "values")]) {
        let before = find(&format!("past_{kind}.{layer}"))?;
        let given = match form {
            Form::Native => find(&format!("{kind}.{layer}"))?,
            Form::Split => find(&format!("new_{kind}.{layer}"))?,
        };
        if before.dims != past.dims {
            return Err(sizes(before));
        }
        cache.push(CachePorts {
            past: before.name.clone(),
            given: given.name.clone(),
        });
    }
    let (tokens, context, rows) = (find("tokens")?, find("context_positions")?, find("rows")?);
    let logits = find("logits")?;
    let capacity = fixed(past, 2)?;
    let profiles = profiles(tokens, context, rows, capacity)?;
    let slots = profiles.iter().map(|profile| *profile.rows.end()).max();
    let geometry = Geometry {
        form,
        slots: slots.unwrap_or(0),
        capacity,
        buckets: buckets(capacity),
        profiles,
        layers,
        kv_heads: fixed(past, 1)?,
        head_length: fixed(past, 3)?,
        vocabulary: fixed(logits, 1)?,
    };
    geometry.check()?;
    let ports = Ports {
        tokens: tokens.name.clone(),
        positions: find("positions")?.name.clone(),
        lengths: find("lengths")?.name.clone(),
        context: context.name.clone(),
        rows: rows.name.clone(),
        logits: logits.name.clone(),
        cache,
    };
    ports.check_complete(tensors)?;
    Ok((ports, geometry))
}

impl Ports {
    /// A tensor without an address ends a run: none may be left over.
    fn check_complete(&self, tensors: &[Tensor]) -> Result<(), PortsError> {
        let single = [
            &self.tokens,
            &self.positions,
            &self.lengths,
            &self.context,
            &self.rows,
            &self.logits,
        ];
        let cache = self.cache.iter().flat_map(|port| [&port.past, &port.given]);
        let known: std::collections::BTreeSet<&String> = single.into_iter().chain(cache).collect();
        let unknown = tensors.iter().find(|tensor| !known.contains(&tensor.name));
        unknown.map_or(Ok(()), |tensor| {
            Err(PortsError::Unknown(tensor.name.clone()))
        })
    }
}

/// What every profile takes; one that does not reach from the first bucket to the capacity, or
/// that cannot give a row of logits for each sequence, is left out.
fn profiles(
    tokens: &Tensor,
    context: &Tensor,
    rows: &Tensor,
    capacity: u32,
) -> Result<Vec<Profile>, PortsError> {
    let count = tokens.profiles.as_ref().map_or(0, Vec::len);
    let mut profiles = Vec::new();
    for index in 0..count {
        let batch = range(tokens, index, 0)?;
        let bucket = range(context, index, 0)?;
        let logits = range(rows, index, 0)?;
        let all = *bucket.start() <= buckets(capacity)[0] && *bucket.end() >= capacity;
        let (least, most) = (
            batch.start().max(logits.start()),
            batch.end().min(logits.end()),
        );
        if all && least <= most {
            profiles.push(Profile {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                tokens: range(tokens, index, 1)?,
                rows: *least..=*most,
            });
        }
    }
    Ok(profiles)
}

/// The bounds of one axis of an input in a profile.
fn range(tensor: &Tensor, profile: usize, axis: usize) -> Result<RangeInclusive<u32>, PortsError> {
    let bounds = tensor.profiles.as_ref().and_then(|profiles| {
        let (least, most) = profiles.get(profile)?;
        let number = |dims: &Vec<i64>| u32::try_from(*dims.get(axis)?).ok();
        Some(number(least)?..=number(most)?)
    });
    bounds.ok_or_else(|| sizes(tensor))
}

fn fixed(tensor: &Tensor, axis: usize) -> Result<u32, PortsError> {
    let size = tensor
        .dims
        .get(axis)
        .and_then(|size| u32::try_from(*size).ok());
    size.ok_or_else(|| sizes(tensor))
}

fn sizes(tensor: &Tensor) -> PortsError {
    PortsError::Sizes {
        name: tensor.name.clone(),
        dims: tensor.dims.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(slots: i64, native: bool) -> Vec<Tensor> {
        let (least, changing) = if slots > 1 { (1, -1) } else { (1, 1) };
        let (capacity, chunk) = (2_048, 512);
        let input = |name: &str, dims: &[i64], bounds: [(Vec<i64>, Vec<i64>); 2]| Tensor {
            name: name.into(),
            dims: dims.to_vec(),
            profiles: Some(bounds.to_vec()),
        };
        let same = |least: Vec<i64>, most: Vec<i64>| [(least.clone(), most.clone()), (least, most)];
        let cells = [
            (vec![least, 1], vec![slots, 1]),
            (vec![least, 1], vec![slots, chunk]),
        ];
        let column = same(vec![least], vec![slots]);
        let past = |slots| vec![slots, 3, capacity, 64];
        let output = |name: String, dims: Vec<i64>| Tensor {
            name,
            dims,
            profiles: None,
        };
        let mut tensors = vec![
            input("tokens", &[changing, -1], cells.clone()),
            input("positions", &[changing, -1], cells),
            input("lengths", &[changing], column.clone()),
            input("context_positions", &[-1], same(vec![1], vec![capacity])),
            input("rows", &[changing], column),
            output("logits".into(), vec![changing, 49_152]),
        ];
        for kind in ["keys", "values"] {
            for layer in 0..2 {
                let name = format!("past_{kind}.{layer}");
                let bounds = same(past(least), past(slots));
                tensors.push(input(&name, &past(changing), bounds));
                let given = if native { "" } else { "new_" };
                tensors.push(output(format!("{given}{kind}.{layer}"), past(changing)));
            }
        }
        tensors
    }

    #[test]
    fn an_engine_says_by_itself_what_it_was_built_for() {
        for (slots, native) in [(4, true), (4, false), (1, true)] {
            let (ports, geometry) = read(&engine(slots, native)).unwrap();
            let form = if native { Form::Native } else { Form::Split };
            assert_eq!(geometry.form, form);
            assert_eq!(i64::from(geometry.slots), slots);
            assert_eq!(
                (geometry.layers, geometry.kv_heads, geometry.head_length),
                (2, 3, 64)
            );
            assert_eq!((geometry.capacity, geometry.vocabulary), (2_048, 49_152));
            assert_eq!(geometry.longest_chunk(), 512);
            assert!(geometry.chunks_alone());
            assert_eq!(geometry.profile(1, 1).unwrap().index, 0);
            assert_eq!(geometry.profile(2, 1).unwrap().index, 1);
            let names: Vec<_> = ports.cache.iter().map(|port| port.past.as_str()).collect();
            let expected = [
                "past_keys.0",
                "past_values.0",
                "past_keys.1",
                "past_values.1",
            ];
            assert_eq!(names, expected);
        }
    }

    #[test]
    fn an_engine_of_another_program_is_refused_by_the_tensor_at_fault() {
        let broken = |change: fn(&mut Vec<Tensor>)| {
            let mut tensors = engine(4, true);
            change(&mut tensors);
            read(&tensors).unwrap_err().to_string()
        };
        assert!(broken(|t| t.retain(|one| one.name != "rows")).contains("no tensor `rows`"));
        assert!(broken(|t| t.retain(|one| one.name != "values.1")).contains("`values.1`"));
        assert!(broken(|t| t[6].name = "extra".into()).contains("no tensor `past_keys.0`"));
        let odd = |t: &mut Vec<Tensor>| {
            let mut one = t[5].clone();
            one.name = "hidden".into();
            t.push(one);
        };
        assert!(broken(odd).contains("`hidden`, which means nothing here"));
        assert!(broken(|t| t.retain(|one| one.name != "past_keys.1")).contains("means nothing"));
        assert!(broken(|t| t[5].dims = vec![-1, -1]).contains("`logits` is [-1, -1]"));
        let short = |t: &mut Vec<Tensor>| {
            let last = t.iter_mut().rfind(|one| one.name == "past_values.1");
            last.unwrap().dims[2] = 1_024;
        };
        assert!(broken(short).contains("`past_values.1`"));
    }
}
