// Embeddings with arithmetic. An embedding without a factor is gather_rows.cu.
//   embed_scaled    out[i] = factor * table[rows[i]]                              Gemma
//   add_embedding   out[i] = out[i] + table[rows[i]]                              learned positions of GPT-2
// Step 1, embed_scaled_TYPE, add_embedding_TYPE: an element at a time.                            not measured yet
// Step 2, embed_scaled_wide_TYPE, add_embedding_wide_TYPE: 16 bytes a thread.                     not measured yet
//
// table is [_, columns], rows u32, out [_, columns]; add_embedding ignores `factor`. Each result is computed in f32 and
// rounded once. Step 2 needs rows of a multiple of 16 bytes.
// Launch: grid (rows of out), 128 threads. No shared memory, no pipeline.
// Determinism: elementwise; both steps have the bits of the CPU backend.
#include "types.cuh"

template <class E, bool ADDED>
DEVICE void embed(const E* table, const u32* rows, u32 columns, float factor, E* out) {
  const E* row = table + static_cast<u64>(rows[blockIdx.x]) * columns;
  E* out_row = out + static_cast<u64>(blockIdx.x) * columns;
  for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
    const float value = to_float(row[column]);
    out_row[column] = from_float<E>(ADDED ? to_float(out_row[column]) + value : value * factor);
  }
}

template <class E, bool ADDED>
DEVICE void embed_wide(const E* table, const u32* rows, u32 columns, float factor, E* out) {
  const E* row = table + static_cast<u64>(rows[blockIdx.x]) * columns;
  E* out_row = out + static_cast<u64>(blockIdx.x) * columns;
  for (u32 column = threadIdx.x * VEC<E>; column < columns; column += blockDim.x * VEC<E>) {
    float values[VEC<E>], old[VEC<E>];
    load_vec(row + column, values);
    if (ADDED) load_vec(out_row + column, old);
#pragma unroll
    for (u32 i = 0; i < VEC<E>; i++) values[i] = ADDED ? old[i] + values[i] : values[i] * factor;
    store_vec(out_row + column, values);
  }
}

#define EMBED_KERNEL(name, E, body)                                                                               \
  KERNEL __launch_bounds__(128) name(const E* __restrict__ table, const u32* __restrict__ rows, u32 columns,      \
                                     float factor, E* __restrict__ out) {                                         \
    body(table, rows, columns, factor, out);                                                                      \
  }                                                                                                               \
  REGISTER_KERNEL(name);

EMBED_KERNEL(embed_scaled_f32, float, (embed<float, false>))
EMBED_KERNEL(embed_scaled_f16, f16, (embed<f16, false>))
EMBED_KERNEL(embed_scaled_bf16, bf16, (embed<bf16, false>))
EMBED_KERNEL(embed_scaled_wide_f32, float, (embed_wide<float, false>))
EMBED_KERNEL(embed_scaled_wide_f16, f16, (embed_wide<f16, false>))
EMBED_KERNEL(embed_scaled_wide_bf16, bf16, (embed_wide<bf16, false>))
EMBED_KERNEL(add_embedding_f32, float, (embed<float, true>))
EMBED_KERNEL(add_embedding_f16, f16, (embed<f16, true>))
EMBED_KERNEL(add_embedding_bf16, bf16, (embed<bf16, true>))
EMBED_KERNEL(add_embedding_wide_f32, float, (embed_wide<float, true>))
EMBED_KERNEL(add_embedding_wide_f16, f16, (embed_wide<f16, true>))
EMBED_KERNEL(add_embedding_wide_bf16, bf16, (embed_wide<bf16, true>))
