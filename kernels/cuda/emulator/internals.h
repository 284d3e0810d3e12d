// The state that the parts of the emulated device share: the running cluster and its options.
#pragma once

#include <string>
#include <vector>

#include "emulator.h"

namespace emulator {

constexpr size_t PAGE = 4096;
constexpr unsigned char POISON = 0xff;    // a NaN in f32, f16 and bf16
constexpr size_t GUARD = 64;              // untouched bytes behind each shared array
constexpr unsigned DYNAMIC_OFFSET = 128;  // address of dynamic shared memory, aligned to this and no more

// A TMA load or an arrival at another block's barrier that is in flight.
struct RemoteOperation {
  Block* block;           // the block whose shared memory it changes
  unsigned barrier;       // its address there
  const Fiber* arriving;  // null for a tile
  TensorMap map;
  unsigned to, column, row;
};

// Blocks that run at the same time.
struct Cluster {
  std::vector<Block> blocks;
  std::vector<RemoteOperation> in_flight;
  std::vector<Warp*> warp_order;
  unsigned lane_order[WARP];
  unsigned live;
  unsigned warp_turn, lane_turn;  // indices into the two orders
  ThreadBarrier barrier;
  // Every event that may end a wait counts as progress. If all threads have had a turn without progress, it is a deadlock.
  uint64_t progress, waiting_since;
  unsigned waiting;
  uint64_t idle_turns_of_warp;
  uint64_t random_state;
};

extern Cluster cluster;
extern Options options;
extern std::vector<Memory> memory;  // one entry for each argument of the launch
extern std::string failure;
extern Dim3 failed_block;
extern bool failed;

// scheduler.cpp
bool allocate_stacks();
// Runs the grid in clusters of `n_blocks` blocks.
void run_clusters(unsigned n_blocks, unsigned n_threads, size_t dynamic_bytes, Thunk kernel, void** arguments);
uint64_t next_random();
// Lets other threads run; `operation` is what the current thread waits for.
void await_progress(const char* operation);
// Records the first failure of the launch, in `block`.
void record_failure(const Block& block, std::string text);

// memory.cpp
void start_shared_memory(Block& block, size_t dynamic_bytes);
void check_guards(const Block& block);
// Fails the launch unless `bytes` bytes at `from` belong to one of its arguments.
void check_readable(const void* from, size_t bytes, const char* operation);
// Makes a reused stack accessible again in a build with AddressSanitizer.
void unpoison_stack(void* start, size_t bytes);
void install_fault_handler();
void reset_arenas();

// asynchronous.cpp
void start_asynchronous(Block& block);
// Performs one operation in flight, if there is one.
bool perform_one();
// Fails the launch if an operation is in flight to a block whose last thread has ended.
void check_in_flight(const Block& block);
// Checks wgmmas and registers of a block that has ended.
void check_asynchronous(const Block& block);

}  // namespace emulator
