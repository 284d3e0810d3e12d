// Rotary positions (Su et al. 2021) in the half-split layout of Hugging Face, in place.
//
// x is [rows, columns]; the first heads * head_dim columns of row i are rotated by the angles of position positions[i].
// cos and sin are f32 [positions, head_dim / 2]. Launch: one block of 128 threads a row.
#include "prelude.cuh"

template <class E>
DEVICE void rope(E* x, const u32* positions, const float* cos, const float* sin, u32 columns, u32 heads, u32 head_dim) {
  const u32 half = head_dim / 2;
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

#define ROPE_KERNEL(name, E)                                                                                           \
  KERNEL __launch_bounds__(128) name(E* x, const u32* positions, const float* cos, const float* sin, u32 columns,      \
                                     u32 heads, u32 head_dim) {                                                        \
    rope<E>(x, positions, cos, sin, columns, heads, head_dim);                                                         \
  }                                                                                                                    \
  REGISTER_KERNEL(name);

ROPE_KERNEL(rope_f32, float)
ROPE_KERNEL(rope_f16, f16)
ROPE_KERNEL(rope_bf16, bf16)
