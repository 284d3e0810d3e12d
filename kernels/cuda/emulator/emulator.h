// A CPU that behaves like a CUDA device, for tests: the same kernel sources are compiled as C++17 and executed.
//
// One fiber stands for a thread of a block. Fibers of a block run in turn on the calling thread and switch only where
// the kernel waits: at a barrier, at an operation of a whole warp, or for a copy. Blocks run one after another. A
// launch is deterministic: its result is a function of the sources, the arguments and the `Options`.
//
// What is checked besides the results:
//   - shared memory, static and dynamic, holds NaN bytes when a block starts, and guard bytes lie behind each array;
//   - asynchronous copies happen at once, as late as the program allows, or some one way and some the other, and read
//     nothing but the memory that the launch was given;
//   - threads take turns in order, in reverse order or in a random order, and a warp runs on until it has to wait for
//     the block, so that another warp may be a whole stretch between two barriers behind;
//   - a block in which all threads wait is a deadlock, named with the block and the places where threads wait;
//   - a barrier must be the same line of code for all threads; an operation of a warp the same operation for all lanes;
//   - the sizes of a launch's arguments must be those of the kernel's parameters;
//   - device memory ends at a page that cannot be touched, so that a read or a write beyond it names its thread.
//
// Limits. No memory model: a write is seen by the next fiber at once, so missing fences and volatile reads go unseen.
// No bank conflicts, no timing, no register limits. Blocks run one after another, so a kernel whose blocks wait for
// each other hangs in the deadlock check. Operations of a warp take all its lanes; masks of some lanes are refused.
// The rounding inside `mma` is that of a chain of f32 additions, not a tensor core's. Only x86-64 is supported.
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

struct Warp {
  unsigned lanes;
  Rendezvous rendezvous;
};

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
  Warp* warp;
  bool done;
  const char* waits_at;  // what it waits for, or null
  int waits_line;
  CopyQueue copies;
};

extern unsigned char* arena;  // the block's shared memory
extern Fiber* current;
extern Dim3 block_index, block_size, grid_size;

// Ends the launch with a message.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
void barrier(const char* file, int line);
void* static_shared(const void* site, size_t bytes, size_t alignment);
void issue_copy(void* to, const void* from, unsigned bytes);
void commit_copies();
void wait_copies(int groups_left);
// The warp's buffers of this operation; `last` says whether the caller completes it.
Rendezvous& arrive(const char* operation, unsigned mask, unsigned* parity, bool* last);
void complete(Rendezvous& rendezvous);
void await(Rendezvous& rendezvous, unsigned parity);
// An offset into shared memory of `bytes` bytes that lie inside it.
unsigned shared_offset(const void* pointer, size_t bytes);

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
