// The scheduler of the emulated device: fibers that take turns, barriers and operations of a warp.
#include "internals.h"

#include <sys/mman.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>

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

Fiber* current;
Dim3 block_index, block_size, grid_size;
Block block;
Options options;
std::string failure;
bool failed;

uint64_t next_random() {
  block.random_state ^= block.random_state << 13;
  block.random_state ^= block.random_state >> 7;
  block.random_state ^= block.random_state << 17;
  return block.random_state;
}

namespace {

constexpr size_t STACK_BYTES = 64 << 10;

Thunk running;
void** running_arguments;
void* launcher_stack;
char* stacks;

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

// All threads have found, since the last progress, that they have to wait.
bool nobody_can_go_on() {
  if (block.waiting_since != block.progress) {
    block.waiting_since = block.progress;
    block.waiting = 0;
    block.idle_turns_of_warp = 0;
  }
  if (current->waits_since != block.progress) {
    current->waits_since = block.progress;
    block.waiting++;
  }
  return block.waiting == block.live;
}

// The current thread cannot go on: lets the others run, or ends the launch when nobody can. A warp keeps the turn until
// all its threads wait, so that warps are as far apart as barriers allow; in random order it may lose it at any time.
void wait_turn() {
  block.idle_turns_of_warp++;
  if (nobody_can_go_on() && !run_a_tile_copy()) {
    const std::string who = who_waits_where();
    const auto ended = static_cast<unsigned>(block.fibers.size()) - block.live;
    fail("deadlock: %s; %u threads have ended", who.c_str(), ended);
  }
  if (options.copies == 2 && next_random() % 256 == 0) run_a_tile_copy();
  if (block.idle_turns_of_warp > WARP || (options.order == 2 && next_random() % 64 == 0)) pass_to_next_warp();
  switch_to_next();
}

const char* base_name(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash ? slash + 1 : path;
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

void prepare_fiber(unsigned linear) {
  Fiber& fiber = block.fibers[linear];
  fiber.thread = {linear % block_size.x, linear / block_size.x % block_size.y, linear / (block_size.x * block_size.y)};
  fiber.linear = linear;
  fiber.lane = linear % WARP;
  fiber.warp = &block.warps[linear / WARP];
  fiber.done = false;
  fiber.waits_since = ~0ull;
  fiber.waits_at = nullptr;
  fiber.waits_line = 0;
  fiber.copies.pending.clear();
  fiber.copies.group_ends.clear();
  allow_stack(stacks + linear * STACK_BYTES + PAGE, STACK_BYTES - PAGE);
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
  start_shared_memory(dynamic_bytes);
  block.barrier_arrived = 0;
  block.barrier_generation = 0;
  block.idle_turns_of_warp = 0;
  block.waiting_since = block.progress;
  block.waiting = 0;
  block.live = n_threads;
  block.random_state = (options.seed + 1) * 0x9e3779b97f4a7c15ull + block_index.x + 131ull * block_index.y + 1;
  for (unsigned warp = 0; warp < block.warps.size(); warp++) {
    block.warps[warp].lanes = n_threads - warp * WARP < WARP ? n_threads - warp * WARP : WARP;
    block.warps[warp].rendezvous.arrived = 0;
    block.warps[warp].rendezvous.generation = 0;
  }
  start_asynchronous(n_threads);
  for (unsigned i = 0; i < n_threads; i++) prepare_fiber(i);
  order_threads();
}

}  // namespace

bool allocate_stacks() {
  if (stacks) return true;
  void* mapped = mmap(nullptr, MAX_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return false;
  stacks = static_cast<char*>(mapped);
  // The lowest page of each stack is out of bounds, so that an overflow is a fault and not another thread's values.
  for (unsigned i = 0; i < MAX_THREADS; i++) mprotect(stacks + i * STACK_BYTES, PAGE, PROT_NONE);
  return true;
}

void run_blocks(unsigned n_threads, size_t dynamic_bytes, Thunk kernel, void** arguments) {
  running = kernel;
  running_arguments = arguments;
  block.fibers.resize(n_threads);
  block.warps.resize((n_threads + WARP - 1) / WARP);
  block.warp_order.resize(block.warps.size());
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
        if (!failed) check_asynchronous();
        if (!failed) check_guards();
        if (failed) return;
      }
    }
  }
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

void await_progress(const char* what) {
  current->waits_at = what;
  wait_turn();
  current->waits_at = nullptr;
}

void await(Rendezvous& meeting, unsigned parity) {
  current->waits_at = meeting.operation;
  while ((meeting.generation & 1) == parity) wait_turn();
  current->waits_at = nullptr;
}

}  // namespace emulator
