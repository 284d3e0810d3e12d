// A stand-in for the library of a GPU's driver: the functions that this project calls, on the CPU, for its tests.
//
// Kernels run in the emulator. What is checked is how the driver is used:
//   - streams are as late as they may be: copies, fills, launches and frees wait until the host waits for them, so that
//     a host that reads too early or reuses pinned memory too early sees wrong bytes; nothing but events orders one
//     stream's work with another's, and with others=1 the other streams run as far ahead as events let them;
//   - calls need a current context; copies and fills must stay inside one allocation; nothing is freed twice;
//   - a tensor map must be one that the driver's reference allows, of memory that is allocated;
//   - a launch must name a kernel of its module, keep to the limits of a device, and have asked for dynamic shared
//     memory beyond 48 KiB;
//   - a graph runs its nodes in the last order that their edges allow, with the parameters they had when it was
//     launched; nothing is done with nodes whose graph is destroyed;
//   - a kernel that reaches outside its memory breaks the context for good, as on a GPU;
//   - what is still allocated, and the graphs that are still there, when the context ends are counted.
// It is written from the driver's reference. It says nothing of speed.
//
// STAND_IN_DRIVER, or `stand_in_settings` in the same process, is a list such as "devices=0 memory=1000000":
//   devices=N  version=N (as the driver counts)  architecture=N  memory=BYTES  pools=0
//   others=1  whenever a stream has to run, all others run first
//   graphs=0  no graph can be made;  changes=0  a graph that was made cannot be changed
//   break=KERNEL  launches of it are an illegal address;  fault=NAME  runs the kernels with that planted fault
//   deaf=N  stream number N of each device, counted from 0, does not wait for events;  hasty=1  the host does not
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "emulator/emulator.h"

namespace stand_in {

// The driver's numbers.
enum Result {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  NOT_FOUND = 500,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  NOT_SUPPORTED = 801,
  GRAPH_EXEC_UPDATE_FAILURE = 910,
};

constexpr unsigned UNASKED_SHARED = 48 << 10, MOST_SHARED = 227 << 10;

struct Settings {
  int devices = 1, version = 13000, architecture = 90, pools = 1, others = 0, graphs = 1, changes = 1, deaf = -1,
      hasty = 0;
  size_t memory = size_t{4} << 30;
  std::string broken, fault;
};

struct Stream {
  int number = 0;  // of its device, which makes its streams one after the other
  std::deque<std::function<void()>> work;
  bool running = false;
};
// A place in a stream, which an event that is recorded again no longer stands for.
struct Record {
  Stream* on;
  bool over = false;
  std::chrono::steady_clock::time_point time;
};
struct Pool {
  uint64_t threshold, used, used_high, reserved, reserved_high;
};
struct Allocation {
  size_t bytes;
  bool given_back;
  Pool* pool;
};

// A parameter's bytes; a tensor map is the largest.
struct alignas(64) Value {
  unsigned char bytes[sizeof(emulator::TensorMap)];
};
struct Function {
  std::string name;
  std::vector<size_t> parameters;
  unsigned shared_bytes;
};
struct Launch {
  Function function;
  unsigned grid[3], threads, shared_bytes;
  std::vector<Value> values;
};

extern std::recursive_mutex lock;
extern Settings settings;
extern int broken_by;  // the error that nothing works after
extern std::map<std::string, size_t> counts;

// device.cpp
// What most functions begin with.
int entered();

// streams.cpp
// Runs what waits in a stream, up to `until` if there is one.
void run(Stream* stream, const Record* until = nullptr);
// Runs what waits anywhere.
void run_all();
// Nothing of it will run any more.
void forget_work();
std::deque<std::function<void()>>& work_of(void* stream);

// memory.cpp
// The allocation that holds `bytes` bytes from `start` on.
const Allocation* holding(uint64_t start, size_t bytes);
// The bytes from `start` to the end of the allocation that it lies in; 0 if it lies in none.
size_t bytes_behind(uint64_t start);
// What was never given back; said on standard error.
size_t left_allocations();
void forget_memory();

// modules.cpp
// A launch as a call describes it, its parameters copied. An error of the driver, or SUCCESS.
int read_launch(Launch* out, void* function, const unsigned grid[3], const unsigned threads[3], unsigned shared_bytes,
                void** parameters);
void execute(Launch launch);

// graphs.cpp
size_t left_graphs();
void forget_graphs();

}  // namespace stand_in

#define API extern "C" __attribute__((visibility("default")))
#define ALONE std::lock_guard<std::recursive_mutex> alone(stand_in::lock)
#define ENTER                                     \
  ALONE;                                          \
  if (int error = stand_in::entered()) return error
