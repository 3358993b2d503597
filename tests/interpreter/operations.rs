//! What each operation computes, straight from its definition.

use enginewright::network::{Binary, DataType, Reduction, Scaling, Unary};
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder};

use super::tensor::{Data, Tensor, for_rows, strides};

fn broadcast(shapes: &[&[usize]]) -> Vec<usize> {
    let size = |axis: usize| shapes.iter().map(|shape| shape[axis]).max().unwrap();
    (0..shapes[0].len()).map(size).collect()
}

/// `each(a, b)` for all pairs of elements, in the order of the result.
fn pairs(left: &Tensor, right: &Tensor, mut each: impl FnMut(usize, usize)) -> Vec<usize> {
    let shape = broadcast(&[&left.shape, &right.shape]);
    let steps = [strides(&left.shape, &shape), strides(&right.shape, &shape)];
    let (length, a, b) = match shape.last() {
        Some(length) => (
            *length,
            *steps[0].last().unwrap(),
            *steps[1].last().unwrap(),
        ),
        None => (1, 0, 0),
    };
    for_rows(&shape, &steps, |offsets| {
        let (mut left, mut right) = (offsets[0], offsets[1]);
        for _ in 0..length {
            each(left, right);
            left += a;
            right += b;
        }
    });
    shape
}

pub fn binary(kind: Binary, left: &Tensor, right: &Tensor) -> Tensor {
    match &*left.data {
        Data::Float(_) => float_binary(kind, left, right),
        Data::Whole(_) => whole_binary(kind, left, right),
        Data::Truth(_) => {
            let (a, b) = (left.as_truth(), right.as_truth());
            assert_eq!(kind, Binary::And);
            let mut out = Vec::new();
            let shape = pairs(left, right, |i, j| out.push(a[i] && b[j]));
            Tensor::new(DataType::Bool, shape, Data::Truth(out))
        }
    }
}

fn float_binary(kind: Binary, left: &Tensor, right: &Tensor) -> Tensor {
    let (a, b) = (left.as_floats(), right.as_floats());
    let mut out = Vec::with_capacity(a.len().max(b.len()));
    let shape = match kind {
        Binary::Add => pairs(left, right, |i, j| out.push(a[i] + b[j])),
        Binary::Subtract => pairs(left, right, |i, j| out.push(a[i] - b[j])),
        Binary::Multiply => pairs(left, right, |i, j| out.push(a[i] * b[j])),
        Binary::Divide => pairs(left, right, |i, j| out.push(a[i] / b[j])),
        Binary::Min => pairs(left, right, |i, j| out.push(a[i].min(b[j]))),
        Binary::Max => pairs(left, right, |i, j| out.push(a[i].max(b[j]))),
        Binary::Less => {
            let mut out = Vec::new();
            let shape = pairs(left, right, |i, j| out.push(a[i] < b[j]));
            return Tensor::new(DataType::Bool, shape, Data::Truth(out));
        }
        Binary::And => panic!("no truth values"),
    };
    Tensor::floats(left.dtype, shape, out)
}

fn whole_binary(kind: Binary, left: &Tensor, right: &Tensor) -> Tensor {
    let (a, b) = (left.as_whole(), right.as_whole());
    let mut out = Vec::new();
    let shape = match kind {
        Binary::Add => pairs(left, right, |i, j| out.push(a[i] + b[j])),
        Binary::Subtract => pairs(left, right, |i, j| out.push(a[i] - b[j])),
        Binary::Multiply => pairs(left, right, |i, j| out.push(a[i] * b[j])),
        Binary::Min => pairs(left, right, |i, j| out.push(a[i].min(b[j]))),
        Binary::Max => pairs(left, right, |i, j| out.push(a[i].max(b[j]))),
        Binary::Less => {
            let mut out = Vec::new();
            let shape = pairs(left, right, |i, j| out.push(a[i] < b[j]));
            return Tensor::new(DataType::Bool, shape, Data::Truth(out));
        }
        Binary::Divide | Binary::And => panic!("not of whole numbers"),
    };
    Tensor::new(left.dtype, shape, Data::Whole(out))
}

pub fn unary(kind: Unary, x: &Tensor) -> Tensor {
    let of = |value: &f32| match kind {
        Unary::Sqrt => value.sqrt(),
        Unary::Reciprocal => 1.0 / value,
        Unary::Exp => value.exp(),
        Unary::Negate => -value,
        Unary::Sigmoid => 1.0 / (1.0 + (-value).exp()),
    };
    let values = x.as_floats().iter().map(of).collect();
    Tensor::floats(x.dtype, x.shape.clone(), values)
}

/// The matrices of a tensor: sizes of the axes before them, and their own two.
fn matrices(tensor: &Tensor) -> (&[usize], [usize; 2]) {
    let (outer, matrix) = tensor.shape.split_at(tensor.shape.len() - 2);
    (outer, [matrix[0], matrix[1]])
}

/// The matrix at `offset`, transposed where `turned`.
fn view(tensor: &Tensor, offset: usize, turned: bool) -> ArrayView2<'_, f32> {
    let (_, [height, width]) = matrices(tensor);
    let values = &tensor.as_floats()[offset..offset + height * width];
    let matrix = ArrayView2::from_shape((height, width).strides((width, 1)), values).unwrap();
    if turned {
        matrix.reversed_axes()
    } else {
        matrix
    }
}

pub fn mat_mul(left: &Tensor, right: &Tensor, left_turned: bool, right_turned: bool) -> Tensor {
    let ((left_outer, left_size), (right_outer, right_size)) = (matrices(left), matrices(right));
    let rows = left_size[usize::from(left_turned)];
    let columns = right_size[usize::from(!right_turned)];
    let mut shape = broadcast(&[left_outer, right_outer]);
    let steps = |outer: &[usize], size: [usize; 2]| {
        let steps = strides(outer, &shape).into_iter();
        steps.map(|step| step * size[0] * size[1]).collect()
    };
    let steps = [steps(left_outer, left_size), steps(right_outer, right_size)];
    // One more axis, so that every row of it is one product.
    shape.push(1);
    let count: usize = shape.iter().product();
    let mut out = vec![0.0; count * rows * columns];
    let mut products = out.chunks_mut(rows * columns);
    for_rows(&shape, &steps, |offsets| {
        let into = products.next().unwrap();
        general_mat_mul(
            1.0,
            &view(left, offsets[0], left_turned),
            &view(right, offsets[1], right_turned),
            0.0,
            &mut ArrayViewMut2::from_shape((rows, columns), into).unwrap(),
        );
    });
    shape.pop();
    shape.extend([rows, columns]);
    Tensor::floats(left.dtype, shape, out)
}

/// Elements before, along and after `axis`.
fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    let before = shape[..axis].iter().product();
    let after = shape[axis + 1..].iter().product();
    (before, shape[axis], after)
}

pub fn softmax(x: &Tensor, axis: usize) -> Tensor {
    let (before, length, after) = around(&x.shape, axis);
    assert_eq!(after, 1, "only along the last axis");
    let mut out = x.as_floats().to_vec();
    for row in out.chunks_mut(length.max(1)).take(before) {
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let mut sum = 0.0_f32;
        for value in row.iter_mut() {
            *value = (*value - largest).exp();
            sum += *value;
        }
        for value in row.iter_mut() {
            *value /= sum;
        }
    }
    Tensor::floats(x.dtype, x.shape.clone(), out)
}

pub fn reduce(reduction: Reduction, x: &Tensor, axis: usize) -> Tensor {
    let (before, length, after) = around(&x.shape, axis);
    assert_eq!(after, 1, "only along the last axis");
    #[expect(clippy::cast_precision_loss, reason = "a length")]
    let count = length as f32;
    let of = |row: &[f32]| match reduction {
        Reduction::Sum => row.iter().sum::<f32>(),
        Reduction::Mean => row.iter().sum::<f32>() / count,
        Reduction::Max => row.iter().copied().fold(f32::MIN, f32::max),
    };
    let values = x.as_floats().chunks(length).take(before).map(of).collect();
    let mut shape = x.shape.clone();
    shape[axis] = 1;
    Tensor::floats(x.dtype, shape, values)
}

pub fn select(condition: &Tensor, yes: &Tensor, no: &Tensor) -> Tensor {
    let shape = broadcast(&[&condition.shape, &yes.shape, &no.shape]);
    let whole = |tensor: &Tensor| {
        let steps = strides(&tensor.shape, &shape);
        let last = *steps.last().unwrap();
        let mut places = Vec::new();
        for_rows(&shape, &[steps], |offsets| {
            places.extend((0..*shape.last().unwrap()).map(|i| offsets[0] + i * last));
        });
        places
    };
    let (c, a, b) = (whole(condition), whole(yes), whole(no));
    let truth = condition.as_truth();
    let (yes_values, no_values) = (yes.as_floats(), no.as_floats());
    let pick = |i: usize| {
        if truth[c[i]] {
            yes_values[a[i]]
        } else {
            no_values[b[i]]
        }
    };
    let values = (0..c.len()).map(pick).collect();
    Tensor::floats(yes.dtype, shape, values)
}

pub fn cast(x: &Tensor, to: DataType) -> Tensor {
    let data = match (&*x.data, to.is_float()) {
        (Data::Float(_), true) => {
            return Tensor {
                dtype: to,
                ..x.clone()
            };
        }
        #[expect(clippy::cast_precision_loss, reason = "what the operation is")]
        (Data::Whole(values), true) => Data::Float(values.iter().map(|one| *one as f32).collect()),
        (data, _) => panic!("cast of {data:?} to {to}"),
    };
    Tensor::new(to, x.shape.clone(), data)
}

pub fn dequantize(values: &Tensor, scales: &Tensor, scaling: Scaling) -> Tensor {
    let (axis, block) = match scaling {
        Scaling::Channel { axis } => (axis, None),
        Scaling::Block { axis, block } => (axis, Some(block as usize)),
    };
    let [_, width] = values.shape[..] else {
        panic!("only matrices are quantised");
    };
    let (integers, scales_of) = (values.as_whole(), scales.as_floats());
    let scale = |row: usize, column: usize| match (block, axis) {
        (None, 0) => scales_of[row],
        (None, _) => scales_of[column],
        (Some(block), 0) => scales_of[row / block * width + column],
        (Some(block), _) => scales_of[row * (width / block) + column / block],
    };
    #[expect(clippy::cast_precision_loss, reason = "at most 8 bits")]
    let of = |(i, integer): (usize, &i64)| *integer as f32 * scale(i / width, i % width);
    let out = integers.iter().enumerate().map(of).collect();
    Tensor::floats(scales.dtype, values.shape.clone(), out)
}
