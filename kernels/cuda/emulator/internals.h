// The state of the emulated device that its parts share: the block that runs, and how it runs.
#pragma once

#include <string>
#include <vector>

#include "emulator.h"

namespace emulator {

constexpr size_t PAGE = 4096;
constexpr unsigned char POISON = 0xff;  // a NaN in f32, f16 and bf16
constexpr size_t GUARD = 64;            // untouched bytes behind each shared array
constexpr unsigned DYNAMIC_OFFSET = 128;  // address of dynamic shared memory, which only this is a multiple of

// One static array of shared memory: the declaration it belongs to and where it lies.
struct StaticArray {
  const void* site;
  size_t offset, bytes;
};

// A copy of a tile that is under way.
struct TileCopy {
  TensorMap map;
  unsigned char* to;
  uint64_t* barrier;
  unsigned column, row;
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<TileCopy> tile_copies;
  std::vector<Warp> warps;
  std::vector<unsigned> warp_order;
  unsigned lane_order[WARP];
  std::vector<StaticArray> statics;
  size_t dynamic_bytes, shared_end;
  unsigned live;
  unsigned warp_turn, lane_turn;  // places in the two orders
  unsigned barrier_arrived, barrier_generation;
  const char* barrier_file;
  int barrier_line;
  // Everything that may let a waiting thread go on counts as progress. When all threads have found since the last one
  // that they have to wait, nobody can go on.
  uint64_t progress, waiting_since;
  unsigned waiting;
  uint64_t idle_turns_of_warp;
  uint64_t random_state;
};

extern Block block;
extern Options options;
extern std::vector<Memory> memory;  // one entry an argument of the launch
extern std::string failure;
extern bool failed;

// scheduler.cpp
bool allocate_stacks();
void run_blocks(unsigned n_threads, size_t dynamic_bytes, Thunk kernel, void** arguments);
uint64_t next_random();
// The current thread waits for `what`: lets others run, and comes back when some have.
void await_progress(const char* what);

// memory.cpp
void start_shared_memory(size_t dynamic_bytes);
void check_guards();
// Ends the launch unless `bytes` bytes from `from` on are of one of its memories.
void check_readable(const void* from, size_t bytes, const char* what);
// Forgets what was said of a stack that is used anew.
void allow_stack(void* start, size_t bytes);
void watch_faults();
void forget_faults();

// asynchronous.cpp
void start_asynchronous(unsigned n_threads);
// Does one of the copies of tiles under way, if there is one.
bool run_a_tile_copy();
// What must be over when a block has ended.
void check_asynchronous();

}  // namespace emulator
