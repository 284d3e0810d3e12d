// Kernels that use one feature of the emulator each, or break one rule, for the tests of the emulator itself.
#include "prelude.cuh"

// out[i] = what shared memory holds before anything is written: 32 floats static, 32 dynamic.
KERNEL read_untouched_shared(float* out) {
  SHARED_ARRAY(float, fixed, 32);
  DYNAMIC_SHARED(float, dynamic);
  out[threadIdx.x] = fixed[threadIdx.x];
  out[32 + threadIdx.x] = dynamic[threadIdx.x];
  __syncthreads();
  fixed[threadIdx.x] = 1.0f;
  dynamic[threadIdx.x] = 1.0f;
}
REGISTER_KERNEL(read_untouched_shared);

KERNEL write_behind_dynamic(float* out) {
  DYNAMIC_SHARED(float, dynamic);
  dynamic[threadIdx.x + 1] = 1.0f;
  out[threadIdx.x] = 0.0f;
}
REGISTER_KERNEL(write_behind_dynamic);

KERNEL write_behind_static(float* out) {
  SHARED_ARRAY(float, fixed, 8);
  fixed[threadIdx.x % 9] = 1.0f;
  out[threadIdx.x] = 0.0f;
}
REGISTER_KERNEL(write_behind_static);

// The first lane waits for its warp while the others wait at the barrier.
KERNEL wait_apart(float* out) {
  if (threadIdx.x == 0) shuffle_xor(1.0f, 1);
  __syncthreads();
  out[threadIdx.x] = 0.0f;
}
REGISTER_KERNEL(wait_apart);

KERNEL wait_at_two_barriers(float* out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 0.0f;
}
REGISTER_KERNEL(wait_at_two_barriers);

// The sum of the lanes' numbers, in every lane.
KERNEL sum_lanes(float* out) {
  float sum = static_cast<float>(threadIdx.x);
  for (u32 step = 16; step > 0; step /= 2) sum += shuffle_xor(sum, step);
  out[threadIdx.x] = sum;
}
REGISTER_KERNEL(sum_lanes);

// One copy of 16 bytes a thread, never waited for.
KERNEL copy_and_leave(const float* x, float* out) {
  DYNAMIC_SHARED(float, dynamic);
  copy_16_async(dynamic + threadIdx.x * 4, x + threadIdx.x * 4, 16);
  commit_copies();
  out[threadIdx.x] = 0.0f;
}
REGISTER_KERNEL(copy_and_leave);

// Each thread reads four elements further than its own.
KERNEL read_beyond(const float* x, float* out) { out[threadIdx.x] = x[threadIdx.x + 4]; }
REGISTER_KERNEL(read_beyond);

KERNEL write_beyond(float* out) { out[threadIdx.x + 32] = 0.0f; }
REGISTER_KERNEL(write_beyond);

// out[16][8] = a[16][16] b[16][8] in f16, each element put where the PTX manual says that a lane holds it: of the first
// operand rows lane / 4 and 8 more, columns lane % 4 * 2 and 8 more; of the second its column lane / 4.
KERNEL multiply_by_hand(const f16* a, const f16* b, float* out) {
  const u32 group = threadIdx.x / 4, pair = threadIdx.x % 4 * 2;
  auto word = [](f16 low, f16 high) { return static_cast<u32>(high.bits) << 16 | low.bits; };
  auto of_a = [&](u32 row, u32 column) { return word(a[row * 16 + column], a[row * 16 + column + 1]); };
  auto of_b = [&](u32 row) { return word(b[row * 8 + group], b[(row + 1) * 8 + group]); };
  const u32 fragments[4] = {of_a(group, pair), of_a(group + 8, pair), of_a(group, pair + 8), of_a(group + 8, pair + 8)};
  float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  mma_16x8x16<f16>(sums, fragments, of_b(pair), of_b(pair + 8));
  out[group * 8 + pair] = sums[0];
  out[group * 8 + pair + 1] = sums[1];
  out[(group + 8) * 8 + pair] = sums[2];
  out[(group + 8) * 8 + pair + 1] = sums[3];
}
REGISTER_KERNEL(multiply_by_hand);

// The four 8x8 matrices of x[32][8], as `ldmatrix` hands them out: out[lane * 4 + matrix] is the lane's word, then the
// same of the transposed matrices.
KERNEL load_by_ldmatrix(const f16* x, u32* out) {
  SHARED_ARRAY(f16, rows, 32 * 8);
  for (u32 i = 0; i < 8; i++) rows[threadIdx.x * 8 + i] = x[threadIdx.x * 8 + i];
  __syncthreads();
  u32 words[4];
  load_fragments<false>(words, rows + threadIdx.x * 8);
  for (u32 i = 0; i < 4; i++) out[threadIdx.x * 4 + i] = words[i];
  load_fragments<true>(words, rows + threadIdx.x * 8);
  for (u32 i = 0; i < 4; i++) out[128 + threadIdx.x * 4 + i] = words[i];
}
REGISTER_KERNEL(load_by_ldmatrix);

// out[block * 32 + thread] is the block's number in its cluster, by way of its own shared memory, once the other block has
// arrived at its barrier.
KERNEL_OF_CLUSTERS(meet_in_cluster, 2) meet_in_cluster(float* out) {
  SHARED_ARRAY(u64, told, 1);
  SHARED_ARRAY(float, number, 1);
  if (threadIdx.x == 0) {
    init_barrier(told, 1);
    fence_barriers();
    number[0] = static_cast<float>(block_of_cluster());
  }
  synchronize_cluster();
  if (threadIdx.x == 0) arrive_at_block(told, 1 - block_of_cluster());
  wait_at(told, 0);
  out[blockIdx.x * blockDim.x + threadIdx.x] = number[0];
}
REGISTER_KERNEL(meet_in_cluster);

// Threads that have ended are not waited for, neither those of a block that is gone.
KERNEL_OF_CLUSTERS(leave_cluster, 2) leave_cluster(float* out) {
  if (block_of_cluster() == 1) return;
  synchronize_cluster();
  out[threadIdx.x] = 0.0f;
}
REGISTER_KERNEL(leave_cluster);

// Block 1 tells block 0 and ends, then block 0 answers.
KERNEL_OF_CLUSTERS(answer_too_late, 2) answer_too_late(float* out) {
  SHARED_ARRAY(u64, told, 1);
  if (threadIdx.x == 0) {
    init_barrier(told, 32);
    fence_barriers();
  }
  synchronize_cluster();
  if (block_of_cluster() == 0) wait_at(told, 0);
  arrive_at_block(told, 1 - block_of_cluster());
  out[threadIdx.x] = 0.0f;
}
REGISTER_KERNEL(answer_too_late);

// Block 1 waits for an arrival that never comes while block 0 waits for block 1.
KERNEL_OF_CLUSTERS(wait_apart_in_cluster, 2) wait_apart_in_cluster(float* out) {
  SHARED_ARRAY(u64, told, 1);
  if (threadIdx.x == 0) init_barrier(told, 1);
  __syncthreads();
  if (block_of_cluster() == 1) wait_at(told, 0);
  synchronize_cluster();
  out[threadIdx.x] = 0.0f;
}
REGISTER_KERNEL(wait_apart_in_cluster);

KERNEL_OF_CLUSTERS(wait_at_two_cluster_barriers, 2) wait_at_two_cluster_barriers(float* out) {
  if (block_of_cluster() == 0) {
    synchronize_cluster();
  } else {
    synchronize_cluster();
  }
  out[threadIdx.x] = 0.0f;
}
REGISTER_KERNEL(wait_at_two_cluster_barriers);

KERNEL_OF_CLUSTERS(reach_beyond_cluster, 2) reach_beyond_cluster(float* out) {
  SHARED_ARRAY(u64, told, 1);
  if (threadIdx.x == 0) {
    init_barrier(told, 1);
    arrive_at_block(told, 2);
  }
  out[threadIdx.x] = 0.0f;
}
REGISTER_KERNEL(reach_beyond_cluster);

KERNEL_OF_CLUSTERS(four_in_a_cluster, 4) four_in_a_cluster(float* out) { out[threadIdx.x] = 0.0f; }
REGISTER_KERNEL(four_in_a_cluster);
