//! What can only be checked of a whole graph: names, uses, changing sizes, profiles.

use std::collections::BTreeSet;

use super::check_moves::remainder;
use super::{Graph, NetworkError, Op, Point, Profile};

/// Checks `graph`; the errors are those of [`super::GraphBuilder::finish`].
pub(super) fn check(graph: &Graph) -> Result<(), NetworkError> {
    ports(graph)?;
    used(graph)?;
    let symbols = graph.symbols();
    for symbol in &symbols {
        if graph.symbol_source(*symbol).is_none() {
            return Err(port(
                "input",
                symbol.name(),
                "is a size that no input has alone",
            ));
        }
    }
    let mut names = BTreeSet::new();
    for profile in &graph.profiles {
        if !names.insert(profile.name.as_str()) {
            return Err(profile_error(profile, "is there twice".into()));
        }
        profile.check(&symbols)?;
        slices(graph, profile)?;
    }
    if graph.profiles.is_empty() && !symbols.is_empty() {
        return Err(port(
            "input",
            symbols[0].name(),
            "is a size that no profile bounds",
        ));
    }
    Ok(())
}

fn port(what: &'static str, name: &str, problem: &str) -> NetworkError {
    NetworkError::Port {
        what,
        name: name.to_owned(),
        problem: problem.to_owned(),
    }
}

fn profile_error(profile: &Profile, problem: String) -> NetworkError {
    NetworkError::Profile {
        name: profile.name.clone(),
        problem,
    }
}

/// Names and roles of inputs and outputs are unique, outputs are tensors of this graph.
fn ports(graph: &Graph) -> Result<(), NetworkError> {
    let mut names = BTreeSet::new();
    let mut roles = BTreeSet::new();
    for (_, role, node) in graph.inputs() {
        if !names.insert(node.name.as_str()) || !roles.insert(role) {
            return Err(port(
                "input",
                &node.name,
                "is there twice, by name or by role",
            ));
        }
    }
    let mut roles = BTreeSet::new();
    for output in &graph.outputs {
        if !names.insert(output.name.as_str()) || !roles.insert(output.role) {
            return Err(port(
                "output",
                &output.name,
                "is there twice, by name or by role",
            ));
        }
        if output.tensor.index() >= graph.nodes.len() {
            return Err(port("output", &output.name, "is a tensor of another graph"));
        }
    }
    if graph.outputs.is_empty() {
        return Err(port("output", "", "is missing: the network gives nothing"));
    }
    Ok(())
}

/// Everything is used: what nobody reads was forgotten somewhere.
fn used(graph: &Graph) -> Result<(), NetworkError> {
    let mut read = vec![false; graph.nodes.len()];
    let operands = graph.nodes.iter().flat_map(|node| &node.operands);
    for tensor in operands.chain(graph.outputs.iter().map(|output| &output.tensor)) {
        read[tensor.index()] = true;
    }
    match graph.nodes.iter().zip(read).find(|(_, read)| !read) {
        None => Ok(()),
        Some((node, _)) => Err(NetworkError::Operation {
            name: node.name.clone(),
            kind: node.op.kind(),
            operands: format!("{} operands", node.operands.len()),
            problem: "its result is used by nothing".into(),
        }),
    }
}

/// Slices of changing sizes stay inside their tensors at the corners of the profile.
fn slices(graph: &Graph, profile: &Profile) -> Result<(), NetworkError> {
    for node in &graph.nodes {
        let Op::Slice { start, size } = &node.op else {
            continue;
        };
        let whole = &graph.node(node.operands[0]).shape;
        for (axis, (start, size)) in start.iter().zip(&size.0).enumerate() {
            let rest = remainder(&whole.0[axis], start, size);
            let inside = |point: Point| {
                let rest = rest.as_ref()?.evaluate(&profile.at(point));
                rest.filter(|rest| *rest >= 0)
            };
            if Point::ALL.into_iter().any(|point| inside(point).is_none()) {
                return Err(profile_error(
                    profile,
                    format!(
                        "lets `{}` take {size} from {start} on, beyond {} of axis {axis}",
                        node.name, whole.0[axis]
                    ),
                ));
            }
        }
    }
    Ok(())
}
