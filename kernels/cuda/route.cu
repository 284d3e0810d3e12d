// The router of a mixture of experts (Shazeer et al. 2017): a softmax in f32 over the logits of all experts, and the `top_k`
// largest probabilities, of equal ones the first.
// Step 1, route_TYPE: a block a row.                                                              not measured yet
//
// logits is [rows, n_experts], with at most MAX_EXPERTS. A row of routes has the chosen experts by increasing index as u32,
// then the bits of their f32 weights: the probabilities, divided by their sum if `renormalize` is set, rounded to the type of
// the logits if `rounded` is set. A row of logits is at most 2 KiB, so there is no step with wide loads.
// Launch: grid (rows), 128 threads; 4160 bytes of static shared memory. No pipeline.
// Determinism: the sum has PARTIAL_SUMS interleaved partial sums and a fixed tree, the weights are added by increasing index:
// the bits of the CPU backend. A row depends on itself alone.
#include "math.cuh"

constexpr u32 MAX_EXPERTS = 512;

// The larger one; NaN if one is.
DEVICE float larger(float a, float b) { return b > a || b != b ? b : a; }

template <class E>
DEVICE void route(const E* logits, u32 n_experts, u32 top_k, u32 renormalize, u32 rounded, u32* routes) {
  SHARED_ARRAY(float, probability, MAX_EXPERTS);
  SHARED_ARRAY(u32, is_chosen, MAX_EXPERTS);
  SHARED_ARRAY(float, partial, PARTIAL_SUMS);
  const E* row = logits + static_cast<u64>(blockIdx.x) * n_experts;
  if (threadIdx.x < PARTIAL_SUMS) {
    float largest = minus_infinity();
    for (u32 expert = threadIdx.x; expert < n_experts; expert += PARTIAL_SUMS) {
      largest = larger(largest, to_float(row[expert]));
    }
    partial[threadIdx.x] = largest;
  }
  __syncthreads();
  float largest = partial[0];
  for (u32 i = 1; i < PARTIAL_SUMS; i++) largest = larger(largest, partial[i]);
  for (u32 expert = threadIdx.x; expert < n_experts; expert += blockDim.x) {
    probability[expert] = exp_accurate(to_float(row[expert]) - largest);
  }
  // All threads have read the partial maxima, which the sums overwrite.
  __syncthreads();
  if (threadIdx.x < PARTIAL_SUMS) {
    float sum = 0.0f;
    for (u32 expert = threadIdx.x; expert < n_experts; expert += PARTIAL_SUMS) sum += probability[expert];
    partial[threadIdx.x] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) tree_reduce_sum(partial);
  __syncthreads();
  for (u32 expert = threadIdx.x; expert < n_experts; expert += blockDim.x) {
    probability[expert] = probability[expert] / partial[0];
  }
  __syncthreads();
  for (u32 expert = threadIdx.x; expert < n_experts; expert += blockDim.x) {
    // Experts that are chosen before this one. If one probability is NaN then all are, and the first are chosen.
    const float own = probability[expert];
    u32 before = 0;
    for (u32 other = 0; other < n_experts; other++) {
      const bool is_equal = !(probability[other] < own);
      before += probability[other] > own || (is_equal && other < expert) ? 1 : 0;
    }
    is_chosen[expert] = before < top_k ? 1 : 0;
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
  u32* experts = routes + static_cast<u64>(blockIdx.x) * 2 * top_k;
  u32 count = 0;
  float total = 0.0f;
  for (u32 expert = 0; expert < n_experts; expert++) {
    if (is_chosen[expert] == 0) continue;
    experts[count++] = expert;
    total += probability[expert];
  }
  for (u32 i = 0; i < top_k; i++) {
    float weight = probability[experts[i]];
    if (renormalize) weight = weight / total;
    if (rounded) weight = to_float(from_float<E>(weight));
    experts[top_k + i] = float_to_bits(weight);
  }
}

#define ROUTE_KERNEL(name, E)                                                                               \
  KERNEL __launch_bounds__(128) name(const E* __restrict__ logits, u32 n_experts, u32 top_k, u32 renormalize, \
                                     u32 rounded, u32* __restrict__ routes) {                               \
    route<E>(logits, n_experts, top_k, renormalize, rounded, routes);                                       \
  }                                                                                                         \
  REGISTER_KERNEL(name);

ROUTE_KERNEL(route_f32, float)
ROUTE_KERNEL(route_f16, f16)
ROUTE_KERNEL(route_bf16, bf16)
