// Rotary position embedding (Su et al. 2021) in the half-split layout of Hugging Face, in place.
// Step 1, rope_TYPE: one pair a thread.                   H100, 4096 rows, 3 heads of 128, bf16: 580 GB/s (20 % of a copy)
// Step 2, rope_wide_TYPE: 16 bytes of pairs a thread.     H100, 4096 rows, 3 heads of 128, bf16: 596 GB/s (20 % of a copy)
//
// x is [rows, columns]; of each of the first `heads` heads of row i the first rotary_dim of head_dim columns are rotated by
// the angles of position positions[i], column j with column j + rotary_dim / 2. The other columns of a head stay (GPT-NeoX).
// cos and sin are f32 [positions, rotary_dim / 2] and come from the host: default, llama3 and linear scaling differ in these
// tables alone. Step 2 needs half of rotary_dim, a head and a row to be multiples of 16 bytes.
// Launch: grid (rows), 128 threads. No shared memory, no pipeline.
// Determinism: elementwise; both steps have the bits of the CPU backend.
// Measured: docs/measurements/gpu/kernels.txt, NVIDIA H100 80GB HBM3 (SXM); two of the three heads are rotated,
// with rotary_dim = head_dim; a part of a head is not measured yet.
#include "types.cuh"

template <class E>
DEVICE void rope(E* x, const u32* positions, const float* cos, const float* sin, u32 columns, u32 heads, u32 head_dim,
                 u32 rotary_dim) {
  const u32 half = rotary_dim / 2;
  const u64 angles = static_cast<u64>(positions[blockIdx.x]) * half;
  E* row = x + static_cast<u64>(blockIdx.x) * columns;
  for (u32 pair = threadIdx.x; pair < heads * half; pair += blockDim.x) {
    E* first = row + pair / half * head_dim + pair % half;
    const float a = to_float(first[0]), b = to_float(first[half]);
    const float c = cos[angles + pair % half], s = sin[angles + pair % half];
    first[0] = from_float<E>(fmaf(a, c, -(b * s)));
    first[half] = from_float<E>(fmaf(b, c, a * s));
  }
}

template <class E>
DEVICE void rope_wide(E* x, const u32* positions, const float* cos, const float* sin, u32 columns, u32 heads,
                      u32 head_dim, u32 rotary_dim) {
  const u32 half = rotary_dim / 2;
  const u64 angles = static_cast<u64>(positions[blockIdx.x]) * half;
  E* row = x + static_cast<u64>(blockIdx.x) * columns;
  for (u32 pair = threadIdx.x * VEC<E>; pair < heads * half; pair += blockDim.x * VEC<E>) {
    E* first = row + pair / half * head_dim + pair % half;
    float a[VEC<E>], b[VEC<E>], c[VEC<E>], s[VEC<E>], rotated[VEC<E>];
    load_vec(first, a);
    load_vec(first + half, b);
    load_floats(cos + angles + pair % half, c);
    load_floats(sin + angles + pair % half, s);
#pragma unroll
    for (u32 i = 0; i < VEC<E>; i++) rotated[i] = fmaf(a[i], c[i], -(b[i] * s[i]));
    store_vec(first, rotated);
#pragma unroll
    for (u32 i = 0; i < VEC<E>; i++) rotated[i] = fmaf(b[i], c[i], a[i] * s[i]);
    store_vec(first + half, rotated);
  }
}

#define ROPE_KERNEL(name, E, body)                                                              \
  KERNEL __launch_bounds__(128)                                                                 \
      name(E* __restrict__ x, const u32* __restrict__ positions, const float* __restrict__ cos, \
           const float* __restrict__ sin, u32 columns, u32 heads, u32 head_dim, u32 rotary_dim) { \
    body<E>(x, positions, cos, sin, columns, heads, head_dim, rotary_dim);                      \
  }                                                                                             \
  REGISTER_KERNEL(name);

ROPE_KERNEL(rope_f32, float, rope)
ROPE_KERNEL(rope_f16, f16, rope)
ROPE_KERNEL(rope_bf16, bf16, rope)
ROPE_KERNEL(rope_wide_f32, float, rope_wide)
ROPE_KERNEL(rope_wide_f16, f16, rope_wide)
ROPE_KERNEL(rope_wide_bf16, bf16, rope_wide)
