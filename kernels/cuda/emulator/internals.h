// The state of the emulated device that its parts share: the cluster that runs, and how it runs.
#pragma once

#include <string>
#include <vector>

#include "emulator.h"

namespace emulator {

constexpr size_t PAGE = 4096;
constexpr unsigned char POISON = 0xff;  // a NaN in f32, f16 and bf16
constexpr size_t GUARD = 64;            // untouched bytes behind each shared array
constexpr unsigned DYNAMIC_OFFSET = 128;  // address of dynamic shared memory, which only this is a multiple of

// A copy of a tile, or an arrival at another block's barrier, that is under way.
struct Delivery {
  Block* block;      // whose shared memory it goes to
  unsigned barrier;  // its address there
  const Fiber* arriving;  // null for a tile
  TensorMap map;
  unsigned to, column, row;
};

// Blocks that run at the same time.
struct Cluster {
  std::vector<Block> blocks;
  std::vector<Delivery> deliveries;
  std::vector<Warp*> warp_order;
  unsigned lane_order[WARP];
  unsigned live;
  unsigned warp_turn, lane_turn;  // places in the two orders
  Meeting barrier;
  // Everything that may let a waiting thread go on counts as progress. When all threads have found since the last one
  // that they have to wait, nobody can go on.
  uint64_t progress, waiting_since;
  unsigned waiting;
  uint64_t idle_turns_of_warp;
  uint64_t random_state;
};

extern Cluster cluster;
extern Options options;
extern std::vector<Memory> memory;  // one entry an argument of the launch
extern std::string failure;
extern Dim3 failed_block;
extern bool failed;

// scheduler.cpp
bool allocate_stacks();
// Runs the grid in clusters of `n_blocks` blocks.
void run_clusters(unsigned n_blocks, unsigned n_threads, size_t dynamic_bytes, Thunk kernel, void** arguments);
uint64_t next_random();
// The current thread waits for `what`: lets others run, and comes back when some have.
void await_progress(const char* what);
// Notes what a block did wrong that has ended, unless something was noted before.
void told(const Block& block, std::string text);

// memory.cpp
void start_shared_memory(Block& block, size_t dynamic_bytes);
void check_guards(const Block& block);
// Ends the launch unless `bytes` bytes from `from` on are of one of its memories.
void check_readable(const void* from, size_t bytes, const char* what);
// Forgets what was said of a stack that is used anew.
void allow_stack(void* start, size_t bytes);
void watch_faults();
void forget_arenas();

// asynchronous.cpp
void start_asynchronous(Block& block);
// Does one of the copies of tiles and arrivals under way, if there is one.
bool deliver_one();
// That nothing is on its way to a block whose last thread has ended.
void check_deliveries(const Block& block);
// What else must be over when a block has ended.
void check_asynchronous(const Block& block);

}  // namespace emulator
