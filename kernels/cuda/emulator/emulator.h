// A CPU that behaves like a CUDA device, for tests: the same kernel sources are compiled as C++17 and executed.
//
// Each thread is a fiber. The fibers of a cluster run in turn on the calling thread and switch only where the kernel
// waits: at a barrier, at an operation of a whole warp, or for a copy. Clusters run one after another; a kernel without a
// cluster size has clusters of one block. A launch is deterministic: its result is a function of the sources, the
// arguments and the `Options`.
//
// Checked besides the results:
//   - shared memory, static and dynamic, holds NaN bytes when a block starts, and guard bytes lie behind each array;
//   - asynchronous copies and wgmmas happen at once, as late as the kernel allows, or mixed, and read only the memory
//     of the launch's arguments. As late as allowed is the wait for groups that a thread counts, and for TMA loads,
//     which barriers count, the moment when no thread can continue;
//   - mbarriers are initialized before use and get no more arrivals than their count, and no copy is in flight when
//     the block ends;
//   - blocks of a cluster have separate shared memory and reach each other's only by TMA multicast and by arrivals, whose
//     time is chosen for each block. An operation on a block that has ended fails the launch. So does a grid that is
//     not a multiple of the cluster size;
//   - TMA stores read shared memory at once, as late as the wait for their group, or mixed. One that a thread does not wait
//     for fails the launch. So does a TMA store or a wgmma that reads what stmatrix, cp.async or `st_shared_16` has written
//     without a fence.proxy.async;
//   - wgmmas are fenced, waited for, and the same for the four warps of a warpgroup; their descriptors are decoded bit by
//     bit as the PTX manual defines them; operands in registers are read as late as the wait allows; the registers of setmaxnreg
//     fit the register file;
//   - dynamic shared memory is aligned to 128 bytes and no more, as after static arrays on a device;
//   - threads take turns in order, in reverse order or in a random order, and a warp runs until it has to wait for the
//     block, so that warps are as far apart as barriers allow;
//   - a cluster in which all threads wait is a deadlock, reported with the block and the lines where threads wait;
//   - all threads of a block or cluster wait at the same line of code, and all lanes of a warp perform the same operation;
//   - the sizes of a launch's arguments match the kernel's parameters;
//   - device memory ends at an inaccessible page, so that a read or a write beyond it is reported with its thread.
//
// Limits. No memory model: the next fiber sees a write at once, so missing memory fences (`fence_mbarrier_init`) and missing
// volatile reads are not detected, except for the fence before a TMA store or wgmma, and neither are reads of accumulators while wgmmas are in flight.
// No bank conflicts, no timing, no register limits. Clusters run one after another, so a kernel whose clusters wait for
// each other fails the deadlock check. Operations of a warp need all its lanes; other masks are rejected. Loads from and
// stores to another block's shared memory are not supported.
// The rounding inside `mma` and `wgmma` is that of a chain of f32 additions, not a tensor core's. Supported are tensor maps of
// two dimensions, and `wgmma` m64n256k16 with both operands in shared memory in the swizzled K-major layouts, and m64n64k16 and
// m64n128k16 with operand a in registers and b in these or in the MN-major layout with the 128-byte swizzle.
// Only x86-64 is supported.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace emulator {

struct Dim3 {
  unsigned x, y, z;
};

// How a launch behaves where the programming model leaves a choice. Passed from Rust with the layout of C.
struct Options {
  uint32_t order;   // of threads: 0 in order, 1 in reverse, 2 random by `seed`
  uint32_t copies;  // asynchronous copies: 0 at once, 1 as late as possible, 2 mixed by `seed`
  uint64_t seed;
};

constexpr unsigned WARP = 32;
constexpr unsigned MAX_THREADS = 1024;
constexpr unsigned NAMED_BARRIERS = 16;
// Blocks of a cluster that every device with clusters takes, and threads of one for which there are stacks.
constexpr unsigned MAX_CLUSTER_BLOCKS = 8;
constexpr unsigned MAX_CLUSTER_THREADS = 2 * MAX_THREADS;
// Shared memory of one block on the largest devices, 227 KiB, and space for guards.
constexpr size_t SHARED_BYTES = 227 << 10;
constexpr size_t ARENA_BYTES = SHARED_BYTES + (16 << 10);

// One operation of the lanes of a warp. Two buffers, because a fast lane may reach the next operation before a slow one
// has taken its result of this one.
struct Rendezvous {
  unsigned arrived, generation;
  const char* operation;
  alignas(16) unsigned char in[2][WARP * 64];
  alignas(16) unsigned char out[2][WARP * 64];
};

// The part of one warp in a wgmma: descriptors, and the registers of the 32 lanes.
struct Wgmma {
  uint64_t a, b;
  bool scale_d;  // whether it adds to the accumulators or replaces them
  // Of operand a, or null where it is in shared memory. Read when the wgmma is performed, as late as its accumulators.
  const unsigned* a_registers[WARP];
  float* acc[WARP];
  void (*run)(const Wgmma& wgmma, unsigned first_row);
};

// The pending wgmmas of one warp in issue order, and where its committed groups end.
struct WgmmaQueue {
  std::vector<Wgmma> pending;
  std::vector<size_t> group_ends;
  bool is_fenced;
  uint64_t issued;  // a digest of all wgmmas so far, the same for the four warps
};

struct Fiber;
struct Block;

struct Warp {
  Fiber* first;
  unsigned lanes;
  Rendezvous rendezvous;
  WgmmaQueue wgmmas;
  unsigned registers;  // of each thread
};

// A matrix as a tensor map describes it, written by the host (`RawTensorMap` in emulator/launch.rs).
struct TensorMap {
  const unsigned char* start;
  uint64_t columns, rows, row_bytes;
  uint32_t tile_columns, tile_rows, element_bytes, swizzled_bytes;
  uint64_t unused[10];
};
static_assert(sizeof(TensorMap) == 128, "a tensor map has 128 bytes");

// The device memory that an argument of a launch points to; empty for a number.
struct Memory {
  const unsigned char* start;
  size_t bytes;
};

struct Copy {
  void* to;
  const void* from;
  unsigned bytes;  // of 16; the rest is zeroed
};

// The asynchronous copies of one thread in issue order, and where its committed groups end.
struct CopyQueue {
  std::vector<Copy> pending;
  std::vector<size_t> group_ends;
};

// A TMA store: the tile at `column` and `row` from the address `from` of shared memory.
struct TmaStore {
  const TensorMap* map;
  unsigned from, column, row;
};

// The TMA stores of one thread in issue order, and where its committed groups end.
struct StoreQueue {
  std::vector<TmaStore> pending;
  std::vector<size_t> group_ends;
};

struct Fiber {
  void* stack_pointer;
  Dim3 thread;
  unsigned linear, lane;
  Block* block;
  Warp* warp;
  bool done;
  uint64_t waits_since;  // the progress count at its last turn, in which it had to wait
  const char* waits_at;  // the operation or file that it waits at, or null
  int waits_line;        // of a barrier
  bool waits_for_cluster;
  CopyQueue copies;
  StoreQueue stores;
  std::vector<unsigned> unfenced;  // addresses written since the last fence.proxy.async, see `record_write`
};

// A barrier of all threads of a block or of a cluster.
struct ThreadBarrier {
  unsigned arrived, generation;
  const char* file;
  int line;
};

// One static array of shared memory: its declaration and its location.
struct StaticArray {
  const void* site;
  size_t offset, bytes;
};

struct Block {
  Dim3 index;
  unsigned rank;         // in its cluster
  unsigned char* arena;  // its shared memory, the dynamic first
  std::vector<StaticArray> statics;
  size_t dynamic_bytes, shared_end;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  unsigned live;
  ThreadBarrier barrier;
  ThreadBarrier named[NAMED_BARRIERS];
  // For each 16 bytes of shared memory 1 + the thread that has written them and not fenced them, or 0.
  std::vector<uint16_t> unfenced;
};

extern Fiber* current;
extern Dim3 block_size, grid_size;

// Ends the launch with a message.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
void barrier(const char* file, int line);
void cluster_barrier(const char* file, int line);
// Waits until `threads` threads of the block have arrived at barrier `index`.
void named_barrier(unsigned index, unsigned threads, const char* file, int line);
void* static_shared(const void* site, size_t bytes, size_t alignment);
void issue_cp_async(void* to, const void* from, unsigned bytes);
void cp_async_commit_group();
void cp_async_wait_group(int groups_left);
void mbarrier_init(uint64_t* barrier, unsigned arrivals);
void mbarrier_arrive(uint64_t* barrier, unsigned expected_bytes);
void mbarrier_wait_parity(uint64_t* barrier, unsigned parity);
// Arrives at the barrier at the offset of `barrier` in block `rank` of the cluster.
void mbarrier_arrive_cluster(uint64_t* barrier, unsigned rank);
// Copies to the same offset of each block whose bit is set in `blocks`, and counts the bytes at the same barrier of each.
void issue_tma_load(void* to, const TensorMap& map, uint64_t* barrier, unsigned column, unsigned row, unsigned blocks);
void issue_tma_store(const TensorMap& map, const void* from, unsigned column, unsigned row);
void bulk_commit_group();
void bulk_wait_group(size_t groups_left);
// Called by one lane for its warp.
void wgmma_fence();
void issue_wgmma(const Wgmma& wgmma);
void wgmma_commit_group();
void wgmma_wait_group(unsigned groups_left);
// Sets the registers of each thread of the warp, to fewer or to more.
void setmaxnreg(unsigned registers, bool decreases);
// Records that the thread has written 16 bytes of shared memory by stmatrix, cp.async or `st_shared_16`: TMA and wgmma do not see
// them before the thread's next fence.proxy.async.
void record_write(unsigned address);
void fence_proxy_async();
// `rows` rows of 16 elements from `first_row` of the matrix of a descriptor.
void read_wgmma_operand(uint64_t descriptor, unsigned first_row, unsigned rows, uint16_t (*out)[16]);
// `columns` columns of an MN-major matrix of 16 rows.
void read_wgmma_mn_major(uint64_t descriptor, unsigned columns, uint16_t (*out)[16]);
// The warp's buffers of this operation; `last` is whether the caller completes it.
Rendezvous& arrive(const char* operation, unsigned mask, unsigned* parity, bool* last);
void complete(Rendezvous& rendezvous);
void await(Rendezvous& rendezvous, unsigned parity);
// The address in this block's shared memory of `bytes` bytes, and the pointer to an address.
unsigned shared_address(const void* pointer, size_t bytes);
unsigned char* at_shared_address(const Block& block, unsigned address, size_t bytes);

// All lanes of the warp pass `in`; the last one computes the results of all lanes.
template <class In, class Out, class Body>
inline Out collective(const char* operation, unsigned mask, const In& in, Body body) {
  static_assert(sizeof(In) <= 64 && sizeof(Out) <= 64, "one lane's part of a warp operation is at most 64 bytes");
  unsigned parity;
  bool last;
  Rendezvous& rendezvous = arrive(operation, mask, &parity, &last);
  std::memcpy(rendezvous.in[parity] + current->lane * sizeof(In), &in, sizeof(In));
  if (last) {
    body(reinterpret_cast<const In*>(rendezvous.in[parity]), reinterpret_cast<Out*>(rendezvous.out[parity]));
    complete(rendezvous);
  } else {
    await(rendezvous, parity);
  }
  Out out;
  std::memcpy(&out, rendezvous.out[parity] + current->lane * sizeof(Out), sizeof(Out));
  return out;
}

using Thunk = void (*)(void** arguments);

// A kernel and its name. Kernels register themselves before `main`.
struct Registration {
  Registration(const char* prefix, const char* name, Thunk thunk, std::vector<size_t> argument_sizes);
};

// The cluster size of a kernel.
struct ClusterRegistration {
  ClusterRegistration(const char* prefix, const char* name, unsigned blocks);
};

template <class... Parameters, size_t... Index>
inline void call(void (*kernel)(Parameters...), void** arguments, std::index_sequence<Index...>) {
  kernel(*static_cast<std::remove_cv_t<Parameters>*>(arguments[Index])...);
}

template <class... Parameters>
inline void call(void (*kernel)(Parameters...), void** arguments) {
  call(kernel, arguments, std::index_sequence_for<Parameters...>{});
}

template <class... Parameters>
inline std::vector<size_t> sizes(void (*)(Parameters...)) {
  return {sizeof(Parameters)...};
}

}  // namespace emulator
