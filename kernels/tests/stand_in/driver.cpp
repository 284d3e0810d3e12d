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
//   - a kernel that reaches outside its memory breaks the context for good, as on a GPU;
//   - what is still allocated when the context ends is counted.
// It is written from the driver's reference and has never been compared with a driver. It says nothing of speed.
//
// STAND_IN_DRIVER, or `stand_in_settings` in the same process, is a list such as "devices=0 memory=1000000":
//   devices=N  version=N (as the driver counts)  architecture=N  memory=BYTES  pools=0
//   others=1  whenever a stream has to run, all others run first
//   break=KERNEL  launches of it are an illegal address;  fault=NAME  runs the kernels with that planted fault
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "emulator/emulator.h"

// As launch.cpp and memory.cpp of the emulator define them.
extern "C" int actbench_emulator_launch(const char* prefix, const char* name, const unsigned grid[3],
                                        const unsigned threads[3], unsigned shared_bytes, void** arguments,
                                        const size_t* argument_sizes, size_t n_arguments,
                                        const emulator::Memory* given, const emulator::Options* launch_options,
                                        char* message, size_t message_len);
extern "C" long actbench_emulator_parameters(const char* name, size_t* sizes, size_t capacity);
extern "C" unsigned char* actbench_emulator_alloc(size_t bytes);
extern "C" void actbench_emulator_free(unsigned char* start, size_t bytes);

namespace {

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
};
enum DeviceAttribute { MULTIPROCESSORS = 16, L2_BYTES = 38, MAJOR = 75, MINOR = 76, SHARED_BYTES = 97, POOLS = 115 };
enum PoolAttribute { REUSE_WITH_WAITS = 3, THRESHOLD = 4, RESERVED = 5, RESERVED_HIGH = 6, USED = 7, USED_HIGH = 8 };
constexpr int MAX_DYNAMIC_SHARED = 8;  // a function's attribute
constexpr unsigned UNASKED_SHARED = 48 << 10, MOST_SHARED = 227 << 10;
constexpr size_t POOL_STEP = 2 << 20;  // a pool takes memory from the device in steps

struct Settings {
  int devices = 1, version = 13000, architecture = 90, pools = 1, others = 0;
  size_t memory = size_t{4} << 30;
  std::string broken, fault;
};

struct Module {
  bool has_any;  // of the tests: no machine code, and every kernel
  std::set<std::string> kernels;
};
struct Function {
  std::string name;
  std::vector<size_t> parameters;
  unsigned shared_bytes;
};
struct Stream {
  std::deque<std::function<void()>> work;
  bool running = false;
};
// A place in a stream, which an event that is recorded again no longer stands for.
struct Record {
  Stream* on;
  bool over = false;
  std::chrono::steady_clock::time_point time;
};
struct Event {
  std::shared_ptr<Record> latest;  // none before it is recorded
};
struct Pool {
  uint64_t threshold, used, used_high, reserved, reserved_high;
};
struct Allocation {
  size_t bytes;
  bool given_back;
  Pool* pool;
};

std::recursive_mutex lock;
Settings settings;
bool initialised;
int broken_by;  // the error that nothing works after
size_t leaks, used_bytes;
int retained;
std::map<uint64_t, Allocation> allocations;
std::map<uintptr_t, size_t> pinned;
std::set<Stream*> streams;
std::set<Pool*> pools;
std::map<std::pair<const Module*, std::string>, std::unique_ptr<Function>> functions;
char context_object;
thread_local void* current_context;

void set(const std::string& text) {
  settings = Settings();
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    const std::string name = word.substr(0, equals), value = equals == std::string::npos ? "" : word.substr(equals + 1);
    if (name == "devices") settings.devices = std::stoi(value);
    else if (name == "version") settings.version = std::stoi(value);
    else if (name == "architecture") settings.architecture = std::stoi(value);
    else if (name == "memory") settings.memory = std::stoull(value);
    else if (name == "pools") settings.pools = std::stoi(value);
    else if (name == "others") settings.others = std::stoi(value);
    else if (name == "break") settings.broken = value;
    else if (name == "fault") settings.fault = value + "/";
    else { fprintf(stderr, "stand-in driver: unknown setting %s\n", word.c_str()); abort(); }
  }
}

struct FromEnvironment {
  FromEnvironment() {
    if (const char* text = getenv("STAND_IN_DRIVER")) set(text);
  }
} from_environment;

// Runs what waits in a stream, up to `until` if there is one.
void run(Stream* stream, const Record* until = nullptr) {
  const bool was_running = stream->running;
  stream->running = true;
  if (settings.others) {
    const std::set<Stream*> all = streams;
    for (Stream* other : all) {
      if (!other->running) run(other);
    }
  }
  while (!stream->work.empty() && !(until && until->over)) {
    const auto work = std::move(stream->work.front());
    stream->work.pop_front();
    work();
  }
  stream->running = was_running;
}

// Runs what waits anywhere.
void run_all() {
  const std::set<Stream*> all = streams;
  for (Stream* stream : all) run(stream);
}

std::deque<std::function<void()>>& work_of(void* stream) { return static_cast<Stream*>(stream)->work; }

// What most functions begin with.
int entered() {
  if (!initialised) return NOT_INITIALIZED;
  if (!current_context) return INVALID_CONTEXT;
  return broken_by;
}

// The allocation that holds `bytes` bytes from `start` on.
Allocation* holding(uint64_t start, size_t bytes) {
  auto after = allocations.upper_bound(start);
  if (after == allocations.begin()) return nullptr;
  auto& [first, allocation] = *--after;
  return start + bytes <= first + allocation.bytes ? &allocation : nullptr;
}

int allocate(uint64_t* out, size_t bytes, Pool* pool) {
  if (int error = entered()) return error;
  if (bytes == 0) return INVALID_VALUE;
  if (used_bytes + bytes > settings.memory) return OUT_OF_MEMORY;
  // A multiple of 16, so that the memory begins at one of a page and bytes behind the end are as the emulator leaves them.
  unsigned char* start = actbench_emulator_alloc(bytes);
  if (!start) return OUT_OF_MEMORY;
  used_bytes += bytes;
  if (pool) {
    pool->used += bytes;
    pool->used_high = std::max(pool->used_high, pool->used);
    const uint64_t steps = (pool->used + POOL_STEP - 1) / POOL_STEP * POOL_STEP;
    pool->reserved = std::max(pool->reserved, std::min<uint64_t>(steps, settings.memory));
    pool->reserved_high = std::max(pool->reserved_high, pool->reserved);
  }
  *out = reinterpret_cast<uint64_t>(start);
  allocations[*out] = {bytes, false, pool};
  return SUCCESS;
}

void release(uint64_t start) {
  const auto found = allocations.find(start);
  used_bytes -= found->second.bytes;
  if (Pool* pool = found->second.pool) pool->used -= found->second.bytes;
  actbench_emulator_free(reinterpret_cast<unsigned char*>(start), found->second.bytes);
  allocations.erase(found);
}

// A copy or fill that comes to memory which was given back in the meantime.
bool is_gone(uint64_t start, size_t bytes) {
  if (holding(start, bytes)) return false;
  fprintf(stderr, "stand-in driver: %zu bytes were given back before work on them ended\n", bytes);
  broken_by = ILLEGAL_ADDRESS;
  return true;
}

bool is_pinned(const void* start, size_t bytes) {
  auto after = pinned.upper_bound(reinterpret_cast<uintptr_t>(start));
  if (after == pinned.begin()) return false;
  --after;
  return reinterpret_cast<uintptr_t>(start) + bytes <= after->first + after->second;
}

// The names of the kernels in machine code: its sections `.text.NAME` (ELF-64, System V ABI).
bool read_kernels(const unsigned char* image, std::set<std::string>* kernels) {
  uint64_t sections;
  uint16_t machine, entry_bytes, count, names_index;
  std::memcpy(&machine, image + 18, 2);
  std::memcpy(&sections, image + 40, 8);
  std::memcpy(&entry_bytes, image + 58, 2);
  std::memcpy(&count, image + 60, 2);
  std::memcpy(&names_index, image + 62, 2);
  if (machine != 190) return false;
  uint64_t names;
  std::memcpy(&names, image + sections + names_index * entry_bytes + 24, 8);
  for (unsigned i = 0; i < count; i++) {
    uint32_t name;
    std::memcpy(&name, image + sections + i * entry_bytes, 4);
    const std::string text = reinterpret_cast<const char*>(image + names + name);
    if (text.rfind(".text.", 0) == 0) kernels->insert(text.substr(6));
  }
  return true;
}

// A parameter's bytes; a tensor map is the largest.
struct alignas(64) Value {
  unsigned char bytes[sizeof(emulator::TensorMap)];
};

// Executes a launch whose parameters were copied to `values`.
void execute(const Function& function, const unsigned grid[3], unsigned threads, unsigned shared_bytes,
             std::vector<Value> values) {
  if (broken_by) return;
  std::vector<void*> arguments;
  std::vector<emulator::Memory> memory;
  for (size_t i = 0; i < values.size(); i++) {
    arguments.push_back(&values[i]);
    emulator::Memory given = {};
    // A pointer, or a map that begins with one.
    uint64_t start;
    std::memcpy(&start, values[i].bytes, 8);
    if (function.parameters[i] >= 8) {
      auto after = allocations.upper_bound(start);
      if (after != allocations.begin() && holding(start, 0)) {
        --after;
        given.start = reinterpret_cast<const unsigned char*>(start);
        given.bytes = after->first + after->second.bytes - start;
      }
    }
    memory.push_back(given);
  }
  const unsigned block[3] = {threads, 1, 1};
  const emulator::Options options = {2, 2, 1};  // threads and copies in random order
  char message[1024] = "an illegal address that was asked for";
  if (function.name == settings.broken ||
      actbench_emulator_launch(settings.fault.c_str(), function.name.c_str(), grid, block, shared_bytes,
                               arguments.data(), function.parameters.data(), values.size(), memory.data(), &options,
                               message, sizeof message)) {
    fprintf(stderr, "stand-in driver: %s\n", message);
    broken_by = ILLEGAL_ADDRESS;
  }
}

const char* name_of(int error) {
  switch (error) {
    case INVALID_VALUE: return "invalid argument";
    case OUT_OF_MEMORY: return "out of memory";
    case NOT_INITIALIZED: return "initialization error";
    case NO_DEVICE: return "no CUDA-capable device is detected";
    case INVALID_DEVICE: return "invalid device ordinal";
    case INVALID_IMAGE: return "device kernel image is invalid";
    case INVALID_CONTEXT: return "invalid device context";
    case NOT_FOUND: return "named symbol not found";
    case NOT_READY: return "device not ready";
    case ILLEGAL_ADDRESS: return "an illegal memory access was encountered";
    default: return nullptr;
  }
}

}  // namespace

#define API extern "C" __attribute__((visibility("default")))
#define ALONE std::lock_guard<std::recursive_mutex> alone(lock)
#define ENTER                           \
  ALONE;                                \
  if (int error = entered()) return error

// Settings for the next device, which also forgets a broken context.
API void stand_in_settings(const char* text) {
  ALONE;
  for (Stream* stream : streams) stream->work.clear();
  broken_by = 0;
  // What a broken context never gave back.
  while (!allocations.empty()) {
    allocations.begin()->second.pool = nullptr;
    release(allocations.begin()->first);
  }
  pinned.clear();
  set(text);
}
// How many allocations were left when contexts ended.
API size_t stand_in_leaks() {
  ALONE;
  return leaks;
}

API int cuInit(unsigned) {
  ALONE;
  if (settings.devices == 0) return NO_DEVICE;
  initialised = true;
  return SUCCESS;
}
API int cuDriverGetVersion(int* version) {
  *version = settings.version;
  return SUCCESS;
}
API int cuGetErrorString(int error, const char** text) {
  *text = name_of(error);
  return *text ? SUCCESS : INVALID_VALUE;
}
API int cuGetErrorName(int error, const char** text) { return cuGetErrorString(error, text); }

API int cuDeviceGetCount(int* count) {
  *count = settings.devices;
  return initialised ? SUCCESS : NOT_INITIALIZED;
}
API int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return ordinal < settings.devices ? SUCCESS : INVALID_DEVICE;
}
API int cuDeviceGetName(char* name, int len, int) {
  snprintf(name, len, "stand-in for a GPU");
  return SUCCESS;
}
API int cuDeviceTotalMem_v2(size_t* bytes, int) {
  *bytes = settings.memory;
  return SUCCESS;
}
API int cuDeviceGetAttribute(int* value, int attribute, int) {
  switch (attribute) {
    case MULTIPROCESSORS: *value = 1; break;
    case L2_BYTES: *value = 1 << 20; break;
    case MAJOR: *value = settings.architecture / 10; break;
    case MINOR: *value = settings.architecture % 10; break;
    case SHARED_BYTES: *value = MOST_SHARED; break;
    case POOLS: *value = settings.pools; break;
    default: return INVALID_VALUE;
  }
  return SUCCESS;
}
API int cuDevicePrimaryCtxRetain(void** context, int) {
  ALONE;
  if (!initialised) return NOT_INITIALIZED;
  retained++;
  *context = &context_object;
  return SUCCESS;
}
API int cuDevicePrimaryCtxRelease_v2(int) {
  ALONE;
  if (retained == 0) return INVALID_CONTEXT;
  if (--retained == 0) {
    run_all();
    leaks += allocations.size() + pinned.size();
    if (!allocations.empty()) fprintf(stderr, "stand-in driver: %zu allocations were left\n", allocations.size());
  }
  return SUCCESS;
}
API int cuCtxGetCurrent(void** context) {
  *context = current_context;
  return SUCCESS;
}
API int cuCtxSetCurrent(void* context) {
  current_context = context;
  return SUCCESS;
}

API int cuStreamCreate(void** created, unsigned) {
  ENTER;
  *created = *streams.insert(new Stream()).first;
  return SUCCESS;
}
API int cuStreamSynchronize(void* stream) {
  ENTER;
  run(static_cast<Stream*>(stream));
  return broken_by;
}
API int cuStreamWaitEvent(void* stream, void* event, unsigned) {
  ENTER;
  // What the event stands for now, whatever it is recorded for later.
  if (std::shared_ptr<Record> record = static_cast<Event*>(event)->latest) {
    work_of(stream).push_back([record] {
      if (!record->over) run(record->on, record.get());
    });
  }
  return SUCCESS;
}
API int cuStreamDestroy_v2(void* stream) {
  ALONE;
  // Work goes on after the call, which nobody can tell from work that ends within it.
  run_all();
  streams.erase(static_cast<Stream*>(stream));
  delete static_cast<Stream*>(stream);
  return SUCCESS;
}

API int cuEventCreate(void** event, unsigned) {
  ENTER;
  *event = new Event();
  return SUCCESS;
}
API int cuEventRecord(void* event, void* stream) {
  ENTER;
  auto record = std::make_shared<Record>();
  record->on = static_cast<Stream*>(stream);
  static_cast<Event*>(event)->latest = record;
  work_of(stream).push_back([record] {
    record->over = true;
    record->time = std::chrono::steady_clock::now();
  });
  return SUCCESS;
}
API int cuEventSynchronize(void* event) {
  ENTER;
  const std::shared_ptr<Record> record = static_cast<Event*>(event)->latest;
  if (record && !record->over) run(record->on, record.get());
  return broken_by;
}
API int cuEventElapsedTime_v2(float* milliseconds, void* start, void* end) {
  ENTER;
  const std::shared_ptr<Record> first = static_cast<Event*>(start)->latest, last = static_cast<Event*>(end)->latest;
  if (!first || !last || !first->over || !last->over) return NOT_READY;
  *milliseconds = std::chrono::duration<float, std::milli>(last->time - first->time).count();
  return SUCCESS;
}
API int cuEventDestroy_v2(void* event) {
  ALONE;
  delete static_cast<Event*>(event);
  return SUCCESS;
}

API int cuMemPoolCreate(void** pool, const void*) {
  ENTER;
  *pool = *pools.insert(new Pool()).first;
  return SUCCESS;
}
API int cuMemPoolDestroy(void* pool) {
  ALONE;
  run_all();
  pools.erase(static_cast<Pool*>(pool));
  delete static_cast<Pool*>(pool);
  return SUCCESS;
}
API int cuMemPoolGetAttribute(void* pool, int attribute, void* value) {
  ENTER;
  const Pool* asked = static_cast<Pool*>(pool);
  uint64_t answer;
  switch (attribute) {
    case THRESHOLD: answer = asked->threshold; break;
    case RESERVED: answer = asked->reserved; break;
    case RESERVED_HIGH: answer = asked->reserved_high; break;
    case USED: answer = asked->used; break;
    case USED_HIGH: answer = asked->used_high; break;
    default: return INVALID_VALUE;
  }
  std::memcpy(value, &answer, sizeof answer);
  return SUCCESS;
}
API int cuMemPoolSetAttribute(void* pool, int attribute, void* value) {
  ENTER;
  Pool* changed = static_cast<Pool*>(pool);
  uint64_t given;
  std::memcpy(&given, value, sizeof given);
  if (attribute == REUSE_WITH_WAITS) return SUCCESS;  // memory is never handed out twice here
  if (attribute == THRESHOLD) changed->threshold = given;
  else if (attribute == RESERVED_HIGH && given == 0) changed->reserved_high = changed->reserved;
  else if (attribute == USED_HIGH && given == 0) changed->used_high = changed->used;
  else return INVALID_VALUE;
  return SUCCESS;
}
API int cuMemPoolTrimTo(void* pool, size_t bytes) {
  ENTER;
  Pool* trimmed = static_cast<Pool*>(pool);
  const uint64_t held = (trimmed->used + POOL_STEP - 1) / POOL_STEP * POOL_STEP;
  trimmed->reserved = std::min<uint64_t>(trimmed->reserved, std::max<uint64_t>(held, bytes));
  return SUCCESS;
}
API int cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
  ENTER;
  *total = settings.memory;
  size_t taken = used_bytes;
  for (const Pool* pool : pools) taken += pool->reserved - pool->used;
  *free_bytes = settings.memory - std::min(settings.memory, taken);
  return SUCCESS;
}
API int cuMemAllocFromPoolAsync(uint64_t* start, size_t bytes, void* pool, void*) {
  ALONE;
  return allocate(start, bytes, static_cast<Pool*>(pool));
}
API int cuMemAlloc_v2(uint64_t* start, size_t bytes) {
  ALONE;
  return allocate(start, bytes, nullptr);
}
API int cuMemFreeAsync(uint64_t start, void* stream) {
  ENTER;
  const auto found = allocations.find(start);
  if (found == allocations.end() || found->second.given_back || !found->second.pool) return INVALID_VALUE;
  found->second.given_back = true;
  work_of(stream).push_back([start] { release(start); });
  return SUCCESS;
}
API int cuMemFree_v2(uint64_t start) {
  ENTER;
  const auto found = allocations.find(start);
  if (found == allocations.end() || found->second.pool) return INVALID_VALUE;
  run_all();
  release(start);
  return SUCCESS;
}
API int cuMemHostAlloc(void** start, size_t bytes, unsigned) {
  ENTER;
  *start = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!*start) return OUT_OF_MEMORY;
  std::memset(*start, 0xff, bytes);
  pinned[reinterpret_cast<uintptr_t>(*start)] = bytes;
  return SUCCESS;
}
API int cuMemFreeHost(void* start) {
  ALONE;
  if (!pinned.count(reinterpret_cast<uintptr_t>(start))) return INVALID_VALUE;
  run_all();
  pinned.erase(reinterpret_cast<uintptr_t>(start));
  free(start);
  return SUCCESS;
}

API int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
  ENTER;
  if (!holding(to, bytes)) return INVALID_VALUE;
  const auto* first = static_cast<const unsigned char*>(from);
  // Pinned memory is read when the stream comes to it; from pageable memory the bytes are taken before the call returns.
  std::vector<unsigned char> taken;
  if (!is_pinned(from, bytes)) taken.assign(first, first + bytes);
  work_of(stream).push_back([=] {
    if (!is_gone(to, bytes)) std::memcpy(reinterpret_cast<void*>(to), taken.empty() ? first : taken.data(), bytes);
  });
  return SUCCESS;
}
API int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
  ENTER;
  if (!holding(from, bytes)) return INVALID_VALUE;
  work_of(stream).push_back([=] {
    if (!is_gone(from, bytes)) std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
  });
  return SUCCESS;
}
API int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
  ENTER;
  if (!holding(to, bytes) || !holding(from, bytes)) return INVALID_VALUE;
  work_of(stream).push_back([=] {
    if (is_gone(from, bytes) || is_gone(to, bytes)) return;
    std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
  });
  return SUCCESS;
}
API int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void* stream) {
  ENTER;
  if (!holding(to, bytes)) return INVALID_VALUE;
  work_of(stream).push_back([=] {
    if (!is_gone(to, bytes)) std::memset(reinterpret_cast<void*>(to), value, bytes);
  });
  return SUCCESS;
}

API int cuModuleLoadData(void** module, const void* image) {
  ENTER;
  const auto* bytes = static_cast<const unsigned char*>(image);
  if (std::memcmp(bytes, "\x7f" "ELF", 4) != 0) return INVALID_IMAGE;
  auto loaded = std::make_unique<Module>();
  loaded->has_any = std::memcmp(bytes, "\x7f" "ELF stand-in", 13) == 0;
  if (!loaded->has_any && !read_kernels(bytes, &loaded->kernels)) return INVALID_IMAGE;
  *module = loaded.release();
  return SUCCESS;
}
API int cuModuleUnload(void* module) {
  ALONE;
  run_all();
  delete static_cast<Module*>(module);
  return SUCCESS;
}
API int cuModuleGetFunction(void** function, void* module, const char* name) {
  ENTER;
  const Module* searched = static_cast<Module*>(module);
  size_t sizes[64];
  const long n = actbench_emulator_parameters(name, sizes, 64);
  if (n < 0 || (!searched->has_any && !searched->kernels.count(name))) return NOT_FOUND;
  auto& found = functions[{searched, name}];
  found.reset(new Function{name, std::vector<size_t>(sizes, sizes + n), UNASKED_SHARED});
  *function = found.get();
  return SUCCESS;
}
API int cuFuncSetAttribute(void* function, int attribute, int value) {
  ENTER;
  if (attribute != MAX_DYNAMIC_SHARED || value < 0 || value > static_cast<int>(MOST_SHARED)) return INVALID_VALUE;
  static_cast<Function*>(function)->shared_bytes = value;
  return SUCCESS;
}
API int cuFuncGetParamInfo(void* function, size_t index, size_t* offset, size_t* size) {
  ENTER;
  const std::vector<size_t>& sizes = static_cast<Function*>(function)->parameters;
  if (index >= sizes.size()) return INVALID_VALUE;
  size_t at = 0;
  for (size_t i = 0; i <= index; i++) {
    const size_t alignment = sizes[i] < 64 ? sizes[i] : 64;
    at = (at + alignment - 1) / alignment * alignment;
    *offset = at;
    at += sizes[i];
  }
  *size = sizes[index];
  return SUCCESS;
}
// Matrices of two dimensions, with the limits of the driver's reference.
API int cuTensorMapEncodeTiled(void* map, int type, unsigned rank, void* start, const uint64_t* extents,
                               const uint64_t* strides, const unsigned* tile, const unsigned* steps, int interleave,
                               int swizzle, int, int fill) {
  ENTER;
  const size_t element = type == 6 || type == 9 ? 2 : type == 7 ? 4 : 0;
  const auto address = reinterpret_cast<uint64_t>(start);
  const bool is_a_matrix = element != 0 && rank == 2 && interleave == 0 && fill == 0 && steps[0] == 1 && steps[1] == 1;
  if (!is_a_matrix || reinterpret_cast<uint64_t>(map) % 64 != 0 || address % 16 != 0) return INVALID_VALUE;
  for (int i = 0; i < 2; i++) {
    if (extents[i] == 0 || extents[i] > (1ull << 32) || tile[i] == 0 || tile[i] > 256) return INVALID_VALUE;
  }
  const size_t tile_row = tile[0] * element;
  if (strides[0] % 16 != 0 || strides[0] >= (1ull << 40) || strides[0] < extents[0] * element) return INVALID_VALUE;
  if (tile_row % 16 != 0 || (swizzle == 3 ? tile_row > 128 : swizzle != 0)) return INVALID_VALUE;
  if (!holding(address, (extents[1] - 1) * strides[0] + extents[0] * element)) return INVALID_VALUE;
  const emulator::TensorMap encoded = {static_cast<unsigned char*>(start), extents[0], extents[1], strides[0], tile[0],
                                       tile[1], static_cast<uint32_t>(element), swizzle == 3 ? 128u : 0u, {}};
  std::memcpy(map, &encoded, sizeof encoded);
  return SUCCESS;
}
API int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
                       unsigned threads_z, unsigned shared_bytes, void* stream, void** parameters, void**) {
  ENTER;
  const Function* launched = static_cast<Function*>(function);
  if (x == 0 || y == 0 || z == 0 || x > 0x7fffffffu || y > 65535 || z > 65535 || threads == 0 || threads > 1024 ||
      threads_y != 1 || threads_z != 1 || shared_bytes > launched->shared_bytes) {
    return INVALID_VALUE;
  }
  std::vector<Value> values;
  for (size_t i = 0; i < launched->parameters.size(); i++) {
    Value value = {};
    std::memcpy(value.bytes, parameters[i], launched->parameters[i]);
    values.push_back(value);
  }
  work_of(stream).push_back([=, copy = *launched] {
    const unsigned grid[3] = {x, y, z};
    execute(copy, grid, threads, shared_bytes, values);
  });
  return SUCCESS;
}
