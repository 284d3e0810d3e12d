// Two results, element by element, without moving them off the device: how many differ, where first, and how far.
//
// got and expected are [elements]. found[0] is added the number of elements with other bits; found[1], all ones before,
// becomes the index of the first of them; found[2] and found[3], zeros before, become the bits of the largest difference
// and of the largest expected value, both f32 without a sign: NaN is larger than everything.
// Launch: any grid, 256 threads a block. Version 1 is the only one: it is for checks.
#include "prelude.cuh"

DEVICE u32 magnitude(float value) { return float_to_bits(value) & 0x7fffffffu; }

template <class E>
DEVICE void compare(const E* got, const E* expected, u64 elements, u64* found) {
  u64 others = 0, first = ~0ull;
  u32 farthest = 0, largest = 0;
  const u64 step = static_cast<u64>(gridDim.x) * blockDim.x;
  for (u64 index = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; index < elements; index += step) {
    const float value = to_float(got[index]), other = to_float(expected[index]);
    const u32 difference = magnitude(value - other), size = magnitude(other);
    if (size > largest) largest = size;
    if (bits_of(got[index]) == bits_of(expected[index])) continue;
    if (others == 0) first = index;
    others++;
    if (difference > farthest) farthest = difference;
  }
  if (others > 0) {
    atomic_add(found, others);
    atomic_min(found + 1, first);
    atomic_max(found + 2, farthest);
  }
  atomic_max(found + 3, largest);
}

#define COMPARE_KERNEL(name, E)                                                                               \
  KERNEL __launch_bounds__(256) name(const E* got, const E* expected, u64 elements, u64* found) {             \
    compare<E>(got, expected, elements, found);                                                               \
  }                                                                                                           \
  REGISTER_KERNEL(name);

COMPARE_KERNEL(compare_f32, float)
COMPARE_KERNEL(compare_f16, f16)
COMPARE_KERNEL(compare_bf16, bf16)
