// The state of the emulated device that its parts share: the block that runs, and how it runs.
#pragma once

#include <string>
#include <vector>

#include "emulator.h"

namespace emulator {

constexpr size_t PAGE = 4096;
constexpr unsigned char POISON = 0xff;  // a NaN in f32, f16 and bf16
constexpr size_t GUARD = 64;            // untouched bytes behind each shared array

// One static array of shared memory: the declaration it belongs to and where it lies.
struct StaticArray {
  const void* site;
  size_t offset, bytes;
};

struct Block {
  std::vector<Fiber> fibers;
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
  // Everything that may let a waiting thread go on counts as progress; turns without any are a deadlock.
  uint64_t progress, seen_progress, idle_turns, idle_turns_of_warp;
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

// memory.cpp
void start_shared_memory(size_t dynamic_bytes);
void check_guards();
void watch_faults();
void forget_faults();

}  // namespace emulator
