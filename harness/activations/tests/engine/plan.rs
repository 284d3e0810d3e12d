//! Plans on a fake model: errors, the work that they ask of the model, progress, and text.

use std::sync::{Arc, Mutex};

use crate::fake_model::{FakeModel, HIDDEN, three_sequences, token_set};
use actbench_activations::plan::{ActTensor, Acts, Axes, Axis, Progress, ResultDevice, Rule, Rules};
use actbench_activations::tokens::TokenSet;
use actbench_activations::{Result, eager};
use actbench_kernels::{DType, PoolMethod};

fn model() -> Arc<FakeModel> {
    Arc::new(FakeModel::new(6, DType::Bf16))
}

fn collect(model: &Arc<FakeModel>, layers: &[usize]) -> Acts {
    Acts::collect(model.clone(), Arc::new(three_sequences()), layers, 2).unwrap()
}

#[track_caller]
fn assert_usage<T>(result: Result<T>, expected: &str) {
    let error = result.err().expect("expected an error");
    assert!(error.to_string().contains(expected), "{error}");
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn impossible_extraction_is_refused_before_model_runs() {
    let model = model();
    let try_collect =
        |tokens: TokenSet, layers: &[usize], batch| Acts::collect(model.clone(), Arc::new(tokens), layers, batch);
    assert_usage(try_collect(three_sequences(), &[6], 2), "layer 6 is too deep: the model has 6 layers, 0 to 5");
    assert_usage(try_collect(three_sequences(), &[], 2), "at least one layer");
    assert_usage(try_collect(three_sequences(), &[2, 2], 2), "layer 2 is named twice");
    assert_usage(try_collect(three_sequences(), &[2], 0), "batch size 0");
    assert_usage(try_collect(token_set(&[(&[0], &[true]), (&[], &[])]), &[2], 2), "sample 1: it has no tokens");
    assert_usage(try_collect(token_set(&[(&[0, 1], &[true])]), &[2], 2), "2 tokens but 1 mask flags");
    assert_usage(try_collect(token_set(&[(&[3], &[true])]), &[2], 2), "token 3 is not in the model's vocabulary of 3");

    let tokens = three_sequences();
    let pooled =
        |layer, batch| eager::extract_layer_pooled(model.as_ref(), &tokens, layer, batch, PoolMethod::Mean, None);
    assert_usage(pooled(6, 2), "layer 6 is too deep");
    assert_usage(pooled(0, 0), "batch size 0");
    assert_usage(eager::extract_full(model.as_ref(), &tokens, &[], 2, None), "at least one layer");
    assert_usage(eager::extract_full(model.as_ref(), &tokens, &[1, 1], 2, None), "layer 1 is named twice");
    assert_eq!(model.log().runs, 0);
}

#[test]
fn refused_operations_leave_the_plan_unchanged() {
    let model = model();
    let plan = collect(&model, &[1, 4]);
    assert_usage(plan.select_layers(&[0]), "layer 0 is not among the layers 1, 4");
    assert_usage(plan.pool(PoolMethod::Mean, Axis::Batch), "axis b cannot be pooled");
    assert_usage(plan.slice_batch(vec![3]), "batch of 3");
    assert_usage(plan.to(ResultDevice::Cuda(0)), "host memory");
    assert_usage(plan.mean_pool(Axis::Layer).unwrap().select_layer(1), "no axis l");
    assert_usage(plan.iter_batches(0), "at least 1");
    assert_usage(plan.select_layer(1).unwrap().iter_layers(), "no axis l");
    let unmasked = ActTensor::from_f32(Axes::BSH, &[1, 2, 1], DType::F32, [], None, &[1.0, 2.0]).unwrap();
    assert_usage(Acts::from_tensor(unmasked).mean_pool(Axis::Sequence), "no mask");
    assert_eq!((plan.shape(), plan.operations().len(), model.log().runs), (vec![3, 2, 4, HIDDEN], 0, 0));
}

#[test]
fn model_stops_at_deepest_needed_layer() {
    let model = model();
    let plan = collect(&model, &[0, 5, 3]).mean_pool(Axis::Sequence).unwrap();
    plan.select_layers(&[3, 0]).unwrap().realize().unwrap();
    assert_eq!(model.log().layers, [0, 3]);
    plan.select_layer(0).unwrap().with_rules(Rules::all().without(Rule::Layers)).realize().unwrap();
    assert_eq!(model.log().layers, [0, 3, 5]);
    plan.select_layer(0).unwrap().with_rules(Rules::all().without(Rule::Depth)).realize().unwrap();
    assert_eq!(model.log().layers, [0, 5]);
    eager::extract_layer_pooled(model.as_ref(), &three_sequences(), 2, 2, PoolMethod::Mean, None).unwrap();
    assert_eq!(model.log().layers, [2]);
}

/// Tokens of all layers, tokens of the last layer, bytes emitted.
fn work(rules: Rules, build: impl Fn(Acts) -> Acts) -> (usize, usize, usize) {
    let model = model();
    build(collect(&model, &[1, 4])).with_rules(rules).realize().unwrap();
    let log = model.log();
    (log.tokens, log.last_layer_tokens, log.bytes)
}

#[test]
fn each_rule_saves_its_work() {
    let mean = |plan: Acts| plan.mean_pool(Axis::Sequence).unwrap();
    let without = |rules: &[Rule]| rules.iter().fold(Rules::all(), |rules, rule| rules.without(*rule));
    let vector = HIDDEN * 2;
    // 9 tokens; sequences 0 and 2 share their first two, so 7 are distinct, of which 3 are masked: position 1 of the shared
    // prefix, one more of the first and one more of the third.
    assert_eq!(work(Rules::all(), mean), (7, 3, 3 * 2 * vector));
    assert_eq!(work(without(&[Rule::Mask]), mean), (7, 7, 3 * 2 * vector));
    assert_eq!(work(without(&[Rule::Prefix]), mean), (9, 4, 3 * 2 * vector));
    // In pairs: the first padded to 4, the second of one sequence alone.
    assert_eq!(work(without(&[Rule::Packing]), mean), (4 + 4 + 3, 4, 3 * 2 * vector));
    assert_eq!(work(without(&[Rule::Pooling, Rule::Prefix]), mean), (9, 9, 9 * 2 * vector));
    let second = |plan: Acts| mean(plan).slice_batch(1..2).unwrap();
    assert_eq!(work(Rules::all(), second), (2, 0, 2 * vector));
    assert_eq!(work(without(&[Rule::Batch]), second), (7, 3, 3 * 2 * vector));
    // A cast before a mean decides how it is rounded, so all tokens are emitted unpooled.
    let cast_first = |plan: Acts| mean(plan.cast(DType::F32).unwrap());
    assert_eq!(work(without(&[Rule::Prefix]), cast_first), (9, 9, 9 * 2 * vector));
}

#[test]
fn cast_and_pool_do_not_commute() {
    let mean = |tensor: &ActTensor| tensor.to_f32_vec();
    let full = collect(&model(), &[4]).select_layer(4).unwrap();
    let pooled_first = full.mean_pool(Axis::Sequence).unwrap().cast(DType::F32).unwrap().realize().unwrap();
    let cast_first = full.cast(DType::F32).unwrap().mean_pool(Axis::Sequence).unwrap().realize().unwrap();
    assert_eq!(pooled_first.signature(), cast_first.signature());
    assert_ne!(mean(&pooled_first), mean(&cast_first));
}

#[test]
fn progress_increases_to_all_samples() {
    let seen: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let sink = {
        let seen = seen.clone();
        Arc::new(move |progress| seen.lock().unwrap().push(progress)) as actbench_activations::plan::ProgressSink
    };
    let check = |what: &str| {
        let seen: Vec<Progress> = seen.lock().unwrap().drain(..).collect();
        assert!(seen.windows(2).all(|pair| pair[0].done < pair[1].done), "{what}: {seen:?}");
        assert_eq!(seen.last(), Some(&Progress { done: 3, total: 3, unit: "samples" }), "{what}");
    };
    let model = model();
    let plan = collect(&model, &[1]).with_progress(sink.clone());
    let tensor = plan.realize().unwrap();
    check("model");
    Acts::from_tensor(tensor).cast(DType::F32).unwrap().with_progress(sink.clone()).realize().unwrap();
    check("tensor");
    eager::extract_full(model.as_ref(), &three_sequences(), &[1], 2, Some(&sink)).unwrap();
    check("eager");
}

#[test]
fn model_failure_ends_the_plan() {
    let failing = Arc::new(FakeModel::failing_at(1, 6, DType::F32));
    let plan = Acts::collect(failing, Arc::new(three_sequences()), &[2], 1).unwrap();
    let plan = plan.with_rules(Rules::all().without(Rule::Packing));
    let mut parts = plan.iter_batches(1).unwrap();
    assert!(parts.next().unwrap().is_ok());
    assert!(parts.next().unwrap().unwrap_err().to_string().contains("fails by request"));
    assert!(parts.next().is_none(), "a part after an error");
    assert!(plan.realize().is_err());
}

#[test]
fn empty_selection_gives_empty_result() {
    let model = model();
    let no_samples = Acts::collect(model.clone(), Arc::new(TokenSet::default()), &[1, 2], 4).unwrap();
    assert_eq!(no_samples.realize().unwrap().shape(), [0, 2, 0, HIDDEN]);
    let empty = collect(&model, &[1, 2]).slice_batch(3..).unwrap().mean_pool(Axis::Sequence).unwrap();
    assert_eq!(empty.realize().unwrap().shape(), [0, 2, HIDDEN]);
    assert_eq!(empty.iter_batches(2).unwrap().count(), 0);
    assert_eq!(model.log().runs, 0);
}

#[test]
fn equivalent_plans_have_equal_fingerprints() {
    let model = model();
    let plan = collect(&model, &[1, 4, 5]);
    let one = plan.mean_pool(Axis::Sequence).unwrap().select_layer(4).unwrap().slice_batch(..2).unwrap();
    let other = plan.slice_batch(vec![0, 1, 2]).unwrap().select_layers(&[5, 4]).unwrap();
    let other = other.slice_batch(..-1).unwrap().select_layer(4).unwrap().mean_pool(Axis::Sequence).unwrap();
    let other = other.cast(DType::Bf16).unwrap().to(ResultDevice::Cpu).unwrap().with_rules(Rules::none());
    assert_eq!(one.fingerprint().unwrap(), other.fingerprint().unwrap());
    assert_eq!(one.realize().unwrap().bytes(), other.realize().unwrap().bytes());

    let differing = |other: &Acts| {
        let (one, other) = (one.fingerprint().unwrap(), other.fingerprint().unwrap());
        one.differences(&other).iter().map(|(part, _, _)| (*part).to_owned()).collect::<Vec<_>>()
    };
    let again = |pool: PoolMethod, layer: usize, samples: i64| {
        plan.pool(pool, Axis::Sequence).unwrap().select_layer(layer).unwrap().slice_batch(..samples).unwrap()
    };
    assert_eq!(differing(&again(PoolMethod::Max, 4, 2)), ["pool"]);
    assert_eq!(differing(&again(PoolMethod::Mean, 1, 2)), ["layers"]);
    assert_eq!(differing(&again(PoolMethod::Mean, 4, 3)), ["mask", "shape", "tokens"]);
    let mut masked = three_sequences();
    masked.sequences[0].mask[0] = true;
    let masked = Acts::collect(model.clone(), Arc::new(masked), &[4], 3).unwrap();
    let masked = masked.mean_pool(Axis::Sequence).unwrap().select_layer(4).unwrap().slice_batch(..2).unwrap();
    assert_eq!(differing(&masked), ["mask"]);
    let single = Arc::new(FakeModel::new(6, DType::F32));
    let single = collect(&single, &[4]).mean_pool(Axis::Sequence).unwrap().select_layer(4).unwrap();
    assert_eq!(differing(&single.slice_batch(..2).unwrap()), ["dtype", "model"]);
}

#[test]
fn plan_prints_and_explains_its_cost() {
    let plan = collect(&model(), &[1, 4]).select_layer(4).unwrap().mean_pool(Axis::Sequence).unwrap();
    let plan = plan.slice_batch(vec![-1, 0]).unwrap().cast(DType::F32).unwrap();
    insta::assert_snapshot!(plan, @r"
    bh [2, 5] f32
      model fake, 6 layers x 5 in bf16: 3 samples, 9 tokens, layers [1, 4], batch size 2
      select_layer(4)
      mean_pool(s)
      slice_batch([-1, 0])
      cast(f32)
    ");
    insta::assert_snapshot!(plan.explain().unwrap(), @r"
    plan: bh [2, 5] f32
      model fake, 6 layers x 5 in bf16: 3 samples, 9 tokens, layers [1, 4], batch size 2
      select_layer(4)
      mean_pool(s)
      slice_batch([-1, 0])
      cast(f32)
    normal form:
      samples [2, 0]
      layers [4], axis l dropped
      then mean_pool(s) cast(f32)
    optimized:
      source: samples [2, 0]
      source: layers [4]
      source: mean_pool(s)
      batches: select_layer(4)
      batches: cast(f32)
      rules: depth, packing, mask, pooling, prefix, layers, batch
    bytes: source 240 B, result 40 B
    2 samples with 7 tokens: computes 5 tokens in 1 batches through 5 blocks
    last block: 3 tokens computed in full, of the others only keys and values
                            tokens  batches  blocks      FLOPs     bytes out
    with these rules             5        1       5     2.50 k          20 B
    without depth                5        1       6     3.00 k          40 B  1.20x the FLOPs, 2.00x the bytes
    without packing              8        1       5     4.00 k          20 B  1.60x the FLOPs
    without mask                 5        1       5     2.50 k          20 B  no difference
    without pooling              5        1       5     2.50 k          50 B  2.50x the bytes
    without prefix               7        1       5     3.50 k          20 B  1.40x the FLOPs
    without layers               5        1       5     2.50 k          40 B  2.00x the bytes
    without batch                7        1       5     3.50 k          30 B  1.40x the FLOPs, 1.50x the bytes
    without all                 11        2       6     6.60 k         330 B  2.64x the FLOPs, 16.50x the bytes
    ");
}

#[test]
fn predicted_cost_equals_work_done() {
    let variants = Rule::ALL.into_iter().map(|rule| Rules::all().without(rule)).chain([Rules::all(), Rules::none()]);
    for rules in variants {
        let model = model();
        let plan = collect(&model, &[1, 4]).slice_batch(vec![2, 0]).unwrap().mean_pool(Axis::Sequence).unwrap();
        let plan = plan.with_rules(rules);
        let cost = plan.cost().unwrap().unwrap();
        plan.realize().unwrap();
        let (stats, log) = (plan.stats(), model.log());
        assert_eq!(
            (cost.tokens_computed, cost.flops, cost.batches),
            (stats.tokens_computed, stats.flops, stats.batches),
            "{rules}"
        );
        assert_eq!((cost.tokens_computed, cost.last_layer_tokens, cost.bytes_out), log_of(&log), "{rules}");
        assert_eq!((cost.tokens, cost.batches), (stats.tokens_total, log.runs as u64), "{rules}");
    }
    let cached = Acts::from_tensor(collect(&model(), &[1]).realize().unwrap());
    assert_eq!((cached.cost().unwrap(), cached.rule_costs().unwrap()), (None, None), "no model runs");
}

fn log_of(log: &crate::fake_model::ModelLog) -> (u64, u64, u64) {
    (log.tokens as u64, log.last_layer_tokens as u64, log.bytes as u64)
}
