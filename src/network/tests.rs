use super::*;

fn tokens() -> Dim {
    Dim::from(Symbol::Batch)
        .times(&Symbol::Sequence.into())
        .unwrap()
}

fn profile() -> Profile {
    let bounds = Bounds {
        min: 1,
        opt: 1,
        max: 8,
    };
    Profile::new("all")
        .with(Symbol::Batch, bounds)
        .with(Symbol::Sequence, bounds)
}

fn linear_spec(encoding: Encoding, layout: Layout) -> WeightSpec {
    WeightSpec {
        name: "w".into(),
        kind: WeightKind::Linear,
        sources: vec![Source {
            name: "blk.0.ffn_up.weight".into(),
            rows: 32,
            row_length: 128,
        }],
        layout,
        encoding,
    }
}

/// Two inputs of the batch and an embedding: what other tests build on.
fn embedded(graph: &mut GraphBuilder) -> TensorId {
    let shape = shape![Symbol::Batch, Symbol::Sequence];
    let ids = graph
        .input("tokens", InputRole::Tokens, DataType::I32, shape)
        .unwrap();
    let table = WeightSpec {
        name: "embedding".into(),
        kind: WeightKind::Table,
        sources: vec![Source {
            name: "token_embd.weight".into(),
            rows: 16,
            row_length: 128,
        }],
        layout: Layout::Nk,
        encoding: Encoding::F16,
    };
    let table = graph.weight(table).unwrap();
    let table = graph.load(table).unwrap();
    let flat = graph.reshape(ids, shape![tokens()]).unwrap();
    graph.gather(table, flat, 0).unwrap()
}

#[test]
fn a_linear_layer_has_the_same_shape_in_every_layout_and_encoding() {
    for layout in [Layout::Nk, Layout::Kn] {
        for encoding in [Encoding::F16, Encoding::Int8, Encoding::Int4 { block: 64 }] {
            let mut graph = GraphBuilder::default();
            let x = embedded(&mut graph);
            let weight = graph.weight(linear_spec(encoding, layout)).unwrap();
            let y = graph.linear(x, weight).unwrap();
            assert_eq!(graph.shape(y), Some(&shape![tokens(), 32_i64]));
            assert_eq!(graph.dtype(y), Some(DataType::F16));
            graph.output("logits", OutputRole::Logits, y);
            let graph = graph.finish(vec![profile()]).unwrap();
            assert_eq!(graph.symbols(), [Symbol::Batch, Symbol::Sequence]);
            let (source, axis) = graph.symbol_source(Symbol::Sequence).unwrap();
            assert_eq!((graph.node(source).name.as_str(), axis), ("tokens", 1));
        }
    }
}

#[test]
fn an_error_names_the_operation_and_its_operands() {
    let mut graph = GraphBuilder::default();
    let x = embedded(&mut graph);
    graph.scope("layer.3.attention");
    let error = graph.mat_mul(x, x, false).unwrap_err().to_string();
    assert!(error.contains("layer.3.attention.matMul"), "{error}");
    assert!(error.contains("F16 [batch·sequence, 128]"), "{error}");
    assert!(error.contains("sums over 128 on the left"), "{error}");
}

#[test]
fn a_tensor_of_another_graph_is_refused() {
    let mut large = GraphBuilder::default();
    let foreign = embedded(&mut large);
    let mut graph = GraphBuilder::default();
    let error = graph.unary(Unary::Exp, foreign).unwrap_err().to_string();
    assert!(error.contains("of another graph"), "{error}");
}

#[test]
fn what_is_used_by_nothing_is_refused() {
    let mut graph = GraphBuilder::default();
    let x = embedded(&mut graph);
    graph.unary(Unary::Exp, x).unwrap();
    graph.output("logits", OutputRole::Logits, x);
    let error = graph.finish(vec![profile()]).unwrap_err().to_string();
    assert!(
        error.contains("exp") && error.contains("used by nothing"),
        "{error}"
    );
}

#[test]
fn a_slice_beyond_its_tensor_in_a_profile_is_refused() {
    let build = |longest: i64| {
        let mut graph = GraphBuilder::default();
        let shape = shape![2_i64, 4_i64, 64_i64, 8_i64];
        let past = graph
            .input("past", InputRole::PastKeys(0), DataType::F16, shape)
            .unwrap();
        let iota = graph
            .input(
                "context",
                InputRole::ContextPositions,
                DataType::I32,
                shape![Symbol::Context],
            )
            .unwrap();
        let part = graph
            .slice(past, 2, Dim::fixed(0), Symbol::Context.into())
            .unwrap();
        graph.output("k", OutputRole::Keys(0), part);
        graph.output("v", OutputRole::Values(0), iota);
        let bounds = Bounds {
            min: 1,
            opt: 32,
            max: longest,
        };
        graph.finish(vec![Profile::new("decode").with(Symbol::Context, bounds)])
    };
    assert!(build(64).is_ok());
    let error = build(65).unwrap_err().to_string();
    assert!(
        error.contains("decode") && error.contains("beyond 64 of axis 2"),
        "{error}"
    );
}

#[test]
fn profiles_bound_every_changing_size_and_no_other() {
    let build = |profiles: Vec<Profile>| {
        let mut graph = GraphBuilder::default();
        let x = embedded(&mut graph);
        graph.output("logits", OutputRole::Logits, x);
        graph.finish(profiles).map_err(|error| error.to_string())
    };
    assert!(build(vec![profile()]).is_ok());
    let error = build(vec![]).unwrap_err();
    assert!(error.contains("no profile bounds"), "{error}");
    let error = build(vec![
        Profile::new("p").with(Symbol::Batch, Bounds::exactly(1)),
    ])
    .unwrap_err();
    assert!(
        error.contains("says nothing of the size sequence"),
        "{error}"
    );
    let error = build(vec![profile().with(Symbol::Rows, Bounds::exactly(1))]).unwrap_err();
    assert!(error.contains("does not have"), "{error}");
    let wrong = Bounds {
        min: 4,
        opt: 2,
        max: 8,
    };
    let error = build(vec![profile().with(Symbol::Batch, wrong)]).unwrap_err();
    assert!(error.contains("min ≤ opt ≤ max"), "{error}");
    let error = build(vec![profile(), profile()]).unwrap_err();
    assert!(error.contains("twice"), "{error}");
}

#[test]
fn the_native_operations_check_heads_and_masks() {
    let mut graph = GraphBuilder::default();
    let heads = |heads: i64| shape![2_i64, heads, 16_i64, 8_i64];
    let f16 = DataType::F16;
    let cache = graph
        .input("k", InputRole::PastKeys(0), f16, heads(4))
        .unwrap();
    let query = graph
        .input("q", InputRole::PastKeys(1), f16, heads(6))
        .unwrap();
    let mask = graph
        .input(
            "m",
            InputRole::Positions,
            DataType::I32,
            shape![16_i64, 16_i64],
        )
        .unwrap();
    let mask = graph.binary(Binary::Less, mask, mask).unwrap();
    let mask = graph
        .reshape(mask, shape![1_i64, 1_i64, 16_i64, 16_i64])
        .unwrap();
    let error = graph
        .add(Op::Attention, &[query, cache, cache, mask])
        .unwrap_err();
    assert!(
        error.to_string().contains("do not belong together"),
        "{error}"
    );
    assert!(
        graph
            .add(Op::Attention, &[cache, cache, cache, mask])
            .is_ok()
    );
    let error = graph
        .add(Op::Attention, &[cache, cache, cache, cache])
        .unwrap_err();
    assert!(error.to_string().contains("the mask is F16"), "{error}");
    let error = graph
        .add(Op::KvCacheUpdate, &[cache, query, mask])
        .unwrap_err();
    assert!(error.to_string().contains("does not go into"), "{error}");
}
