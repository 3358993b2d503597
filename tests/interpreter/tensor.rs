//! Tensors of the interpreter: whole, row-major, on the heap.

use std::rc::Rc;

use enginewright::network::DataType;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Elements. All floating point is held in 32 bits, all whole numbers in 64.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Float(Vec<f32>),
    Whole(Vec<i64>),
    Truth(Vec<bool>),
}

#[derive(Clone, Debug)]
pub struct Tensor {
    pub dtype: DataType,
    pub shape: Vec<usize>,
    pub data: Rc<Data>,
}

impl Tensor {
    pub fn new(dtype: DataType, shape: Vec<usize>, data: Data) -> Self {
        let length = match &data {
            Data::Float(values) => values.len(),
            Data::Whole(values) => values.len(),
            Data::Truth(values) => values.len(),
        };
        assert_eq!(length, shape.iter().product::<usize>(), "{dtype} {shape:?}");
        Self {
            dtype,
            shape,
            data: Rc::new(data),
        }
    }

    pub fn floats(dtype: DataType, shape: Vec<usize>, values: Vec<f32>) -> Self {
        Self::new(dtype, shape, Data::Float(values))
    }

    pub fn whole(shape: Vec<usize>, values: Vec<i64>) -> Self {
        Self::new(DataType::I32, shape, Data::Whole(values))
    }

    pub fn as_floats(&self) -> &[f32] {
        match &*self.data {
            Data::Float(values) => values,
            other => panic!("no floating point: {other:?}"),
        }
    }

    pub fn as_whole(&self) -> &[i64] {
        match &*self.data {
            Data::Whole(values) => values,
            other => panic!("no whole numbers: {other:?}"),
        }
    }

    pub fn as_truth(&self) -> &[bool] {
        match &*self.data {
            Data::Truth(values) => values,
            other => panic!("no truth values: {other:?}"),
        }
    }
}

/// `values` rounded to 16 bits.
pub fn round(values: &mut [f32]) {
    let mut halves = vec![f16::ZERO; values.len()];
    halves.convert_from_f32_slice(values);
    halves.convert_to_f32_slice(values);
}

/// Distance in elements from one index to the next along each axis; 0 where `shape` has 1 and `to`
/// repeats it.
pub fn strides(shape: &[usize], to: &[usize]) -> Vec<usize> {
    let mut stride = 1;
    let mut strides = vec![0; shape.len()];
    for axis in (0..shape.len()).rev() {
        if shape[axis] == to[axis] && shape[axis] != 1 {
            strides[axis] = stride;
        }
        stride *= shape[axis];
    }
    strides
}

/// Calls `each` with the offset of every run along the last axis, in row-major order.
pub fn for_rows(shape: &[usize], strides: &[Vec<usize>], mut each: impl FnMut(&[usize])) {
    let outer = &shape[..shape.len().saturating_sub(1)];
    let mut index = vec![0; outer.len()];
    let mut offsets = vec![0; strides.len()];
    let rows: usize = outer.iter().product();
    for _ in 0..rows {
        for (offset, stride) in offsets.iter_mut().zip(strides) {
            *offset = index.iter().zip(stride).map(|(i, s)| i * s).sum();
        }
        each(&offsets);
        for axis in (0..outer.len()).rev() {
            index[axis] += 1;
            if index[axis] < outer[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}
