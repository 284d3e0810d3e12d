// The weights of an RMSNorm into those of a projection that reads its result: w[row] = round(w[row] * scale), in place.
// Step 1, fold_norm_TYPE: eight elements a thread, by accesses of 16 bytes.                       not measured yet
//
// w is [rows, columns], scale f32 [columns]; columns is a multiple of eight. `notes[check]` becomes the note of the first
// product that is not finite, as in cast.cu.
// Launch: grid (rows), 256 threads. No shared memory, no pipeline.
// Determinism: elementwise; the minimum of an atomic does not depend on the order.
#include "math.cuh"

template <class E>
DEVICE void fold_norm(E* w, const float* scale, u64 columns, u64* notes, u64 check) {
  const u64 row = blockIdx.x;
  for (u64 column = threadIdx.x * VEC<E>; column < columns; column += blockDim.x * VEC<E>) {
    float values[VEC<E>], scales[VEC<E>];
    load_vec(w + row * columns + column, values);
    load_floats(scale + column, scales);
#pragma unroll
    for (u32 i = 0; i < VEC<E>; i++) {
      values[i] *= scales[i];
      check_finite(from_float<E>(values[i]), row * columns + column + i, notes + check);
    }
    store_vec(w + row * columns + column, values);
  }
}

#define FOLD_NORM_KERNEL(name, E)                                                                                  \
  KERNEL __launch_bounds__(256)                                                                                    \
      name(E* __restrict__ w, const float* __restrict__ scale, u64 columns, u64* __restrict__ notes, u64 check) {  \
    fold_norm<E>(w, scale, columns, notes, check);                                                                 \
  }                                                                                                                \
  REGISTER_KERNEL(name);

FOLD_NORM_KERNEL(fold_norm_bf16, bf16)
