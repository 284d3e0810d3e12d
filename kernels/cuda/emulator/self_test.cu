// Kernels that use one feature of the emulator each, or break one rule, for the tests of the emulator itself.
#include "math.cuh"
#include "ptx_sm90.cuh"

// out[i] = the initial contents of shared memory: 32 floats static, 32 dynamic.
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
  if (threadIdx.x == 0) shfl_xor(1.0f, 1);
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
  for (u32 step = 16; step > 0; step /= 2) sum += shfl_xor(sum, step);
  out[threadIdx.x] = sum;
}
REGISTER_KERNEL(sum_lanes);

// One copy of 16 bytes a thread, never waited for.
KERNEL copy_and_leave(const float* x, float* out) {
  DYNAMIC_SHARED(float, dynamic);
  cp_async_16(dynamic + threadIdx.x * 4, x + threadIdx.x * 4, 16);
  cp_async_commit_group();
  out[threadIdx.x] = 0.0f;
}
REGISTER_KERNEL(copy_and_leave);

// Each thread reads four elements further than its own.
KERNEL read_beyond(const float* x, float* out) { out[threadIdx.x] = x[threadIdx.x + 4]; }
REGISTER_KERNEL(read_beyond);

KERNEL write_beyond(float* out) { out[threadIdx.x + 32] = 0.0f; }
REGISTER_KERNEL(write_beyond);

// out[16][8] = a[16][16] b[16][8] in f16, with the fragments of the PTX manual: a lane holds rows lane / 4 and 8 more and
// columns lane % 4 * 2 and 8 more of a, and column lane / 4 of b.
KERNEL multiply_by_hand(const f16* a, const f16* b, float* out) {
  const u32 group = threadIdx.x / 4, pair = threadIdx.x % 4 * 2;
  auto word = [](f16 low, f16 high) { return static_cast<u32>(high.bits) << 16 | low.bits; };
  auto a_word = [&](u32 row, u32 column) { return word(a[row * 16 + column], a[row * 16 + column + 1]); };
  auto b_word = [&](u32 row) { return word(b[row * 8 + group], b[(row + 1) * 8 + group]); };
  const u32 fragments[4] = {a_word(group, pair), a_word(group + 8, pair), a_word(group, pair + 8),
                            a_word(group + 8, pair + 8)};
  float acc[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  mma_m16n8k16<f16>(acc, fragments, b_word(pair), b_word(pair + 8));
  out[group * 8 + pair] = acc[0];
  out[group * 8 + pair + 1] = acc[1];
  out[(group + 8) * 8 + pair] = acc[2];
  out[(group + 8) * 8 + pair + 1] = acc[3];
}
REGISTER_KERNEL(multiply_by_hand);

// The four 8x8 matrices of x[32][8], as `ldmatrix` returns them: out[lane * 4 + matrix] is the lane's word, then the same of
// the transposed matrices.
KERNEL load_by_ldmatrix(const f16* x, u32* out) {
  SHARED_ARRAY(f16, rows, 32 * 8);
  for (u32 i = 0; i < 8; i++) rows[threadIdx.x * 8 + i] = x[threadIdx.x * 8 + i];
  __syncthreads();
  u32 words[4];
  ldmatrix_x4<false>(words, rows + threadIdx.x * 8);
  for (u32 i = 0; i < 4; i++) out[threadIdx.x * 4 + i] = words[i];
  ldmatrix_x4<true>(words, rows + threadIdx.x * 8);
  for (u32 i = 0; i < 4; i++) out[128 + threadIdx.x * 4 + i] = words[i];
}
REGISTER_KERNEL(load_by_ldmatrix);

// out[block * 32 + thread] is the block's rank in its cluster, read from its shared memory after the other block has arrived
// at its barrier.
KERNEL_WITH_CLUSTER(meet_in_cluster, 2) meet_in_cluster(float* out) {
  SHARED_ARRAY(u64, barrier, 1);
  SHARED_ARRAY(float, rank, 1);
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    fence_mbarrier_init();
    rank[0] = static_cast<float>(cluster_ctarank());
  }
  cluster_sync();
  if (threadIdx.x == 0) mbarrier_arrive_cluster(barrier, 1 - cluster_ctarank());
  mbarrier_wait_parity(barrier, 0);
  out[blockIdx.x * blockDim.x + threadIdx.x] = rank[0];
}
REGISTER_KERNEL(meet_in_cluster);

// Threads that have ended are not waited for, nor is a block that has ended.
KERNEL_WITH_CLUSTER(leave_cluster, 2) leave_cluster(float* out) {
  if (cluster_ctarank() == 1) return;
  cluster_sync();
  out[threadIdx.x] = 0.0f;
}
REGISTER_KERNEL(leave_cluster);

// Block 1 arrives at the barrier of block 0 and ends, then block 0 arrives at the barrier of block 1.
KERNEL_WITH_CLUSTER(answer_too_late, 2) answer_too_late(float* out) {
  SHARED_ARRAY(u64, barrier, 1);
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 32);
    fence_mbarrier_init();
  }
  cluster_sync();
  if (cluster_ctarank() == 0) mbarrier_wait_parity(barrier, 0);
  mbarrier_arrive_cluster(barrier, 1 - cluster_ctarank());
  out[threadIdx.x] = 0.0f;
}
REGISTER_KERNEL(answer_too_late);

// Block 1 waits for an arrival that never comes while block 0 waits for block 1.
KERNEL_WITH_CLUSTER(wait_apart_in_cluster, 2) wait_apart_in_cluster(float* out) {
  SHARED_ARRAY(u64, barrier, 1);
  if (threadIdx.x == 0) mbarrier_init(barrier, 1);
  __syncthreads();
  if (cluster_ctarank() == 1) mbarrier_wait_parity(barrier, 0);
  cluster_sync();
  out[threadIdx.x] = 0.0f;
}
REGISTER_KERNEL(wait_apart_in_cluster);

KERNEL_WITH_CLUSTER(wait_at_two_cluster_barriers, 2) wait_at_two_cluster_barriers(float* out) {
  if (cluster_ctarank() == 0) {
    cluster_sync();
  } else {
    cluster_sync();
  }
  out[threadIdx.x] = 0.0f;
}
REGISTER_KERNEL(wait_at_two_cluster_barriers);

KERNEL_WITH_CLUSTER(reach_beyond_cluster, 2) reach_beyond_cluster(float* out) {
  SHARED_ARRAY(u64, barrier, 1);
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    mbarrier_arrive_cluster(barrier, 2);
  }
  out[threadIdx.x] = 0.0f;
}
REGISTER_KERNEL(reach_beyond_cluster);

KERNEL_WITH_CLUSTER(four_in_a_cluster, 4) four_in_a_cluster(float* out) { out[threadIdx.x] = 0.0f; }
REGISTER_KERNEL(four_in_a_cluster);
