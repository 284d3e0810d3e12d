// The scheduler of the emulated device: fibers that take turns, barriers and operations of a warp.
#include "internals.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>

#if !defined(__x86_64__)
#error "the CUDA emulator switches fibers in x86-64 assembly: build without the feature `emulator` on this machine"
#endif

// Saves the callee-saved registers on the stack, stores the stack pointer in `*save` and continues from `load`.
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
Dim3 block_size, grid_size;
Cluster cluster;
Options options;
std::string failure;
Dim3 failed_block;
bool failed;

uint64_t next_random() {
  cluster.random_state ^= cluster.random_state << 13;
  cluster.random_state ^= cluster.random_state >> 7;
  cluster.random_state ^= cluster.random_state << 17;
  return cluster.random_state;
}

namespace {

constexpr size_t STACK_BYTES = 64 << 10;

Thunk running;
void** running_arguments;
void* launcher_stack;
char* stacks;

// The next thread of the warp whose turn it is, or null when all of them have ended.
Fiber* next_of_warp() {
  const Warp& warp = *cluster.warp_order[cluster.warp_turn];
  for (unsigned step = 0; step < WARP; step++) {
    cluster.lane_turn = (cluster.lane_turn + 1) % WARP;
    const unsigned lane = cluster.lane_order[cluster.lane_turn];
    if (lane < warp.lanes && !warp.first[lane].done) return &warp.first[lane];
  }
  return nullptr;
}

void pass_to_next_warp() {
  const auto n_warps = static_cast<unsigned>(cluster.warp_order.size());
  const unsigned step = options.order == 2 ? 1 + static_cast<unsigned>(next_random() % n_warps) : 1;
  cluster.warp_turn = (cluster.warp_turn + step) % n_warps;
  cluster.idle_turns_of_warp = 0;
}

void switch_to_next() {
  Fiber* leaving = current;
  if (failed || cluster.live == 0) {
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
std::string waiting_threads() {
  std::map<std::string, unsigned> places;
  for (const Block& block : cluster.blocks) {
    for (const Fiber& fiber : block.fibers) {
      if (fiber.done) continue;
      std::string place = fiber.waits_at ? fiber.waits_at : "nothing";
      if (fiber.waits_line > 0) {
        place = (fiber.waits_for_cluster ? "the cluster's barrier " : "barrier ") + place + ":" +
                std::to_string(fiber.waits_line);
      }
      places[place]++;
    }
  }
  std::string text;
  for (const auto& [place, count] : places) {
    text += (text.empty() ? "" : ", ") + std::to_string(count) + " threads wait at " + place;
  }
  return text;
}

// Whether all threads have had to wait since the last progress.
bool all_threads_wait() {
  if (cluster.waiting_since != cluster.progress) {
    cluster.waiting_since = cluster.progress;
    cluster.waiting = 0;
    cluster.idle_turns_of_warp = 0;
  }
  if (current->waits_since != cluster.progress) {
    current->waits_since = cluster.progress;
    cluster.waiting++;
  }
  return cluster.waiting == cluster.live;
}

// The current thread has to wait: lets the others run, or fails the launch on a deadlock. A warp keeps its turn until all
// its threads wait, so that warps are as far apart as barriers allow; in random order it may lose it at any time.
void yield_turn() {
  cluster.idle_turns_of_warp++;
  if (all_threads_wait() && !perform_one()) {
    const std::string threads = waiting_threads();
    const auto n_threads = cluster.blocks.size() * cluster.blocks[0].fibers.size();
    const auto ended = static_cast<unsigned>(n_threads) - cluster.live;
    fail("deadlock: %s; %u threads have ended", threads.c_str(), ended);
  }
  if (options.copies == 2 && next_random() % 256 == 0) perform_one();
  if (cluster.idle_turns_of_warp > WARP || (options.order == 2 && next_random() % 64 == 0)) pass_to_next_warp();
  switch_to_next();
}

const char* base_name(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash ? slash + 1 : path;
}

// Waits until all `live` threads have arrived. As on a device, threads that have ended are not waited for.
void wait_at_barrier(ThreadBarrier& barrier, const unsigned& live, const char* file, int line) {
  if (barrier.arrived == 0) {
    barrier.file = base_name(file);
    barrier.line = line;
  } else if (barrier.line != line) {
    fail("thread %u is at the barrier %s:%d while others are at %s:%d", current->linear, base_name(file), line,
         barrier.file, barrier.line);
  }
  const unsigned generation = barrier.generation;
  barrier.arrived++;
  cluster.progress++;
  current->waits_at = base_name(file);
  current->waits_line = line;
  while (barrier.generation == generation) {
    if (barrier.arrived == live) {
      barrier.arrived = 0;
      barrier.generation++;
      cluster.progress++;
      break;
    }
    yield_turn();
  }
  current->waits_at = nullptr;
  current->waits_line = 0;
}

void fiber_main() {
  running(running_arguments);
  if (!current->copies.pending.empty()) {
    fail("thread %u ended with %zu asynchronous copies it did not wait for", current->linear,
         current->copies.pending.size());
  }
  if (!current->stores.pending.empty()) {
    fail("thread %u ended with %zu TMA stores it did not wait for", current->linear, current->stores.pending.size());
  }
  current->done = true;
  cluster.live--;
  cluster.progress++;
  if (--current->block->live == 0) check_in_flight(*current->block);
  switch_to_next();
  std::abort();
}

void prepare_fiber(Block& block, unsigned linear) {
  Fiber& fiber = block.fibers[linear];
  fiber.thread = {linear % block_size.x, linear / block_size.x % block_size.y, linear / (block_size.x * block_size.y)};
  fiber.linear = linear;
  fiber.lane = linear % WARP;
  fiber.block = &block;
  fiber.warp = &block.warps[linear / WARP];
  fiber.done = false;
  fiber.waits_since = ~0ull;
  fiber.waits_at = nullptr;
  fiber.waits_line = 0;
  fiber.waits_for_cluster = false;
  fiber.copies.pending.clear();
  fiber.copies.group_ends.clear();
  fiber.stores.pending.clear();
  fiber.stores.group_ends.clear();
  fiber.unfenced.clear();
  char* stack = stacks + (block.rank * block.fibers.size() + linear) * STACK_BYTES;
  unpoison_stack(stack + PAGE, STACK_BYTES - PAGE);
  // The stack that `actbench_switch_fiber` restores: six saved registers, then the return address. The empty word above
  // makes the stack pointer 8 short of a multiple of 16, as the calling convention requires.
  auto top = reinterpret_cast<void**>(stack + STACK_BYTES);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&fiber_main);
  for (int saved = 0; saved < 6; saved++) *--top = nullptr;
  fiber.stack_pointer = top;
}

void order_threads() {
  cluster.warp_order.clear();
  for (Block& block : cluster.blocks) {
    for (Warp& warp : block.warps) cluster.warp_order.push_back(&warp);
  }
  const auto n_warps = static_cast<unsigned>(cluster.warp_order.size());
  if (options.order == 1) std::reverse(cluster.warp_order.begin(), cluster.warp_order.end());
  for (unsigned i = 0; i < WARP; i++) cluster.lane_order[i] = options.order == 1 ? WARP - 1 - i : i;
  if (options.order == 2) {
    for (unsigned i = n_warps; i > 1; i--) std::swap(cluster.warp_order[i - 1], cluster.warp_order[next_random() % i]);
    for (unsigned i = WARP; i > 1; i--) std::swap(cluster.lane_order[i - 1], cluster.lane_order[next_random() % i]);
  }
  cluster.warp_turn = 0;
  cluster.lane_turn = WARP - 1;
}

void start_block(Block& block, Dim3 index, unsigned rank, unsigned n_threads, size_t dynamic_bytes) {
  block.index = index;
  block.rank = rank;
  block.barrier = {};
  for (ThreadBarrier& barrier : block.named) barrier = {};
  block.live = n_threads;
  block.fibers.resize(n_threads);
  block.warps.resize((n_threads + WARP - 1) / WARP);
  start_shared_memory(block, dynamic_bytes);
  for (unsigned warp = 0; warp < block.warps.size(); warp++) {
    block.warps[warp].first = &block.fibers[warp * WARP];
    block.warps[warp].lanes = n_threads - warp * WARP < WARP ? n_threads - warp * WARP : WARP;
    block.warps[warp].rendezvous.arrived = 0;
    block.warps[warp].rendezvous.generation = 0;
  }
  start_asynchronous(block);
  for (unsigned i = 0; i < n_threads; i++) prepare_fiber(block, i);
}

// Starts the cluster whose first block is `first`; its blocks are neighbors in x.
void start_cluster(Dim3 first, unsigned n_threads, size_t dynamic_bytes) {
  cluster.in_flight.clear();
  cluster.barrier = {};
  cluster.idle_turns_of_warp = 0;
  cluster.waiting_since = cluster.progress;
  cluster.waiting = 0;
  cluster.live = n_threads * static_cast<unsigned>(cluster.blocks.size());
  cluster.random_state = (options.seed + 1) * 0x9e3779b97f4a7c15ull + first.x + 131ull * first.y + 1;
  for (unsigned rank = 0; rank < cluster.blocks.size(); rank++) {
    start_block(cluster.blocks[rank], {first.x + rank, first.y, first.z}, rank, n_threads, dynamic_bytes);
  }
  order_threads();
}

// Runs the cluster that was started, until all its threads have ended or one has failed.
void run_cluster() {
  current = next_of_warp();
  while (!current) {
    pass_to_next_warp();
    current = next_of_warp();
  }
  actbench_switch_fiber(&launcher_stack, current->stack_pointer);
  for (const Block& block : cluster.blocks) {
    if (!failed) check_asynchronous(block);
    if (!failed) check_guards(block);
  }
}

}  // namespace

bool allocate_stacks() {
  if (stacks) return true;
  void* mapped = mmap(nullptr, MAX_CLUSTER_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return false;
  stacks = static_cast<char*>(mapped);
  // The lowest page of each stack is inaccessible, so that an overflow is a fault and does not change another stack.
  for (unsigned i = 0; i < MAX_CLUSTER_THREADS; i++) mprotect(stacks + i * STACK_BYTES, PAGE, PROT_NONE);
  return true;
}

void run_clusters(unsigned n_blocks, unsigned n_threads, size_t dynamic_bytes, Thunk kernel, void** arguments) {
  running = kernel;
  running_arguments = arguments;
  cluster.blocks.resize(n_blocks);
  for (unsigned z = 0; z < grid_size.z; z++) {
    for (unsigned y = 0; y < grid_size.y; y++) {
      for (unsigned x = 0; x < grid_size.x; x += n_blocks) {
        start_cluster({x, y, z}, n_threads, dynamic_bytes);
        run_cluster();
        if (failed) return;
      }
    }
  }
}

void record_failure(const Block& block, std::string text) {
  if (failed) return;
  failure = std::move(text);
  failed_block = block.index;
  failed = true;
}

void fail(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  record_failure(*current->block, text);
  switch_to_next();
  std::abort();
}

void barrier(const char* file, int line) { wait_at_barrier(current->block->barrier, current->block->live, file, line); }

void named_barrier(unsigned index, unsigned threads, const char* file, int line) {
  if (index == 0 || index >= NAMED_BARRIERS || threads == 0 || threads % WARP != 0) {
    fail("barrier %u of %u threads", index, threads);
  }
  wait_at_barrier(current->block->named[index], threads, file, line);
}

// Arrivals that were issued before may be performed later: the barrier orders no memory.
void cluster_barrier(const char* file, int line) {
  current->waits_for_cluster = true;
  wait_at_barrier(cluster.barrier, cluster.live, file, line);
  current->waits_for_cluster = false;
}

Rendezvous& arrive(const char* operation, unsigned mask, unsigned* parity, bool* last) {
  Rendezvous& rendezvous = current->warp->rendezvous;
  const unsigned lanes = current->warp->lanes;
  if (mask != 0xffffffffu || lanes != WARP) fail("%s by some lanes of a warp is not supported", operation);
  if (rendezvous.arrived == 0) {
    rendezvous.operation = operation;
  } else if (std::strcmp(rendezvous.operation, operation) != 0) {
    fail("thread %u is at %s while other lanes of its warp are at %s", current->linear, operation,
         rendezvous.operation);
  }
  *parity = rendezvous.generation & 1;
  *last = ++rendezvous.arrived == lanes;
  cluster.progress++;
  return rendezvous;
}

void complete(Rendezvous& rendezvous) {
  rendezvous.arrived = 0;
  rendezvous.generation++;
  cluster.progress++;
}

void await_progress(const char* operation) {
  current->waits_at = operation;
  yield_turn();
  current->waits_at = nullptr;
}

void await(Rendezvous& rendezvous, unsigned parity) {
  current->waits_at = rendezvous.operation;
  while ((rendezvous.generation & 1) == parity) yield_turn();
  current->waits_at = nullptr;
}

}  // namespace emulator
