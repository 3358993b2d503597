//! The operations of a network, each one layer of TensorRT.

use super::builder::{Builder, Tensor, c_string, length};
use super::types::{Elementwise, Reduction, Type, Unary};
use crate::tensorrt::TensorRtError;

impl Builder {
    /// Matrix product, either side transposed first where said.
    ///
    /// # Errors
    /// As TensorRT says; so for all operations.
    pub fn matmul(
        &mut self,
        (a, transpose_a): (Tensor, bool),
        (b, transpose_b): (Tensor, bool),
    ) -> Result<Tensor, TensorRtError> {
        let (a, b) = (self.id(a), self.id(b));
        // SAFETY: `raw` is alive; the shim checks the tensors' numbers.
        let status = unsafe {
            (self.library.api().ew_matmul)(self.raw, a, transpose_a.into(), b, transpose_b.into())
        };
        self.made(status, "a matrix product")
    }

    /// Element by element; sizes are equal or 1.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn elementwise(
        &mut self,
        op: Elementwise,
        a: Tensor,
        b: Tensor,
    ) -> Result<Tensor, TensorRtError> {
        let (a, b) = (self.id(a), self.id(b));
        // SAFETY: `raw` is alive; the shim checks the tensors' numbers.
        let status = unsafe { (self.library.api().ew_elementwise)(self.raw, op as i32, a, b) };
        self.made(status, &format!("{op:?}"))
    }

    /// Element by element.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn unary(&mut self, op: Unary, a: Tensor) -> Result<Tensor, TensorRtError> {
        let a = self.id(a);
        let api = self.library.api();
        let first = Unary::Sigmoid as i32;
        // SAFETY: `raw` is alive; the shim checks numbers of tensors and operations.
        let status = unsafe {
            if op as i32 >= first {
                (api.ew_activation)(self.raw, op as i32 - first, a)
            } else {
                (api.ew_unary)(self.raw, op as i32, a)
            }
        };
        self.made(status, &format!("{op:?}"))
    }

    /// Axes become one element each; they stay with size 1.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn reduce(
        &mut self,
        op: Reduction,
        a: Tensor,
        axes: &[usize],
    ) -> Result<Tensor, TensorRtError> {
        let a = self.id(a);
        // SAFETY: `raw` is alive; the shim checks numbers of tensors and operations.
        let status =
            unsafe { (self.library.api().ew_reduce)(self.raw, op as i32, a, axis_mask(axes), 1) };
        self.made(status, &format!("reduction {op:?}"))
    }

    /// Softmax along one axis.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn softmax(&mut self, a: Tensor, axis: usize) -> Result<Tensor, TensorRtError> {
        let a = self.id(a);
        // SAFETY: `raw` is alive; the shim checks the tensor's number.
        let status = unsafe { (self.library.api().ew_softmax)(self.raw, a, axis_mask(&[axis])) };
        self.made(status, "softmax")
    }

    /// Another type.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn cast(&mut self, a: Tensor, to: Type) -> Result<Tensor, TensorRtError> {
        let a = self.id(a);
        // SAFETY: `raw` is alive; the shim checks the numbers of tensor and type.
        let status = unsafe { (self.library.api().ew_cast)(self.raw, a, to as i32) };
        self.made(status, &format!("a cast to {to:?}"))
    }

    /// The sizes of a tensor as a tensor, I64.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn shape(&mut self, a: Tensor) -> Result<Tensor, TensorRtError> {
        let a = self.id(a);
        // SAFETY: `raw` is alive; the shim checks the tensor's number.
        let status = unsafe { (self.library.api().ew_shape)(self.raw, a) };
        self.made(status, "a shape")
    }

    /// Elements of `axis` by index.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn gather(
        &mut self,
        data: Tensor,
        indices: Tensor,
        axis: usize,
    ) -> Result<Tensor, TensorRtError> {
        let (data, indices) = (self.id(data), self.id(indices));
        let axis = length(axis);
        // SAFETY: `raw` is alive; the shim checks the tensors' numbers.
        let status = unsafe { (self.library.api().ew_gather)(self.raw, data, indices, axis) };
        self.made(status, "a gather")
    }

    /// Condition ? a : b.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn select(
        &mut self,
        condition: Tensor,
        a: Tensor,
        b: Tensor,
    ) -> Result<Tensor, TensorRtError> {
        let (condition, a, b) = (self.id(condition), self.id(a), self.id(b));
        // SAFETY: `raw` is alive; the shim checks the tensors' numbers.
        let status = unsafe { (self.library.api().ew_select)(self.raw, condition, a, b) };
        self.made(status, "a select")
    }

    /// Tensors behind each other along `axis`.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn concat(&mut self, all: &[Tensor], axis: usize) -> Result<Tensor, TensorRtError> {
        let all: Vec<i32> = all.iter().map(|one| self.id(*one)).collect();
        let (count, axis) = (length(all.len()), length(axis));
        // SAFETY: `raw` is alive; `all` has `count` numbers, which the shim checks.
        let status = unsafe { (self.library.api().ew_concat)(self.raw, all.as_ptr(), count, axis) };
        self.made(status, "a concatenation")
    }

    /// The same elements in another shape; -1 may stand once, for what is left.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn reshape(&mut self, a: Tensor, dims: &[i64]) -> Result<Tensor, TensorRtError> {
        let (a, none) = (self.id(a), std::ptr::null());
        let count = length(dims.len());
        // SAFETY: `raw` is alive, `dims` valid for the call; null means no permutation.
        let status = unsafe {
            (self.library.api().ew_shuffle)(self.raw, a, none, 0, dims.as_ptr(), count, -1, none, 0)
        };
        self.made(status, &format!("a reshape to {dims:?}"))
    }

    /// The same elements in the shape that the tensor `shape` (I64, one axis) holds.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn reshape_to(&mut self, a: Tensor, shape: Tensor) -> Result<Tensor, TensorRtError> {
        let (a, shape) = (self.id(a), self.id(shape));
        let none = std::ptr::null();
        // SAFETY: `raw` is alive; null means no permutation and no fixed dimensions.
        let status = unsafe {
            (self.library.api().ew_shuffle)(
                self.raw,
                a,
                none,
                0,
                std::ptr::null(),
                0,
                shape,
                none,
                0,
            )
        };
        self.made(status, "a reshape")
    }

    /// Axis `i` of the result is axis `order[i]`.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn transpose(&mut self, a: Tensor, order: &[usize]) -> Result<Tensor, TensorRtError> {
        let a = self.id(a);
        let order: Vec<i32> = order.iter().map(|axis| length(*axis)).collect();
        let (count, none) = (length(order.len()), std::ptr::null());
        // SAFETY: `raw` is alive, `order` has `count` elements; null means no reshape.
        let status = unsafe {
            (self.library.api().ew_shuffle)(
                self.raw,
                a,
                order.as_ptr(),
                count,
                std::ptr::null(),
                0,
                -1,
                none,
                0,
            )
        };
        self.made(status, &format!("a transposition to {order:?}"))
    }

    /// The part of `size` from `start` on; the tensors (I64, one axis), where given, replace them.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn slice(
        &mut self,
        a: Tensor,
        (start, size): (&[i64], &[i64]),
        start_tensor: Option<Tensor>,
        size_tensor: Option<Tensor>,
    ) -> Result<Tensor, TensorRtError> {
        let a = self.id(a);
        let [from, many] =
            [start_tensor, size_tensor].map(|one| one.map_or(-1, |one| self.id(one)));
        // Both arrays must have as many elements as is said: the shorter one decides.
        let count = length(start.len().min(size.len()));
        // SAFETY: `raw` is alive; both arrays have at least `count` elements.
        let status = unsafe {
            (self.library.api().ew_slice)(
                self.raw,
                a,
                start.as_ptr(),
                size.as_ptr(),
                count,
                from,
                many,
            )
        };
        self.made(status, "a slice")
    }

    /// Integers times scales. `axis`: the one with a scale each; `None`: blocks, the scale has the
    /// integers' rank.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn dequantize(
        &mut self,
        values: Tensor,
        scales: Tensor,
        axis: Option<usize>,
        to: Type,
    ) -> Result<Tensor, TensorRtError> {
        let (values, scales) = (self.id(values), self.id(scales));
        let axis = axis.map_or(-1, length);
        // SAFETY: `raw` is alive; the shim checks the numbers.
        let status = unsafe {
            (self.library.api().ew_dequantize)(self.raw, values, scales, axis, to as i32)
        };
        self.made(status, "a dequantisation")
    }

    /// The `count` largest along `axis`: values and indices (I32).
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn largest(
        &mut self,
        a: Tensor,
        count: u32,
        axis: usize,
    ) -> Result<(Tensor, Tensor), TensorRtError> {
        let a = self.id(a);
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        let mut indices = -1;
        // SAFETY: `raw` is alive; `indices` is valid for the call.
        let status = unsafe {
            (self.library.api().ew_topk)(self.raw, a, count, axis_mask(&[axis]), &raw mut indices)
        };
        let values = self.made(status, "a top-k")?;
        Ok((values, self.made(indices, "a top-k")?))
    }

    /// Rotates halves of `[b, h, s, d]` by tables `[positions, d / 2]` at positions `[b, s]`.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn rotary(
        &mut self,
        a: Tensor,
        (cosines, sines): (Tensor, Tensor),
        positions: Tensor,
    ) -> Result<Tensor, TensorRtError> {
        let (a, positions) = (self.id(a), self.id(positions));
        let (cosines, sines) = (self.id(cosines), self.id(sines));
        // SAFETY: `raw` is alive; the shim checks the tensors' numbers.
        let status =
            unsafe { (self.library.api().ew_rotary)(self.raw, a, cosines, sines, positions) };
        self.made(status, "a rotary embedding")
    }

    /// The cache `[b, h, capacity, d]` with the new rows `[b, h, s, d]` from `index[b]` on.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn kv_update(
        &mut self,
        cache: Tensor,
        update: Tensor,
        index: Tensor,
    ) -> Result<Tensor, TensorRtError> {
        let (cache, update, index) = (self.id(cache), self.id(update), self.id(index));
        // SAFETY: `raw` is alive; the shim checks the tensors' numbers.
        let status = unsafe { (self.library.api().ew_kv_update)(self.raw, cache, update, index) };
        self.made(status, "a KV-cache update")
    }

    /// `softmax(q kᵀ) v` where the mask (Bool) is true; not scaled.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn attention(
        &mut self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Option<Tensor>,
    ) -> Result<Tensor, TensorRtError> {
        let (q, k, v) = (self.id(q), self.id(k), self.id(v));
        let mask = mask.map_or(-1, |mask| self.id(mask));
        // SAFETY: `raw` is alive; the shim checks the tensors' numbers.
        let status = unsafe { (self.library.api().ew_attention)(self.raw, q, k, v, mask) };
        self.made(status, "an attention")
    }

    /// Names the layer that gives `a`, for inspection and TensorRT's messages.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn name(&mut self, a: Tensor, name: &str) -> Result<(), TensorRtError> {
        let (id, name) = (self.id(a), c_string(name)?);
        // SAFETY: `raw` is alive, the name is valid for the call, which copies it.
        let status = unsafe { (self.library.api().ew_name_layer)(self.raw, id, name.as_ptr()) };
        self.library.checked(status, "a layer's name").map(drop)
    }

    /// Makes `a` an output of the network.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn output(&mut self, a: Tensor, name: &str) -> Result<(), TensorRtError> {
        let (id, named) = (self.id(a), c_string(name)?);
        // SAFETY: `raw` is alive, the name is valid for the call, which copies it.
        let status = unsafe { (self.library.api().ew_output)(self.raw, id, named.as_ptr()) };
        let what = format!("the output {name}");
        self.library.checked(status, &what).map(drop)
    }
}

fn axis_mask(axes: &[usize]) -> u32 {
    axes.iter().fold(0, |mask, &axis| {
        let bit = u32::try_from(axis)
            .ok()
            .and_then(|axis| 1_u32.checked_shl(axis));
        mask | bit.unwrap_or_default()
    })
}
