// Compares two tensors on the device: number and first index of differing elements, largest difference.
// Step 1 of 1: a grid-stride loop; used by checks.        not measured
//
// got and expected are [elements]. result[0] is incremented by the number of elements with other bits; result[1], all ones
// before, becomes the index of the first of them; result[2] and result[3], zeros before, become the bits of the largest
// difference and of the largest expected value, both f32 without a sign: NaN is larger than everything.
// Launch: any grid, 256 threads. No shared memory, no pipeline.
// Determinism: sums of integers, minima and maxima do not depend on the order.
#include "ptx.cuh"

DEVICE u32 magnitude(float value) { return float_to_bits(value) & 0x7fffffffu; }

template <class E>
DEVICE void compare(const E* got, const E* expected, u64 elements, u64* result) {
  u64 differing = 0, first = ~0ull;
  u32 max_difference = 0, max_expected = 0;
  const u64 step = static_cast<u64>(gridDim.x) * blockDim.x;
  for (u64 index = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; index < elements; index += step) {
    const float value = to_float(got[index]), other = to_float(expected[index]);
    const u32 difference = magnitude(value - other), size = magnitude(other);
    if (size > max_expected) max_expected = size;
    if (bits_of(got[index]) == bits_of(expected[index])) continue;
    if (differing == 0) first = index;
    differing++;
    if (difference > max_difference) max_difference = difference;
  }
  if (differing > 0) {
    atomic_add(result, differing);
    atomic_min(result + 1, first);
    atomic_max(result + 2, max_difference);
  }
  atomic_max(result + 3, max_expected);
}

#define COMPARE_KERNEL(name, E)                                                                                 \
  KERNEL __launch_bounds__(256)                                                                                 \
      name(const E* __restrict__ got, const E* __restrict__ expected, u64 elements, u64* __restrict__ result) { \
    compare<E>(got, expected, elements, result);                                                                \
  }                                                                                                             \
  REGISTER_KERNEL(name);

COMPARE_KERNEL(compare_f32, float)
COMPARE_KERNEL(compare_f16, f16)
COMPARE_KERNEL(compare_bf16, bf16)
