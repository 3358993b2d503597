//! Wrong operands are refused with the operation's name, whatever they are, and never a panic.

use enginewright::network::{
    Binary, Bounds, DataType, Dim, Encoding, GraphBuilder, InputRole, Layout, NetworkError, Op,
    OutputRole, Part, Profile, Reduction, Scaling, Shape, Source, Symbol, TensorId, Unary, Values,
    WeightId, WeightKind, WeightSpec,
};
use proptest::prelude::*;

fn dim() -> impl Strategy<Value = Dim> {
    let symbol = prop::sample::select(Symbol::ALL.to_vec()).prop_map(Dim::from);
    let fixed = prop_oneof![0_i64..5, Just(64), Just(128), any::<i64>()].prop_map(Dim::fixed);
    prop_oneof![
        4 => fixed,
        2 => symbol.clone(),
        1 => (symbol.clone(), symbol).prop_filter_map("fits", |(a, b)| a.times(&b)),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    prop::collection::vec(dim(), 0..6).prop_map(Shape)
}

fn dtype() -> impl Strategy<Value = DataType> {
    use DataType::{Bool, F16, F32, I4, I8, I32, I64};

    prop::sample::select(vec![F32, F16, I32, I64, Bool, I8, I4])
}

fn operation() -> impl Strategy<Value = Op> {
    use Binary::{Add, And, Divide, Less, Max};

    let axis = || 0_usize..5;
    let unary = prop::sample::select(vec![Unary::Sqrt, Unary::Sigmoid]);
    let binary = prop::sample::select(vec![Add, And, Divide, Less, Max]);
    let starts = prop::collection::vec(dim(), 0..5);
    prop_oneof![
        binary.prop_map(Op::Binary),
        unary.prop_map(Op::Unary),
        any::<(bool, bool)>().prop_map(|(transpose_left, transpose_right)| Op::MatMul {
            transpose_left,
            transpose_right
        }),
        axis().prop_map(|axis| Op::Softmax { axis }),
        axis().prop_map(|axis| Op::Gather { axis }),
        (starts, shape()).prop_map(|(start, size)| Op::Slice { start, size }),
        axis().prop_map(|axis| Op::Concat { axis }),
        shape().prop_map(|to| Op::Reshape { to }),
        prop::collection::vec(axis(), 0..5).prop_map(|order| Op::Transpose { order }),
        axis().prop_map(|axis| Op::Reduce {
            reduction: Reduction::Mean,
            axis
        }),
        dtype().prop_map(|to| Op::Cast { to }),
        Just(Op::Select),
        (axis(), any::<u32>(), any::<bool>()).prop_map(|(axis, block, blocks)| {
            let block = block % 65;
            Op::Dequantize(if blocks {
                Scaling::Block { axis, block }
            } else {
                Scaling::Channel { axis }
            })
        }),
        Just(Op::KvCacheUpdate),
        Just(Op::Attention),
        Just(Op::RotaryEmbedding),
        Just(Op::Constant(Values::I32([1, 2].into()))),
        Just(Op::Input(InputRole::Tokens)),
    ]
}

fn role(index: usize) -> InputRole {
    let layer = u32::try_from(index).unwrap();
    match index % 4 {
        0 => InputRole::PastKeys(layer),
        1 => InputRole::PastValues(layer),
        2 => InputRole::Rows,
        _ => InputRole::Tokens,
    }
}

/// A graph with tensors of all sorts: inputs as given where they are accepted, and a quantised weight.
fn graph(inputs: Vec<(DataType, Shape)>) -> (GraphBuilder, Vec<TensorId>, Option<WeightId>) {
    let mut graph = GraphBuilder::default();
    let mut tensors = Vec::new();
    for (index, (dtype, shape)) in inputs.into_iter().enumerate() {
        let name = format!("input.{index}");
        tensors.extend(graph.input(&name, role(index), dtype, shape));
    }
    let spec = WeightSpec {
        name: "w".into(),
        kind: WeightKind::Linear,
        sources: vec![Source {
            name: "blk.0.ffn_up.weight".into(),
            rows: 4,
            row_length: 128,
        }],
        layout: Layout::Nk,
        encoding: Encoding::Int4 { block: 64 },
    };
    let weight = graph.weight(spec).ok();
    if let Some(weight) = weight {
        for part in [Part::Values, Part::Scales] {
            tensors.extend(graph.add(Op::Weight { weight, part }, &[]));
        }
    }
    (graph, tensors, weight)
}

/// What every accepted result promises.
fn sensible(graph: &GraphBuilder, tensor: TensorId) -> bool {
    let shape = graph.shape(tensor).unwrap();
    shape.rank() <= 8
        && shape.elements().is_some()
        && shape.0.iter().all(|size| size.is_at_least(1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_operation_of_any_operands_is_accepted_or_named(
        inputs in prop::collection::vec((dtype(), shape()), 0..8),
        operations in prop::collection::vec((operation(), prop::collection::vec(any::<u8>(), 0..5)), 1..12),
    ) {
        let (mut graph, mut tensors, _) = graph(inputs);
        graph.scope("here");
        for (op, picks) in operations {
            let pick = |pick: &u8| tensors[usize::from(*pick) % tensors.len()];
            let operands: Vec<TensorId> = picks.iter().map(pick).collect();
            let kind = op.kind();
            match graph.add(op, &operands) {
                Ok(tensor) => {
                    prop_assert!(sensible(&graph, tensor));
                    tensors.push(tensor);
                }
                Err(error) => {
                    let text = error.to_string();
                    prop_assert!(text.contains(&format!("here.{kind}.")), "{}", text);
                    prop_assert!(text.len() < 4_000, "{}", text);
                }
            }
        }
        let last = *tensors.last().unwrap();
        graph.output("logits", OutputRole::Logits, last);
        let bounds = Bounds { min: 1, opt: 2, max: i64::MAX };
        let profile = Symbol::ALL
            .into_iter()
            .fold(Profile::new("all"), |profile, symbol| profile.with(symbol, bounds));
        // Most of these are refused, for operations that nothing uses; none may panic.
        let _ = graph.finish(vec![profile]);
    }

    #[test]
    fn any_weight_is_described_or_named(
        rows in any::<u64>(),
        row_length in prop_oneof![any::<u64>(), 1_u64..1_000],
        count in 0_usize..4,
        encoding in prop::sample::select(vec![
            Encoding::F32, Encoding::F16, Encoding::Int8, Encoding::Int4 { block: 64 }, Encoding::Int4 { block: 0 },
        ]),
        kind in prop::sample::select(vec![WeightKind::Linear, WeightKind::Table, WeightKind::Vector]),
        layout in prop::sample::select(vec![Layout::Nk, Layout::Kn]),
    ) {
        let mut graph = GraphBuilder::default();
        let source = Source { name: "blk.0.x.weight".into(), rows, row_length };
        let spec = WeightSpec { name: "the one".into(), kind, sources: vec![source; count], layout, encoding };
        match graph.weight(spec) {
            Ok(weight) => {
                let tensor = graph.load(weight).unwrap();
                prop_assert!(sensible(&graph, tensor));
                let known = matches!(graph.dtype(tensor), Some(DataType::F16 | DataType::F32));
                prop_assert!(known);
            }
            Err(error) => {
                let named = matches!(&error, NetworkError::Weight { name, .. } if name == "the one");
                prop_assert!(named, "{}", error);
            }
        }
    }
}
