// The stand-in's settings, its devices and their context, and its errors in words.
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "internals.h"

namespace stand_in {

std::recursive_mutex lock;
Settings settings;
int broken_by;
std::map<std::string, size_t> counts;

namespace {

enum DeviceAttribute { MULTIPROCESSORS = 16, L2_BYTES = 38, MAJOR = 75, MINOR = 76, SHARED_BYTES = 97, POOLS = 115 };

bool initialised;
int retained;
char context_object;
thread_local void* current_context;

void change(const std::string& text) {
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
    else if (name == "changes") settings.changes = std::stoi(value);
    else if (name == "break") settings.broken = value;
    else if (name == "fault") settings.fault = value + "/";
    else if (name == "deaf") settings.deaf = std::stoi(value);
    else if (name == "hasty") settings.hasty = std::stoi(value);
    else { fprintf(stderr, "stand-in driver: unknown setting %s\n", word.c_str()); abort(); }
  }
}

struct FromEnvironment {
  FromEnvironment() {
    if (const char* text = getenv("STAND_IN_DRIVER")) change(text);
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

int entered() {
  if (!initialised) return NOT_INITIALIZED;
  if (!current_context) return INVALID_CONTEXT;
  return broken_by;
}

}  // namespace stand_in

using namespace stand_in;

// Settings for the next device, which also forgets a broken context.
API void stand_in_settings(const char* text) {
  ALONE;
  forget_work();
  broken_by = 0;
  // What a broken context never gave back.
  forget_graphs();
  forget_memory();
  settings = Settings();
  change(text);
}
// Other settings from now on, with everything else as it is.
API void stand_in_change(const char* text) {
  ALONE;
  change(text);
}
// How often something happened so far: "leaks" when contexts ended, "launches", "graphs" that were launched and "graphs
// made", nodes that were "changed", and "refused" questions.
API size_t stand_in_count(const char* what) {
  ALONE;
  return counts[what];
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
    counts["leaks"] += left_allocations() + left_graphs();
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
