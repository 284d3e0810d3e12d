// A fake libcuda.so: the driver functions that this project calls, on the CPU, for its tests.
//
// Kernels run in the emulator. Checked is the use of the driver:
//   - streams run as late as the CUDA API allows: copies, fills, launches and frees are deferred until the host waits for
//     them, so that a host that reads too early or reuses pinned memory too early sees wrong bytes; only events order the
//     work of two streams, and with others=1 the other streams run as far ahead as events allow;
//   - calls need a current context; copies and fills must stay inside one allocation; a double free is an error;
//   - a tensor map must satisfy the driver's reference and lie in allocated memory;
//   - a launch must name a kernel of its module, respect the limits of a device, and have opted in to dynamic shared memory
//     beyond 48 KiB;
//   - a graph runs its nodes in the latest order that their edges allow, with their parameters at the launch; nodes of a
//     destroyed graph are invalid;
//   - a kernel that accesses memory out of bounds breaks the context permanently, as on a GPU;
//   - leaked allocations and graphs are counted at the end of the context.
// It follows the driver's reference. Its times do not represent a GPU.
//
// FAKE_DRIVER, or `fake_driver_settings` in the same process, is a list such as "devices=0 memory=1000000":
//   devices=N  version=N (as the driver counts)  architecture=N  memory=BYTES  pools=0
//   others=1  when a stream runs, all other streams run first
//   graphs=0  creating a graph fails;  updates=0  updating an instantiated graph fails
//   break=KERNEL  launches of it are an illegal address;  mutant=NAME  runs that mutant in place of its kernel
//   fail_download=N  the copy to the host after the next N is an illegal address
//   ignore_events=N  stream N of each device, counted from 0, ignores events;  no_event_sync=1  the host does as well
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

namespace fake_driver {

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

constexpr unsigned DEFAULT_MAX_SHARED = 48 << 10, MAX_SHARED = 227 << 10;

struct Settings {
  int devices = 1, version = 13000, architecture = 90, pools = 1, others = 0, graphs = 1, updates = 1, ignore_events = -1,
      no_event_sync = 0, fail_download = -1;
  size_t memory = size_t{4} << 30;
  std::string broken, mutant;
};

struct Stream {
  int number = 0;  // in the order of creation of its device's streams
  std::deque<std::function<void()>> work;
  bool running = false;
};
// One recording of an event in a stream; recording the event again replaces it.
struct EventRecord {
  Stream* stream;
  bool complete = false;
  std::chrono::steady_clock::time_point time;
};
struct Pool {
  uint64_t threshold, used, used_high, reserved, reserved_high;
};
struct Allocation {
  size_t bytes;
  bool freed;
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
extern int context_error;  // the error after which every call fails
extern std::map<std::string, size_t> counts;

// device.cpp
// The error that a function must return at once, or SUCCESS.
int entry_error();

// streams.cpp
// Runs the pending work of a stream, up to `until` if given.
void run(Stream* stream, const EventRecord* until = nullptr);
// Runs the pending work of all streams.
void run_all();
// Drops all pending work.
void drop_work();
std::deque<std::function<void()>>& work_of(void* stream);

// memory.cpp
// The allocation that contains `bytes` bytes at `start`.
const Allocation* find_allocation(uint64_t start, size_t bytes);
// The bytes from `start` to the end of its allocation; 0 outside of all allocations.
size_t remaining_bytes(uint64_t start);
// The number of leaked allocations, also printed on standard error.
size_t leaked_allocations();
void free_all_memory();

// modules.cpp
// Reads a launch and copies its parameters. Returns an error of the driver, or SUCCESS.
int read_launch(Launch* out, void* function, const unsigned grid[3], const unsigned threads[3], unsigned shared_bytes,
                void** parameters);
void execute(Launch launch);

// graphs.cpp
size_t leaked_graphs();
void free_all_graphs();

}  // namespace fake_driver

#define API extern "C" __attribute__((visibility("default")))
#define LOCK std::lock_guard<std::recursive_mutex> guard(fake_driver::lock)
#define ENTER                                     \
  LOCK;                                          \
  if (int error = fake_driver::entry_error()) return error
