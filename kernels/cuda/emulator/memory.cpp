// The memory of the emulated device: shared arrays and their guards, asynchronous copies, and global memory with an
// inaccessible page at its end.
#include <signal.h>
#include <sys/mman.h>

#include <mutex>

#include "internals.h"

// A build with AddressSanitizer marks the memory that a kernel may access; the sanitizer reports the line of the kernel.
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>

#include <cstdlib>
#define POISON_MEMORY(start, bytes) __asan_poison_memory_region(start, bytes)
#define UNPOISON_MEMORY(start, bytes) __asan_unpoison_memory_region(start, bytes)
#else
#define POISON_MEMORY(start, bytes) ((void)(start), (void)(bytes))
#define UNPOISON_MEMORY(start, bytes) ((void)(start), (void)(bytes))
#endif

namespace emulator {

std::vector<Memory> memory;

namespace {

// The shared memory of a block of a cluster.
struct Arena {
  alignas(1024) unsigned char bytes[DYNAMIC_OFFSET + ARENA_BYTES];  // addresses count from here
  size_t unused_bytes;  // poisoned bytes at its end; 0 before the first block
};
Arena arenas[MAX_CLUSTER_BLOCKS];

bool untouched(const Block& block, size_t from, size_t to) {
  for (size_t i = from; i < to; i++) {
    if (block.arena[i] != POISON) return false;
  }
  return true;
}

void run_copy(const Copy& copy) {
  std::memcpy(copy.to, copy.from, copy.bytes);
  std::memset(static_cast<unsigned char*>(copy.to) + copy.bytes, 0, 16 - copy.bytes);
  record_write(shared_address(copy.to, 16));
}

// Device memory ends less than 16 bytes before an inaccessible page.
size_t device_pages(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }
size_t device_bytes(size_t bytes) { return (bytes + 15) / 16 * 16; }

// A fault in the page after the memory of an argument fails the launch with a message; other faults are passed on.
struct sigaction old_fault_action;

void on_fault(int signal, siginfo_t* fault, void* context) {
  const auto address = reinterpret_cast<uintptr_t>(fault->si_addr);
  for (size_t i = 0; current && i < memory.size(); i++) {
    if (!memory[i].start) continue;
    const uintptr_t end = reinterpret_cast<uintptr_t>(memory[i].start) + device_bytes(memory[i].bytes);
    if (address >= end && address < end + PAGE) {
      // Does not return from the handler, which SA_NODEFER allows.
      fail("thread %u reaches beyond the end of argument %zu", current->linear, i);
    }
  }
  if (old_fault_action.sa_flags & SA_SIGINFO) {
    old_fault_action.sa_sigaction(signal, fault, context);
  } else if (old_fault_action.sa_handler != SIG_DFL && old_fault_action.sa_handler != SIG_IGN) {
    old_fault_action.sa_handler(signal);
  } else {
    // The instruction runs again, and its fault ends the process.
    sigaction(SIGSEGV, &old_fault_action, nullptr);
  }
}

}  // namespace

void start_shared_memory(Block& block, size_t dynamic_bytes) {
  Arena& arena = arenas[block.rank];
  block.arena = arena.bytes + DYNAMIC_OFFSET;
  UNPOISON_MEMORY(block.arena, ARENA_BYTES);
  std::memset(block.arena, POISON, ARENA_BYTES - arena.unused_bytes);
  POISON_MEMORY(block.arena + dynamic_bytes, ARENA_BYTES - dynamic_bytes);
  block.statics.clear();
  block.dynamic_bytes = dynamic_bytes;
  block.shared_end = (dynamic_bytes + GUARD + 127) / 128 * 128;
  arena.unused_bytes = ARENA_BYTES - block.shared_end;
}

void check_guards(const Block& block) {
  UNPOISON_MEMORY(block.arena, ARENA_BYTES);
  const size_t first_static = block.statics.empty() ? block.shared_end : block.statics[0].offset;
  if (!untouched(block, block.dynamic_bytes, first_static)) {
    record_failure(block,
                   "wrote behind its " + std::to_string(block.dynamic_bytes) + " bytes of dynamic shared memory");
  }
  for (const StaticArray& array : block.statics) {
    const size_t end = array.offset + array.bytes;
    if (!untouched(block, end, end + GUARD)) {
      record_failure(block, "wrote behind a static shared array of " + std::to_string(array.bytes) + " bytes");
    }
  }
}

// Installed once and not for each launch: an executable and the driver that it loads may have an emulator each. If their
// launches overlapped, each would restore the other's handler as its predecessor, and a fault would loop for ever.
void install_fault_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, &old_fault_action);
  });
}

void reset_arenas() {
  // A kernel that broke a rule may have written anywhere.
  if (!failed) return;
  for (Arena& arena : arenas) arena.unused_bytes = 0;
}

void* static_shared(const void* site, size_t bytes, size_t alignment) {
  Block& block = *current->block;
  for (const StaticArray& array : block.statics) {
    if (array.site == site) return block.arena + array.offset;
  }
  const size_t offset = (block.shared_end + alignment - 1) / alignment * alignment;
  if (offset + bytes + GUARD > ARENA_BYTES) fail("more shared memory than %zu bytes", SHARED_BYTES);
  block.statics.push_back({site, offset, bytes});
  block.shared_end = offset + bytes + GUARD;
  arenas[block.rank].unused_bytes = ARENA_BYTES - block.shared_end;
  UNPOISON_MEMORY(block.arena + offset, bytes);
  return block.arena + offset;
}

unsigned shared_address(const void* pointer, size_t bytes) {
  const auto* byte = static_cast<const unsigned char*>(pointer);
  const Block& block = *current->block;
  if (byte < block.arena || byte + bytes > block.arena + block.shared_end) fail("an address is not in shared memory");
  return DYNAMIC_OFFSET + static_cast<unsigned>(byte - block.arena);
}

unsigned char* at_shared_address(const Block& block, unsigned address, size_t bytes) {
  if (address < DYNAMIC_OFFSET || address + bytes > DYNAMIC_OFFSET + block.shared_end) {
    fail("%zu bytes at the address %u are not in shared memory", bytes, address);
  }
  return block.arena + (address - DYNAMIC_OFFSET);
}

void check_readable(const void* from, size_t bytes, const char* operation) {
  const auto address = reinterpret_cast<uintptr_t>(from);
  bool inside = bytes == 0;
  for (const Memory& given : memory) {
    const auto start = reinterpret_cast<uintptr_t>(given.start);
    inside = inside || (address >= start && address + bytes <= start + given.bytes);
  }
  if (!inside) fail("thread %u copies %s from beyond its memory", current->linear, operation);
}

void issue_cp_async(void* to, const void* from, unsigned bytes) {
  const auto address = reinterpret_cast<uintptr_t>(from);
  if (shared_address(to, 16) % 16 != 0 || address % 16 != 0) {
    fail("thread %u copies asynchronously between addresses that are not multiples of 16", current->linear);
  }
  if (bytes > 16) fail("thread %u copies %u of 16 bytes asynchronously", current->linear, bytes);
  check_readable(from, bytes, "asynchronously");
  const Copy copy = {to, from, bytes};
  if (options.copies == 0 || (options.copies == 2 && next_random() % 2 == 0)) {
    run_copy(copy);
  } else {
    current->copies.pending.push_back(copy);
  }
}

void cp_async_commit_group() { current->copies.group_ends.push_back(current->copies.pending.size()); }

void cp_async_wait_group(int groups_left) {
  CopyQueue& queue = current->copies;
  if (queue.group_ends.size() <= static_cast<size_t>(groups_left)) return;
  const size_t n_groups = queue.group_ends.size() - static_cast<size_t>(groups_left);
  const size_t n_copies = queue.group_ends[n_groups - 1];
  for (size_t i = 0; i < n_copies; i++) run_copy(queue.pending[i]);
  queue.pending.erase(queue.pending.begin(), queue.pending.begin() + static_cast<long>(n_copies));
  queue.group_ends.erase(queue.group_ends.begin(), queue.group_ends.begin() + static_cast<long>(n_groups));
  for (size_t& end : queue.group_ends) end -= n_copies;
}

}  // namespace emulator

void emulator::unpoison_stack(void* start, size_t bytes) { UNPOISON_MEMORY(start, bytes); }

// Device memory of NaN bytes, or null. Free it with `actbench_emulator_free` and the same size.
extern "C" unsigned char* actbench_emulator_alloc(size_t bytes) {
  using namespace emulator;
  if (bytes > SIZE_MAX / 4) return nullptr;
#if defined(__SANITIZE_ADDRESS__)
  auto* sanitized = static_cast<unsigned char*>(std::malloc(device_bytes(bytes) + 1));
  if (!sanitized) return nullptr;
  std::memset(sanitized, POISON, device_bytes(bytes) + 1);
  POISON_MEMORY(sanitized + bytes, device_bytes(bytes) + 1 - bytes);
  return sanitized;
#endif
  const size_t pages = device_pages(device_bytes(bytes));
  void* mapped = mmap(nullptr, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* start = static_cast<unsigned char*>(mapped);
  std::memset(start, POISON, pages);
  if (mprotect(start + pages, PAGE, PROT_NONE) != 0) {
    munmap(mapped, pages + PAGE);
    return nullptr;
  }
  return start + pages - device_bytes(bytes);
}

extern "C" void actbench_emulator_free(unsigned char* start, size_t bytes) {
  using namespace emulator;
#if defined(__SANITIZE_ADDRESS__)
  std::free(start);
  return;
#endif
  const size_t pages = device_pages(device_bytes(bytes));
  munmap(start + device_bytes(bytes) - pages, pages + PAGE);
}
