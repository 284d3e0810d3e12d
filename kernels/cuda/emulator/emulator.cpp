// The scheduler of the emulated device: fibers, barriers, warp operations, copies and the launch itself.
// See emulator.h for what it promises and what it does not do.
#include "emulator.h"

#include <signal.h>
#include <sys/mman.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#if !defined(__x86_64__)
#error "the CUDA emulator switches fibers in x86-64 assembly: build without the feature `emulator` on this machine"
#endif

// Saves the callee-saved registers on the stack, stores the stack pointer in `*save` and goes on from `load`.
// `swapcontext` would make a system call for the signal mask at each of the millions of switches.
extern "C" void actbench_switch_fiber(void** save, void* load);
asm(R"(
.text
.globl actbench_switch_fiber
.type actbench_switch_fiber,@function
actbench_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size actbench_switch_fiber, .-actbench_switch_fiber
)");

namespace emulator {

alignas(1024) static unsigned char arena_bytes[ARENA_BYTES];
unsigned char* arena = arena_bytes;
Fiber* current;
Dim3 block_index, block_size, grid_size;

namespace {

constexpr size_t STACK_BYTES = 64 << 10;
constexpr size_t PAGE = 4096;
constexpr unsigned char POISON = 0xff;  // a NaN in f32, f16 and bf16
constexpr size_t GUARD = 64;

struct Kernel {
  Thunk thunk;
  std::vector<size_t> argument_sizes;
};

std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> registered;
  return registered;
}

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

Block block;
Options options;
Thunk running;
void** running_arguments;
std::vector<Memory> memory;
void* launcher_stack;
char* stacks;
std::string failure;
bool failed;

uint64_t next_random() {
  block.random_state ^= block.random_state << 13;
  block.random_state ^= block.random_state >> 7;
  block.random_state ^= block.random_state << 17;
  return block.random_state;
}

// The next thread of the warp whose turn it is, or null when all of them have ended.
Fiber* next_of_warp() {
  const unsigned first = block.warp_order[block.warp_turn] * WARP;
  for (unsigned step = 0; step < WARP; step++) {
    block.lane_turn = (block.lane_turn + 1) % WARP;
    const unsigned linear = first + block.lane_order[block.lane_turn];
    if (linear < block.fibers.size() && !block.fibers[linear].done) return &block.fibers[linear];
  }
  return nullptr;
}

void pass_to_next_warp() {
  const auto n_warps = static_cast<unsigned>(block.warps.size());
  const unsigned step = options.order == 2 ? 1 + static_cast<unsigned>(next_random() % n_warps) : 1;
  block.warp_turn = (block.warp_turn + step) % n_warps;
  block.idle_turns_of_warp = 0;
}

void switch_to_next() {
  Fiber* leaving = current;
  if (failed || block.live == 0) {
    current = nullptr;
    actbench_switch_fiber(&leaving->stack_pointer, launcher_stack);
    return;
  }
  Fiber* next = next_of_warp();
  while (!next) {
    pass_to_next_warp();
    next = next_of_warp();
  }
  if (next == leaving) return;
  current = next;
  actbench_switch_fiber(&leaving->stack_pointer, next->stack_pointer);
}

// "96 threads wait at gemm.cu:12, 32 threads wait at shfl".
std::string who_waits_where() {
  std::map<std::string, unsigned> places;
  for (const Fiber& fiber : block.fibers) {
    if (fiber.done) continue;
    std::string place = fiber.waits_at ? fiber.waits_at : "nothing";
    if (fiber.waits_line > 0) place = "barrier " + place + ":" + std::to_string(fiber.waits_line);
    places[place]++;
  }
  std::string text;
  for (const auto& [place, count] : places) {
    text += (text.empty() ? "" : ", ") + std::to_string(count) + " threads wait at " + place;
  }
  return text;
}

// The current thread cannot go on: lets the others run, or ends the launch when nobody can. A warp keeps the turn until
// all its threads wait, so that warps are as far apart as barriers allow; in random order it may lose it at any time.
void wait_turn() {
  if (block.progress != block.seen_progress) {
    block.seen_progress = block.progress;
    block.idle_turns = 0;
    block.idle_turns_of_warp = 0;
  } else {
    block.idle_turns++;
    block.idle_turns_of_warp++;
  }
  // Every warp has had a turn of all its threads twice, in random order with a chance of one in millions to be left out.
  const uint64_t turns = options.order == 2 ? 64 : 4;
  if (block.idle_turns > turns * WARP * (block.warps.size() + 1)) {
    const std::string who = who_waits_where();
    const auto ended = static_cast<unsigned>(block.fibers.size()) - block.live;
    fail("deadlock: %s; %u threads have ended", who.c_str(), ended);
  }
  if (block.idle_turns_of_warp > WARP || (options.order == 2 && next_random() % 64 == 0)) pass_to_next_warp();
  switch_to_next();
}

const char* base_name(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash ? slash + 1 : path;
}

void run_copy(const Copy& copy) {
  std::memcpy(copy.to, copy.from, copy.bytes);
  std::memset(static_cast<unsigned char*>(copy.to) + copy.bytes, 0, 16 - copy.bytes);
}

void fiber_main() {
  running(running_arguments);
  if (!current->copies.pending.empty()) {
    fail("thread %u ended with %zu asynchronous copies it did not wait for", current->linear,
         current->copies.pending.size());
  }
  current->done = true;
  block.live--;
  block.progress++;
  switch_to_next();
  std::abort();
}

bool allocate_stacks() {
  if (stacks) return true;
  void* memory = mmap(nullptr, MAX_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return false;
  stacks = static_cast<char*>(memory);
  // The lowest page of each stack is out of bounds, so that an overflow is a fault and not another thread's values.
  for (unsigned i = 0; i < MAX_THREADS; i++) mprotect(stacks + i * STACK_BYTES, PAGE, PROT_NONE);
  return true;
}

void prepare_fiber(unsigned linear) {
  Fiber& fiber = block.fibers[linear];
  fiber.thread = {linear % block_size.x, linear / block_size.x % block_size.y, linear / (block_size.x * block_size.y)};
  fiber.linear = linear;
  fiber.lane = linear % WARP;
  fiber.warp = &block.warps[linear / WARP];
  fiber.done = false;
  fiber.waits_at = nullptr;
  fiber.waits_line = 0;
  fiber.copies.pending.clear();
  fiber.copies.group_ends.clear();
  // As if `actbench_switch_fiber` had been called by nobody: six saved registers, then the address it returns to. The
  // empty word above makes the stack pointer 8 short of a multiple of 16, which the calling convention asks for.
  auto top = reinterpret_cast<void**>(stacks + (linear + 1) * STACK_BYTES);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&fiber_main);
  for (int saved = 0; saved < 6; saved++) *--top = nullptr;
  fiber.stack_pointer = top;
}

void order_threads() {
  const auto n_warps = static_cast<unsigned>(block.warps.size());
  for (unsigned i = 0; i < n_warps; i++) block.warp_order[i] = options.order == 1 ? n_warps - 1 - i : i;
  for (unsigned i = 0; i < WARP; i++) block.lane_order[i] = options.order == 1 ? WARP - 1 - i : i;
  if (options.order == 2) {
    for (unsigned i = n_warps; i > 1; i--) std::swap(block.warp_order[i - 1], block.warp_order[next_random() % i]);
    for (unsigned i = WARP; i > 1; i--) std::swap(block.lane_order[i - 1], block.lane_order[next_random() % i]);
  }
  block.warp_turn = 0;
  block.lane_turn = WARP - 1;
}

void start_block(unsigned n_threads, size_t dynamic_bytes) {
  std::memset(arena, POISON, ARENA_BYTES);
  block.statics.clear();
  block.dynamic_bytes = dynamic_bytes;
  block.shared_end = (dynamic_bytes + GUARD + 127) / 128 * 128;
  block.barrier_arrived = 0;
  block.barrier_generation = 0;
  block.idle_turns = 0;
  block.idle_turns_of_warp = 0;
  block.seen_progress = block.progress;
  block.live = n_threads;
  block.random_state = (options.seed + 1) * 0x9e3779b97f4a7c15ull + block_index.x + 131ull * block_index.y + 1;
  for (unsigned warp = 0; warp < block.warps.size(); warp++) {
    block.warps[warp].lanes = n_threads - warp * WARP < WARP ? n_threads - warp * WARP : WARP;
    block.warps[warp].rendezvous.arrived = 0;
    block.warps[warp].rendezvous.generation = 0;
  }
  for (unsigned i = 0; i < n_threads; i++) prepare_fiber(i);
  order_threads();
}

bool untouched(size_t from, size_t to) {
  for (size_t i = from; i < to; i++) {
    if (arena[i] != POISON) return false;
  }
  return true;
}

void check_guards() {
  const size_t first_static = block.statics.empty() ? block.shared_end : block.statics[0].offset;
  if (!untouched(block.dynamic_bytes, first_static)) {
    failure = "wrote behind its " + std::to_string(block.dynamic_bytes) + " bytes of dynamic shared memory";
    failed = true;
  }
  for (const StaticArray& array : block.statics) {
    const size_t end = array.offset + array.bytes;
    if (!untouched(end, end + GUARD)) {
      failure = "wrote behind a static shared array of " + std::to_string(array.bytes) + " bytes";
      failed = true;
    }
  }
}

}  // namespace

Registration::Registration(const char* prefix, const char* name, Thunk thunk, std::vector<size_t> argument_sizes) {
  kernels()[std::string(prefix) + name] = {thunk, std::move(argument_sizes)};
}

void fail(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  failure = text;
  failed = true;
  switch_to_next();
  std::abort();
}

void barrier(const char* file, int line) {
  if (block.barrier_arrived == 0) {
    block.barrier_file = base_name(file);
    block.barrier_line = line;
  } else if (block.barrier_line != line) {
    fail("thread %u is at the barrier %s:%d while others are at %s:%d", current->linear, base_name(file), line,
         block.barrier_file, block.barrier_line);
  }
  const unsigned generation = block.barrier_generation;
  block.barrier_arrived++;
  block.progress++;
  current->waits_at = base_name(file);
  current->waits_line = line;
  while (block.barrier_generation == generation) {
    // As on a device, threads that have ended are not waited for.
    if (block.barrier_arrived == block.live) {
      block.barrier_arrived = 0;
      block.barrier_generation++;
      block.progress++;
      break;
    }
    wait_turn();
  }
  current->waits_at = nullptr;
  current->waits_line = 0;
}

void* static_shared(const void* site, size_t bytes, size_t alignment) {
  for (const StaticArray& array : block.statics) {
    if (array.site == site) return arena + array.offset;
  }
  const size_t offset = (block.shared_end + alignment - 1) / alignment * alignment;
  if (offset + bytes + GUARD > ARENA_BYTES) fail("more shared memory than %zu bytes", SHARED_BYTES);
  block.statics.push_back({site, offset, bytes});
  block.shared_end = offset + bytes + GUARD;
  return arena + offset;
}

unsigned shared_offset(const void* pointer, size_t bytes) {
  const auto* byte = static_cast<const unsigned char*>(pointer);
  if (byte < arena || byte + bytes > arena + block.shared_end) fail("an address is not in shared memory");
  return static_cast<unsigned>(byte - arena);
}

void issue_copy(void* to, const void* from, unsigned bytes) {
  const auto address = reinterpret_cast<uintptr_t>(from);
  if (shared_offset(to, 16) % 16 != 0 || address % 16 != 0) {
    fail("thread %u copies asynchronously between addresses that are not multiples of 16", current->linear);
  }
  if (bytes > 16) fail("thread %u copies %u of 16 bytes asynchronously", current->linear, bytes);
  bool inside = bytes == 0;
  for (const Memory& given : memory) {
    const auto start = reinterpret_cast<uintptr_t>(given.start);
    inside = inside || (address >= start && address + bytes <= start + given.bytes);
  }
  if (!inside) fail("thread %u copies asynchronously from beyond its memory", current->linear);
  const Copy copy = {to, from, bytes};
  if (options.copies == 0 || (options.copies == 2 && next_random() % 2 == 0)) {
    run_copy(copy);
  } else {
    current->copies.pending.push_back(copy);
  }
}

void commit_copies() { current->copies.group_ends.push_back(current->copies.pending.size()); }

void wait_copies(int groups_left) {
  CopyQueue& queue = current->copies;
  if (queue.group_ends.size() <= static_cast<size_t>(groups_left)) return;
  const size_t n_groups = queue.group_ends.size() - static_cast<size_t>(groups_left);
  const size_t n_copies = queue.group_ends[n_groups - 1];
  for (size_t i = 0; i < n_copies; i++) run_copy(queue.pending[i]);
  queue.pending.erase(queue.pending.begin(), queue.pending.begin() + static_cast<long>(n_copies));
  queue.group_ends.erase(queue.group_ends.begin(), queue.group_ends.begin() + static_cast<long>(n_groups));
  for (size_t& end : queue.group_ends) end -= n_copies;
}

Rendezvous& arrive(const char* operation, unsigned mask, unsigned* parity, bool* last) {
  Rendezvous& meeting = current->warp->rendezvous;
  const unsigned lanes = current->warp->lanes;
  if (mask != 0xffffffffu || lanes != WARP) fail("%s by some lanes of a warp is not supported", operation);
  if (meeting.arrived == 0) {
    meeting.operation = operation;
  } else if (std::strcmp(meeting.operation, operation) != 0) {
    fail("thread %u is at %s while other lanes of its warp are at %s", current->linear, operation, meeting.operation);
  }
  *parity = meeting.generation & 1;
  *last = ++meeting.arrived == lanes;
  block.progress++;
  return meeting;
}

void complete(Rendezvous& meeting) {
  meeting.arrived = 0;
  meeting.generation++;
  block.progress++;
}

void await(Rendezvous& meeting, unsigned parity) {
  current->waits_at = meeting.operation;
  while ((meeting.generation & 1) == parity) wait_turn();
  current->waits_at = nullptr;
}

}  // namespace emulator

namespace emulator {
namespace {

// Device memory starts in a first page and ends, but for less than 16 bytes, where a page begins that cannot be touched.
size_t device_pages(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }
size_t device_bytes(size_t bytes) { return (bytes + 15) / 16 * 16; }

// A fault in the page behind one of the launch's memories ends the launch with a message; any other is not ours.
struct sigaction old_fault_action;

void on_fault(int, siginfo_t* fault, void*) {
  const auto address = reinterpret_cast<uintptr_t>(fault->si_addr);
  for (size_t i = 0; current && i < memory.size(); i++) {
    if (!memory[i].start) continue;
    const uintptr_t end = reinterpret_cast<uintptr_t>(memory[i].start) + device_bytes(memory[i].bytes);
    if (address >= end && address < end + PAGE) {
      // Leaves the handler for good, which SA_NODEFER allows.
      fail("thread %u reaches beyond the end of argument %zu", current->linear, i);
    }
  }
  // Coming back to the same instruction, the fault is met by whoever handled it before.
  sigaction(SIGSEGV, &old_fault_action, nullptr);
}

// Runs the blocks one after another, up to the first that fails.
void run_blocks(unsigned n_threads, size_t dynamic_bytes) {
  for (unsigned z = 0; z < grid_size.z; z++) {
    for (unsigned y = 0; y < grid_size.y; y++) {
      for (unsigned x = 0; x < grid_size.x; x++) {
        block_index = {x, y, z};
        start_block(n_threads, dynamic_bytes);
        current = next_of_warp();
        while (!current) {
          pass_to_next_warp();
          current = next_of_warp();
        }
        actbench_switch_fiber(&launcher_stack, current->stack_pointer);
        if (!failed) check_guards();
        if (failed) return;
      }
    }
  }
}

}  // namespace
}  // namespace emulator

// Device memory of NaN bytes, or null. It is given back with `actbench_emulator_free` and the same size.
extern "C" unsigned char* actbench_emulator_alloc(size_t bytes) {
  using namespace emulator;
  if (bytes > SIZE_MAX / 4) return nullptr;
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
  const size_t pages = device_pages(device_bytes(bytes));
  munmap(start + device_bytes(bytes) - pages, pages + PAGE);
}

// As `cuLaunchKernel`, with the sizes of the arguments beside them. Where a kernel `prefix` + `name` exists, it is run in
// the place of `name`. 0 when all blocks ran; else 1 and a message.
extern "C" int actbench_emulator_launch(const char* prefix, const char* name, const unsigned grid[3], const unsigned threads[3],
                                        unsigned shared_bytes, void** arguments, const size_t* argument_sizes,
                                        size_t n_arguments, const emulator::Memory* given, const emulator::Options* launch_options,
                                        char* message, size_t message_len) {
  using namespace emulator;
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
  const std::vector<size_t> sizes(argument_sizes, argument_sizes + n_arguments);
  if (sizes != found->second.argument_sizes) {
    snprintf(message, message_len, "%s was given %zu arguments of other sizes than its %zu parameters", name,
             n_arguments, found->second.argument_sizes.size());
    return 1;
  }
  if (!allocate_stacks()) {
    snprintf(message, message_len, "no memory for the stacks of %u threads", MAX_THREADS);
    return 1;
  }
  options = *launch_options;
  memory.assign(given, given + n_arguments);
  running = found->second.thunk;
  running_arguments = arguments;
  grid_size = {grid[0], grid[1], grid[2]};
  block_size = {threads[0], threads[1], threads[2]};
  failed = false;
  const auto n_threads = static_cast<unsigned>(n);
  block.fibers.resize(n_threads);
  block.warps.resize((n_threads + WARP - 1) / WARP);
  block.warp_order.resize(block.warps.size());
  struct sigaction fault_action = {};
  fault_action.sa_sigaction = on_fault;
  fault_action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &fault_action, &old_fault_action);
  run_blocks(n_threads, shared_bytes);
  sigaction(SIGSEGV, &old_fault_action, nullptr);
  if (failed) {
    snprintf(message, message_len, "%s, block (%u,%u,%u): %s", name, block_index.x, block_index.y, block_index.z,
             failure.c_str());
    return 1;
  }
  return 0;
}
