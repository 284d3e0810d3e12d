// A CPU that behaves like a CUDA device, for tests: the same kernel sources are compiled as C++17 and executed.
//
// One fiber stands for a thread. Fibers of the blocks of a cluster run in turn on the calling thread and switch only where
// the kernel waits: at a barrier, at an operation of a whole warp, or for a copy. Clusters run one after another; a
// kernel that asks for none has clusters of one block. A launch is deterministic: its result is a function of the
// sources, the arguments and the `Options`.
//
// What is checked besides the results:
//   - shared memory, static and dynamic, holds NaN bytes when a block starts, and guard bytes lie behind each array;
//   - asynchronous copies and products of warpgroups happen at once, as late as the program allows, or some one way and
//     some the other, and read nothing but the memory that the launch was given. As late as allowed is, for what a
//     thread waits for by count, that wait; for copies of tiles, which barriers count, when no thread can go on;
//   - barriers that count are initialised before they are used, get no more arrivals than they were promised, and no
//     copy is still under way when the block ends;
//   - blocks of a cluster have shared memory of their own and reach each other's by copies of tiles and by arrivals alone,
//     both of which come at each block early or late for itself. What comes after that block has ended, or is on its way
//     then, ends the launch. So does a grid that is not a multiple of the cluster;
//   - products of a warpgroup are fenced, waited for, the same for its four warps, and their descriptors are decoded bit by
//     bit as the PTX manual defines them; the registers that warpgroups give up and take are enough for all;
//   - dynamic shared memory begins at a multiple of 128 bytes and of no more, as behind static arrays on a device;
//   - threads take turns in order, in reverse order or in a random order, and a warp runs on until it has to wait for
//     the block, so that another warp may be a whole stretch between two barriers behind;
//   - a cluster in which all threads wait is a deadlock, named with the block and the places where threads wait;
//   - a barrier, of a block or of a cluster, must be the same line of code for all threads; an operation of a warp the same
//     operation for all lanes;
//   - the sizes of a launch's arguments must be those of the kernel's parameters;
//   - device memory ends at a page that cannot be touched, so that a read or a write beyond it names its thread.
//
// Limits. No memory model: a write is seen by the next fiber at once, so missing fences of memory (`fence_barriers`) and
// volatile reads go unseen, as do registers that are touched while products are under way and still have their old
// values.
// No bank conflicts, no timing, no register limits. Clusters run one after another, so a kernel whose clusters wait for
// each other hangs in the deadlock check. Operations of a warp take all its lanes; masks of some lanes are refused.
// Threads do not load from another block's shared memory nor store to it.
// The rounding inside `mma` and `wgmma` is that of a chain of f32 additions, not a tensor core's. Of tensor maps there are
// matrices, of `wgmma` m64n256k16 with both operands in shared memory, of its layouts the swizzled ones along the sum.
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

// How a launch behaves where the programming model leaves a choice. Passed from Rust, so the layout is C's.
struct Options {
  uint32_t order;   // of threads: 0 in order, 1 in reverse, 2 random by `seed`
  uint32_t copies;  // asynchronous copies: 0 at once, 1 as late as possible, 2 mixed by `seed`
  uint64_t seed;
};

constexpr unsigned WARP = 32;
constexpr unsigned MAX_THREADS = 1024;
// Blocks of a cluster that every device with clusters takes, and threads of one for which there are stacks.
constexpr unsigned MAX_CLUSTER_BLOCKS = 8;
constexpr unsigned MAX_CLUSTER_THREADS = 2 * MAX_THREADS;
// Shared memory of one block on the largest devices, 227 KiB, and room for guards.
constexpr size_t SHARED_BYTES = 227 << 10;
constexpr size_t ARENA_BYTES = SHARED_BYTES + (16 << 10);

// Where lanes of a warp meet for one operation. Two buffers, because a fast lane may reach the next operation before a
// slow one has taken its result of this one.
struct Rendezvous {
  unsigned arrived, generation;
  const char* operation;
  alignas(16) unsigned char in[2][WARP * 64];
  alignas(16) unsigned char out[2][WARP * 64];
};

// A product of a warpgroup as one of its warps takes part: descriptors and the 32 lanes' sums.
struct Product {
  uint64_t a, b;
  bool adds;  // to the sums, or replaces them
  float* sums[WARP];
  void (*run)(const Product& product, unsigned first_row);
};

// The products of one warp in issue order, and where its committed groups end.
struct ProductQueue {
  std::vector<Product> pending;
  std::vector<size_t> group_ends;
  bool is_fenced;
  uint64_t issued;  // a digest of all products so far, which is the same for the four warps
};

struct Fiber;
struct Block;

struct Warp {
  Fiber* first;
  unsigned lanes;
  Rendezvous rendezvous;
  ProductQueue products;
  unsigned registers;  // of a thread, that it may use
};

// A matrix as a tensor map holds it; its bytes are those that the host wrote (`RawTensorMap` in emulator.rs).
struct TensorMap {
  const unsigned char* start;
  uint64_t columns, rows, row_bytes;
  uint32_t tile_columns, tile_rows, element_bytes, swizzled_bytes;
  uint64_t unused[10];
};
static_assert(sizeof(TensorMap) == 128, "a tensor map has 128 bytes");

// The device memory behind each argument of a launch; none for a number.
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

struct Fiber {
  void* stack_pointer;
  Dim3 thread;
  unsigned linear, lane;
  Block* block;
  Warp* warp;
  bool done;
  uint64_t waits_since;  // the progress at which it last found that it has to wait
  const char* waits_at;  // what it waits for, or null
  int waits_line;        // of a barrier
  bool waits_for_cluster;
  CopyQueue copies;
};

// A barrier of all threads of a block or of a cluster.
struct Meeting {
  unsigned arrived, generation;
  const char* file;
  int line;
};

// One static array of shared memory: the declaration it belongs to and where it lies.
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
  Meeting barrier;
};

extern Fiber* current;
extern Dim3 block_size, grid_size;

// Ends the launch with a message.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
void barrier(const char* file, int line);
void cluster_barrier(const char* file, int line);
void* static_shared(const void* site, size_t bytes, size_t alignment);
void issue_copy(void* to, const void* from, unsigned bytes);
void commit_copies();
void wait_copies(int groups_left);
void init_barrier(uint64_t* barrier, unsigned arrivals);
void arrive_at(uint64_t* barrier, unsigned expected_bytes);
void wait_at(uint64_t* barrier, unsigned parity);
// Arrives at the barrier that block `rank` of the cluster has where this block has `barrier`.
void arrive_at_block(uint64_t* barrier, unsigned rank);
// Copies to the same place of each block whose bit is set in `blocks`, and counts the bytes at the same barrier of each.
void issue_tile(void* to, const TensorMap& map, uint64_t* barrier, unsigned column, unsigned row, unsigned blocks);
// Called by one lane for its warp.
void fence_products();
void issue_product(const Product& product);
void commit_products();
void wait_products(unsigned groups_left);
// Sets what a thread of the warp may use: fewer registers than now, or more.
void set_registers(unsigned registers, bool gives_up);
// `rows` rows of 16 elements from `first_row` on of the matrix that a descriptor names.
void read_operand(uint64_t descriptor, unsigned first_row, unsigned rows, uint16_t (*out)[16]);
// The warp's buffers of this operation; `last` says whether the caller completes it.
Rendezvous& arrive(const char* operation, unsigned mask, unsigned* parity, bool* last);
void complete(Rendezvous& rendezvous);
void await(Rendezvous& rendezvous, unsigned parity);
// The address in this block's shared memory of `bytes` bytes that lie inside it, and the byte at an address.
unsigned shared_address(const void* pointer, size_t bytes);
unsigned char* at_shared_address(const Block& block, unsigned address, size_t bytes);

// All lanes of the warp bring `in`; the last one turns them into all results at once.
template <class In, class Out, class Body>
inline Out collective(const char* operation, unsigned mask, const In& in, Body body) {
  static_assert(sizeof(In) <= 64 && sizeof(Out) <= 64, "one lane's part of a warp operation is at most 64 bytes");
  unsigned parity;
  bool last;
  Rendezvous& meeting = arrive(operation, mask, &parity, &last);
  std::memcpy(meeting.in[parity] + current->lane * sizeof(In), &in, sizeof(In));
  if (last) {
    body(reinterpret_cast<const In*>(meeting.in[parity]), reinterpret_cast<Out*>(meeting.out[parity]));
    complete(meeting);
  } else {
    await(meeting, parity);
  }
  Out out;
  std::memcpy(&out, meeting.out[parity] + current->lane * sizeof(Out), sizeof(Out));
  return out;
}

using Thunk = void (*)(void** arguments);

// A kernel under its name. Kernels register themselves before `main`.
struct Registration {
  Registration(const char* prefix, const char* name, Thunk thunk, std::vector<size_t> argument_sizes);
};

// That a kernel runs in clusters of `blocks` blocks.
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
