// The fake driver's settings, its devices and their context, and its errors in words.
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "internals.h"

namespace fake_driver {

std::recursive_mutex lock;
Settings settings;
int context_error;
std::map<std::string, size_t> counts;

namespace {

enum DeviceAttribute { MULTIPROCESSORS = 16, L2_BYTES = 38, MAJOR = 75, MINOR = 76, SHARED_BYTES = 97, POOLS = 115 };

bool initialised;
int retained;
char context_object;
thread_local void* current_context;

void apply_settings(const std::string& text) {
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
    else if (name == "graphs") settings.graphs = std::stoi(value);
    else if (name == "updates") settings.updates = std::stoi(value);
    else if (name == "break") settings.broken = value;
    else if (name == "mutant") settings.mutant = value + "/";
    else if (name == "ignore_events") settings.ignore_events = std::stoi(value);
    else if (name == "no_event_sync") settings.no_event_sync = std::stoi(value);
    else if (name == "fail_download") settings.fail_download = std::stoi(value);
    else { fprintf(stderr, "fake driver: unknown setting %s\n", word.c_str()); abort(); }
  }
}

struct FromEnvironment {
  FromEnvironment() {
    if (const char* text = getenv("FAKE_DRIVER")) apply_settings(text);
  }
} from_environment;

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
    case NOT_SUPPORTED: return "operation not supported";
    case GRAPH_EXEC_UPDATE_FAILURE: return "the graph update was not performed because it included changes which violated constraints specific to instantiated graph update";
    default: return nullptr;
  }
}

}  // namespace

int entry_error() {
  if (!initialised) return NOT_INITIALIZED;
  if (!current_context) return INVALID_CONTEXT;
  return context_error;
}

}  // namespace fake_driver

using namespace fake_driver;

// Settings for the next device; also resets a broken context.
API void fake_driver_settings(const char* text) {
  LOCK;
  drop_work();
  context_error = 0;
  // The leaks of a broken context.
  free_all_graphs();
  free_all_memory();
  settings = Settings();
  apply_settings(text);
}
// Changes settings and keeps all other state.
API void fake_driver_change(const char* text) {
  LOCK;
  apply_settings(text);
}
// The number of events so far: "contexts" that were retained, "leaks" at the end of contexts, "launches" and those "executed", "graphs" launched
// and "graphs made", nodes "changed", "refused" queries, allocations of "pinned" memory, and "downloads" that have run.
API size_t fake_driver_count(const char* name) {
  LOCK;
  return counts[name];
}

API int cuInit(unsigned) {
  LOCK;
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
  snprintf(name, len, "fake GPU");
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
    case SHARED_BYTES: *value = MAX_SHARED; break;
    case POOLS: *value = settings.pools; break;
    default: return INVALID_VALUE;
  }
  return SUCCESS;
}
API int cuDevicePrimaryCtxRetain(void** context, int) {
  LOCK;
  if (!initialised) return NOT_INITIALIZED;
  retained++;
  counts["contexts"]++;
  *context = &context_object;
  return SUCCESS;
}
API int cuDevicePrimaryCtxRelease_v2(int) {
  LOCK;
  if (retained == 0) return INVALID_CONTEXT;
  if (--retained == 0) {
    run_all();
    counts["leaks"] += leaked_allocations() + leaked_graphs();
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
