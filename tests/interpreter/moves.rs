//! Operations that only move elements.

use super::tensor::{Data, Tensor};

/// Applies a move, given as ranges of the source, to elements of whatever type.
fn copy(data: &Data, ranges: impl Iterator<Item = std::ops::Range<usize>>) -> Data {
    fn of<T: Copy>(from: &[T], ranges: impl Iterator<Item = std::ops::Range<usize>>) -> Vec<T> {
        let mut out = Vec::new();
        for range in ranges {
            out.extend_from_slice(&from[range]);
        }
        out
    }
    match data {
        Data::Float(values) => Data::Float(of(values, ranges)),
        Data::Whole(values) => Data::Whole(of(values, ranges)),
        Data::Truth(values) => Data::Truth(of(values, ranges)),
    }
}

pub fn reshape(x: &Tensor, to: Vec<usize>) -> Tensor {
    assert_eq!(
        x.shape.iter().product::<usize>(),
        to.iter().product::<usize>()
    );
    Tensor {
        shape: to,
        ..x.clone()
    }
}

pub fn gather(data: &Tensor, indices: &Tensor, axis: usize) -> Tensor {
    let before: usize = data.shape[..axis].iter().product();
    let after: usize = data.shape[axis + 1..].iter().product();
    let along = data.shape[axis];
    let places: Vec<usize> = indices
        .as_whole()
        .iter()
        .map(|index| usize::try_from(*index).unwrap())
        .collect();
    assert!(
        places.iter().all(|place| *place < along),
        "index beyond {along}"
    );
    let ranges = (0..before).flat_map(|outer| {
        places.iter().map(move |place| {
            let start = (outer * along + place) * after;
            start..start + after
        })
    });
    let moved = copy(&data.data, ranges);
    let mut shape = data.shape[..axis].to_vec();
    shape.extend(&indices.shape);
    shape.extend(&data.shape[axis + 1..]);
    Tensor::new(data.dtype, shape, moved)
}

pub fn slice(x: &Tensor, start: &[usize], size: &[usize]) -> Tensor {
    for (axis, (from, length)) in start.iter().zip(size).enumerate() {
        assert!(from + length <= x.shape[axis], "beyond {:?}", x.shape);
    }
    // The longest run that lies together: from the innermost axis that is cut.
    let whole = |axis: &usize| size[*axis] == x.shape[*axis];
    let cut = (0..size.len()).rev().find(|axis| !whole(axis)).unwrap_or(0);
    let inner: usize = x.shape[cut + 1..].iter().product();
    let run = size[cut] * inner;
    let outer = &size[..cut];
    let rows: usize = outer.iter().product();
    let place = |row: usize| {
        let mut rest = row;
        let mut offset = start[cut] * inner;
        let mut stride = x.shape[cut] * inner;
        for axis in (0..cut).rev() {
            offset += (start[axis] + rest % size[axis]) * stride;
            rest /= size[axis];
            stride *= x.shape[axis];
        }
        offset..offset + run
    };
    let moved = copy(&x.data, (0..rows).map(place));
    Tensor::new(x.dtype, size.to_vec(), moved)
}

pub fn concat(parts: &[&Tensor], axis: usize) -> Tensor {
    let first = parts[0];
    let before: usize = first.shape[..axis].iter().product();
    let mut shape = first.shape.clone();
    shape[axis] = parts.iter().map(|part| part.shape[axis]).sum();
    let mut out = match &*first.data {
        Data::Float(_) => Data::Float(Vec::new()),
        Data::Whole(_) => Data::Whole(Vec::new()),
        Data::Truth(_) => Data::Truth(Vec::new()),
    };
    for row in 0..before {
        for part in parts {
            let run: usize = part.shape[axis..].iter().product();
            let range = row * run..(row + 1) * run;
            match (&mut out, &*part.data) {
                (Data::Float(out), Data::Float(from)) => out.extend_from_slice(&from[range]),
                (Data::Whole(out), Data::Whole(from)) => out.extend_from_slice(&from[range]),
                (Data::Truth(out), Data::Truth(from)) => out.extend_from_slice(&from[range]),
                _ => panic!("types differ"),
            }
        }
    }
    Tensor::new(first.dtype, shape, out)
}

pub fn transpose(x: &Tensor, order: &[usize]) -> Tensor {
    let shape: Vec<usize> = order.iter().map(|axis| x.shape[*axis]).collect();
    let stride = |axis: usize| x.shape[axis + 1..].iter().product::<usize>();
    let steps: Vec<usize> = order.iter().map(|axis| stride(*axis)).collect();
    // The last axis of the result moves in single elements unless it was the last before.
    let kept = order.last() == Some(&(order.len() - 1));
    let (outer, run) = if kept {
        (&shape[..shape.len() - 1], shape[shape.len() - 1])
    } else {
        (&shape[..], 1)
    };
    let place = |row: usize| {
        let mut rest = row;
        let mut offset = 0;
        for axis in (0..outer.len()).rev() {
            offset += rest % outer[axis] * steps[axis];
            rest /= outer[axis];
        }
        offset..offset + run
    };
    let rows: usize = outer.iter().product();
    let moved = copy(&x.data, (0..rows).map(place));
    Tensor::new(x.dtype, shape, moved)
}
