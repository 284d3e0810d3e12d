//! Plans on a fake model: errors, the work that they ask of the model, progress, and text.

use std::sync::{Arc, Mutex};

use crate::fake_model::{FakeModel, HIDDEN, three_sequences, token_set};
use actbench_activations::plan::{ActTensor, Acts, Axes, Axis, Progress, ResultDevice, Rule, Rules};
use actbench_activations::tokens::{JoinedTokens, TokenSet};
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
    // 9 tokens, of which the last of sequence 0 follows its last masked one. Sequences 0 and 2 share their first two, so 6 are
    // distinct, of which 3 are masked: position 1 of the shared prefix, one more of the first and one more of the third.
    assert_eq!(work(Rules::all(), mean), (6, 3, 3 * 2 * vector));
    assert_eq!(work(without(&[Rule::Tail]), mean), (7, 3, 3 * 2 * vector));
    assert_eq!(work(without(&[Rule::Mask]), mean), (6, 6, 3 * 2 * vector));
    assert_eq!(work(without(&[Rule::Prefix]), mean), (8, 4, 3 * 2 * vector));
    // In pairs: the first padded to 3, the second of one sequence alone.
    assert_eq!(work(without(&[Rule::Packing]), mean), (3 + 3 + 3, 4, 3 * 2 * vector));
    assert_eq!(work(without(&[Rule::Packing, Rule::Tail]), mean), (4 + 4 + 3, 4, 3 * 2 * vector));
    assert_eq!(work(without(&[Rule::Pooling, Rule::Prefix]), mean), (8, 8, 8 * 2 * vector));
    assert_eq!(work(Rules::all(), |plan| plan), (7, 7, 7 * 2 * vector), "all activations are asked for");
    let second = |plan: Acts| mean(plan).slice_batch(1..2).unwrap();
    assert_eq!(work(Rules::all(), second), (2, 0, 2 * vector));
    assert_eq!(work(without(&[Rule::Batch]), second), (6, 3, 3 * 2 * vector));
    // A cast before a mean decides how it is rounded, so all needed tokens are emitted unpooled.
    let cast_first = |plan: Acts| mean(plan.cast(DType::F32).unwrap());
    assert_eq!(work(without(&[Rule::Prefix]), cast_first), (8, 8, 8 * 2 * vector));
}

#[test]
fn sides_of_a_split_run_in_one_pass() {
    let (train, test) =
        (Arc::new(three_sequences()), Arc::new(token_set(&[(&[0, 1, 0], &[false, true, true]), (&[2], &[true])])));
    let mean = |tokens: JoinedTokens| {
        let model = model();
        let plan = Acts::collect(model, tokens, &[1, 4], 2).unwrap().mean_pool(Axis::Sequence).unwrap();
        (plan.realize().unwrap(), plan)
    };
    let (joined, plan) = mean([train.clone(), test.clone()].into());
    let sides = [mean(train.into()), mean(test.into())];
    let bytes: Vec<&[u8]> = sides.iter().map(|(tensor, _)| &tensor.bytes()[..]).collect();
    assert_eq!(joined.bytes()[..], bytes.concat());
    let computed = |plan: &Acts| (plan.stats().tokens_computed, plan.stats().tokens_total);
    assert_eq!(sides.each_ref().map(|(_, plan)| computed(plan)), [(6, 9), (4, 4)]);
    // Tokens 0, 01 and 2 are on both sides.
    assert_eq!(computed(&plan), (7, 13));
    assert_eq!(plan.cost().unwrap().unwrap().tokens_computed, 7);
}

#[test]
fn batches_fill_a_device_that_is_larger_than_asked() {
    let filling = |filled_batch_tokens, memory_tokens| {
        let mut model = FakeModel::new(6, DType::Bf16);
        (model.filled_batch_tokens, model.memory_tokens) = (filled_batch_tokens, memory_tokens);
        let sequences: Vec<[u32; 4]> = (0..27).map(|n| [n / 9, n / 3 % 3, n % 3, 0]).collect();
        let mask = [false, true, true, true];
        let pairs: Vec<(&[u32], &[bool])> = sequences.iter().map(|ids| (&ids[..], &mask[..])).collect();
        Acts::collect(Arc::new(model), Arc::new(token_set(&pairs)), &[4], 2).unwrap().mean_pool(Axis::Sequence).unwrap()
    };
    let run = |plan: &Acts| {
        let bytes = plan.realize().unwrap().bytes().clone();
        assert_eq!(plan.cost().unwrap().unwrap().batches, plan.stats().batches - plan.stats().halvings);
        (bytes, plan.stats().batches)
    };
    // 3 + 9 + 27 + 27 distinct tokens, at most 8 a batch.
    let (bytes, asked) = run(&filling(Some(32), None));
    assert!(asked >= 9, "{asked} batches");
    for (filled_batch_tokens, fills, batches) in
        [(Some(32), true, 3), (Some(1000), true, 1), (Some(4), true, asked), (None, true, asked)]
    {
        let plan = filling(filled_batch_tokens, None).with_filled_batches(fills);
        assert_eq!(run(&plan), (bytes.clone(), batches), "{filled_batch_tokens:?}");
    }
    let padded = filling(Some(32), None).with_filled_batches(true).with_rules(Rules::all().without(Rule::Packing));
    assert_eq!(run(&padded), (bytes, 14), "padded batches have the size that was asked for");
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
      rules: depth, packing, mask, tail, pooling, prefix, layers, batch
    bytes: source 240 B, result 40 B
    2 samples with 7 tokens: computes 4 tokens in 1 batches through 5 blocks
    last block: 3 tokens computed in full, of the others only keys and values
                            tokens  batches  blocks      FLOPs     bytes out
    with these rules             4        1       5     2.00 k          20 B
    without depth                4        1       6     2.40 k          40 B  1.20x the FLOPs, 2.00x the bytes
    without packing              6        1       5     3.00 k          20 B  1.50x the FLOPs
    without mask                 4        1       5     2.00 k          20 B  no difference
    without tail                 5        1       5     2.50 k          20 B  1.25x the FLOPs
    without pooling              4        1       5     2.00 k          40 B  2.00x the bytes
    without prefix               6        1       5     3.00 k          20 B  1.50x the FLOPs
    without layers               4        1       5     2.00 k          40 B  2.00x the bytes
    without batch                6        1       5     3.00 k          30 B  1.50x the FLOPs, 1.50x the bytes
    without all                 11        2       6     6.60 k         330 B  3.30x the FLOPs, 16.50x the bytes
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
