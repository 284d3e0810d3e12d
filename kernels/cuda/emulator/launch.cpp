// Kernels by name, and the launch of one.
#include <cstdio>
#include <map>

#include "internals.h"

// Defined with the kernels: the reference makes the linker include them and their registrations.
extern "C" const int actbench_emulated_kernels;

namespace emulator {
namespace {

struct Kernel {
  Thunk thunk;
  std::vector<size_t> argument_sizes;
};

std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> registered;
  return registered;
}

// The cluster sizes of the kernels that have one.
std::map<std::string, unsigned>& cluster_sizes() {
  static std::map<std::string, unsigned> registered;
  return registered;
}

}  // namespace

Registration::Registration(const char* prefix, const char* name, Thunk thunk, std::vector<size_t> argument_sizes) {
  kernels()[std::string(prefix) + name] = {thunk, std::move(argument_sizes)};
}

ClusterRegistration::ClusterRegistration(const char* prefix, const char* name, unsigned blocks) {
  cluster_sizes()[std::string(prefix) + name] = blocks;
}

}  // namespace emulator

// Like `cuLaunchKernel`, with the sizes of the arguments. Runs the kernel `prefix` + `name` if it exists, otherwise `name`.
// Returns 0 when all blocks ran, otherwise 1 and a message.
extern "C" int actbench_emulator_launch(const char* prefix, const char* name, const unsigned grid[3],
                                        const unsigned threads[3], unsigned shared_bytes, void** arguments,
                                        const size_t* argument_sizes, size_t n_arguments, const emulator::Memory* given,
                                        const emulator::Options* launch_options, char* message, size_t message_len) {
  using namespace emulator;
  if (!actbench_emulated_kernels) return 1;
  auto found = kernels().find(std::string(prefix) + name);
  if (found == kernels().end()) found = kernels().find(name);
  if (found == kernels().end()) {
    snprintf(message, message_len, "there is no kernel %s", name);
    return 1;
  }
  const unsigned long long n = 1ull * threads[0] * threads[1] * threads[2];
  if (n == 0 || n > MAX_THREADS || shared_bytes > SHARED_BYTES || grid[0] == 0 || grid[1] == 0 || grid[2] == 0 ||
      grid[1] > 65535 || grid[2] > 65535) {
    snprintf(message, message_len, "%s cannot be launched on %u x %u x %u blocks of %llu threads with %u bytes", name,
             grid[0], grid[1], grid[2], n, shared_bytes);
    return 1;
  }
  const auto sized = cluster_sizes().find(found->first);
  const unsigned n_blocks = sized == cluster_sizes().end() ? 1 : sized->second;
  if (n_blocks == 0 || n_blocks > MAX_CLUSTER_BLOCKS || n * n_blocks > MAX_CLUSTER_THREADS || grid[0] % n_blocks != 0) {
    snprintf(message, message_len, "%s cannot be launched on %u x %u x %u blocks in clusters of %u x %llu threads",
             name, grid[0], grid[1], grid[2], n_blocks, n);
    return 1;
  }
  const std::vector<size_t> sizes(argument_sizes, argument_sizes + n_arguments);
  if (sizes != found->second.argument_sizes) {
    snprintf(message, message_len, "%s was given %zu arguments of other sizes than its %zu parameters", name,
             n_arguments, found->second.argument_sizes.size());
    return 1;
  }
  if (!allocate_stacks()) {
    snprintf(message, message_len, "no memory for the stacks of %u threads", MAX_CLUSTER_THREADS);
    return 1;
  }
  options = *launch_options;
  memory.assign(given, given + n_arguments);
  grid_size = {grid[0], grid[1], grid[2]};
  block_size = {threads[0], threads[1], threads[2]};
  failed = false;
  install_fault_handler();
  run_clusters(n_blocks, static_cast<unsigned>(n), shared_bytes, found->second.thunk, arguments);
  reset_arenas();
  if (failed) {
    snprintf(message, message_len, "%s, block (%u,%u,%u): %s", name, failed_block.x, failed_block.y, failed_block.z,
             failure.c_str());
    return 1;
  }
  return 0;
}

// How many parameters the kernel `name` has, and the bytes of the first `capacity` of them. -1 if there is none.
extern "C" long actbench_emulator_parameters(const char* name, size_t* sizes, size_t capacity) {
  if (!actbench_emulated_kernels) return -1;
  const auto found = emulator::kernels().find(name);
  if (found == emulator::kernels().end()) return -1;
  const std::vector<size_t>& all = found->second.argument_sizes;
  for (size_t i = 0; i < all.size() && i < capacity; i++) sizes[i] = all[i];
  return static_cast<long>(all.size());
}
