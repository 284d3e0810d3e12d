// The fake driver's machine code, its kernels and their launches, which the emulator executes.
#include <cstdio>
#include <cstring>

#include "internals.h"

// As launch.cpp of the emulator defines them.
extern "C" int actbench_emulator_launch(const char* prefix, const char* name, const unsigned grid[3],
                                        const unsigned threads[3], unsigned shared_bytes, void** arguments,
                                        const size_t* argument_sizes, size_t n_arguments,
                                        const emulator::Memory* given, const emulator::Options* launch_options,
                                        char* message, size_t message_len);
extern "C" long actbench_emulator_parameters(const char* name, size_t* sizes, size_t capacity);

namespace fake_driver {
namespace {

constexpr int MAX_DYNAMIC_SHARED = 8;  // a function's attribute

struct Module {
  bool has_all_kernels;  // FAKE_DRIVER_CUBIN of the tests instead of machine code
  std::set<std::string> kernels;
};

std::map<std::pair<const Module*, std::string>, std::unique_ptr<Function>> functions;

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

}  // namespace

int read_launch(Launch* out, void* function, const unsigned grid[3], const unsigned threads[3], unsigned shared_bytes,
                void** parameters) {
  const Function& launched = *static_cast<Function*>(function);
  if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0 || grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535 ||
      threads[0] == 0 || threads[0] > 1024 || threads[1] != 1 || threads[2] != 1 ||
      shared_bytes > launched.shared_bytes) {
    return INVALID_VALUE;
  }
  *out = {launched, {grid[0], grid[1], grid[2]}, threads[0], shared_bytes, {}};
  for (size_t i = 0; i < launched.parameters.size(); i++) {
    Value value = {};
    std::memcpy(value.bytes, parameters[i], launched.parameters[i]);
    out->values.push_back(value);
  }
  return SUCCESS;
}

void execute(Launch launch) {
  if (context_error) return;
  counts["executed"]++;
  const Function& function = launch.function;
  std::vector<void*> arguments;
  std::vector<emulator::Memory> memory;
  for (size_t i = 0; i < launch.values.size(); i++) {
    arguments.push_back(&launch.values[i]);
    emulator::Memory given = {};
    // A pointer, or a map that begins with one.
    uint64_t start;
    std::memcpy(&start, launch.values[i].bytes, 8);
    if (function.parameters[i] >= 8) given.bytes = remaining_bytes(start);
    if (given.bytes > 0) given.start = reinterpret_cast<const unsigned char*>(start);
    memory.push_back(given);
  }
  const unsigned block[3] = {launch.threads, 1, 1};
  const emulator::Options options = {2, 2, 1};  // threads and copies in random order
  char message[1024] = "an illegal address, as the setting break requests";
  if (function.name == settings.broken ||
      actbench_emulator_launch(settings.mutant.c_str(), function.name.c_str(), launch.grid, block, launch.shared_bytes,
                               arguments.data(), function.parameters.data(), launch.values.size(), memory.data(),
                               &options, message, sizeof message)) {
    fprintf(stderr, "fake driver: %s\n", message);
    context_error = ILLEGAL_ADDRESS;
  }
}

}  // namespace fake_driver

using namespace fake_driver;

API int cuModuleLoadData(void** module, const void* image) {
  ENTER;
  const auto* bytes = static_cast<const unsigned char*>(image);
  if (std::memcmp(bytes, "\x7f" "ELF", 4) != 0) return INVALID_IMAGE;
  auto loaded = std::make_unique<Module>();
  loaded->has_all_kernels = std::memcmp(bytes, "\x7f" "ELF fake driver", 16) == 0;
  if (!loaded->has_all_kernels && !read_kernels(bytes, &loaded->kernels)) return INVALID_IMAGE;
  *module = loaded.release();
  return SUCCESS;
}
API int cuModuleUnload(void* module) {
  LOCK;
  run_all();
  delete static_cast<Module*>(module);
  return SUCCESS;
}
API int cuModuleGetFunction(void** function, void* module, const char* name) {
  ENTER;
  const Module* searched = static_cast<Module*>(module);
  size_t sizes[64];
  const long n = actbench_emulator_parameters(name, sizes, 64);
  if (n < 0 || (!searched->has_all_kernels && !searched->kernels.count(name))) return NOT_FOUND;
  auto& found = functions[{searched, name}];
  found.reset(new Function{name, std::vector<size_t>(sizes, sizes + n), DEFAULT_MAX_SHARED});
  *function = found.get();
  return SUCCESS;
}
API int cuFuncSetAttribute(void* function, int attribute, int value) {
  ENTER;
  if (attribute != MAX_DYNAMIC_SHARED || value < 0 || value > static_cast<int>(MAX_SHARED)) return INVALID_VALUE;
  static_cast<Function*>(function)->shared_bytes = value;
  return SUCCESS;
}
API int cuFuncGetParamInfo(void* function, size_t index, size_t* offset, size_t* size) {
  ENTER;
  const std::vector<size_t>& sizes = static_cast<Function*>(function)->parameters;
  if (index >= sizes.size()) {
    counts["refused"]++;
    return INVALID_VALUE;
  }
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
API int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
                       unsigned threads_z, unsigned shared_bytes, void* stream, void** parameters, void**) {
  ENTER;
  const unsigned grid[3] = {x, y, z}, block[3] = {threads, threads_y, threads_z};
  Launch launch;
  if (int error = read_launch(&launch, function, grid, block, shared_bytes, parameters)) return error;
  counts["launches"]++;
  work_of(stream).push_back([launch] { execute(launch); });
  return SUCCESS;
}
