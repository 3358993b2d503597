//! The three operations of the native form, from their documentation in TensorRT's `NvInfer.h`.

use super::tensor::Tensor;

fn four(tensor: &Tensor) -> [usize; 4] {
    tensor.shape[..].try_into().unwrap()
}

pub fn kv_cache_update(cache: &Tensor, new: &Tensor, index: &Tensor) -> Tensor {
    let ([batch, heads, capacity, length], [_, _, count, _]) = (four(cache), four(new));
    let mut out = cache.as_floats().to_vec();
    let from = new.as_floats();
    for row in 0..batch * heads {
        let at = usize::try_from(index.as_whole()[row / heads]).unwrap();
        assert!(
            at + count <= capacity,
            "{count} tokens at {at} of {capacity}"
        );
        let to = (row * capacity + at) * length;
        let run = count * length;
        out[to..to + run].copy_from_slice(&from[row * run..(row + 1) * run]);
    }
    Tensor::floats(cache.dtype, cache.shape.clone(), out)
}

pub fn attention(query: &Tensor, keys: &Tensor, values: &Tensor, mask: &Tensor) -> Tensor {
    let [batch, heads, sequence, length] = four(query);
    let [_, kv_heads, context, _] = four(keys);
    let [mask_batch, mask_heads, _, _] = four(mask);
    let (q, k, v) = (query.as_floats(), keys.as_floats(), values.as_floats());
    let seen = mask.as_truth();
    let mut out = Vec::with_capacity(q.len());
    for (row, one) in q.chunks(length).enumerate() {
        let (b, head, token) = (
            row / sequence / heads,
            row / sequence % heads,
            row % sequence,
        );
        let shared = (b * kv_heads + head / (heads / kv_heads)) * context;
        let mask_row = (b.min(mask_batch - 1) * mask_heads + head.min(mask_heads - 1)) * sequence;
        let seen = &seen[(mask_row + token) * context..][..context];
        let places: Vec<usize> = (0..context).filter(|place| seen[*place]).collect();
        let dot = |place: &usize| -> f32 {
            let key = &k[(shared + place) * length..][..length];
            one.iter().zip(key).map(|(a, b)| a * b).sum()
        };
        let scores: Vec<f32> = places.iter().map(dot).collect();
        let largest = scores.iter().copied().fold(f32::MIN, f32::max);
        let weights: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
        let sum: f32 = weights.iter().sum();
        let mut attended = vec![0.0; length];
        for (place, weight) in places.iter().zip(weights) {
            let value = &v[(shared + place) * length..][..length];
            for (to, from) in attended.iter_mut().zip(value) {
                *to += weight / sum * from;
            }
        }
        out.extend(attended);
    }
    assert_eq!(batch * heads * sequence * length, out.len());
    Tensor::floats(query.dtype, query.shape.clone(), out)
}

pub fn rotary_embedding(x: &Tensor, cosines: &Tensor, sines: &Tensor, at: &Tensor) -> Tensor {
    let [_, heads, sequence, length] = four(x);
    let half = length / 2;
    let mut out = x.as_floats().to_vec();
    for (row, head) in out.chunks_mut(length).enumerate() {
        let (b, token) = (row / sequence / heads, row % sequence);
        let position = usize::try_from(at.as_whole()[b * sequence + token]).unwrap();
        for pair in 0..half {
            let cosine = cosines.as_floats()[position * half + pair];
            let sine = sines.as_floats()[position * half + pair];
            let (a, b) = (head[pair], head[pair + half]);
            head[pair] = a * cosine - b * sine;
            head[pair + half] = b * cosine + a * sine;
        }
    }
    Tensor::floats(x.dtype, x.shape.clone(), out)
}
