// Asynchronous operations of the emulated device: mbarriers, TMA loads and stores, arrivals at other blocks' barriers, and wgmma. Each
// follows the PTX manual's description of the instruction.
#include "internals.h"

namespace emulator {
namespace {

constexpr unsigned WARPGROUP_WARPS = 4;
constexpr unsigned REGISTERS = 64 << 10;  // of a multiprocessor
constexpr unsigned MAX_ARRIVALS = (1 << 15) - 1;

// A barrier's 64 bits. They are opaque to a kernel, so the emulator's are its own.
struct Barrier {
  uint16_t awaited;   // arrivals left of the phase
  uint16_t arrivals;  // of each phase; the top bit is the parity of the current phase
  int32_t bytes;      // expected and not yet copied; negative where copies came before the expectation
};
static_assert(sizeof(Barrier) == 8, "a barrier has 64 bits");
constexpr uint16_t PARITY = 1 << 15;

// The address of a barrier of the current block.
unsigned barrier_address(const uint64_t* pointer) {
  const unsigned address = shared_address(pointer, 8);
  if (address % 8 != 0) fail("the address of a barrier is not a multiple of 8");
  return address;
}

Barrier& barrier_at(const Block& block, unsigned address) {
  // The other block may not have reached the declaration of its array yet, so its list of arrays cannot be checked.
  auto& barrier = *reinterpret_cast<Barrier*>(block.arena + (address - DYNAMIC_OFFSET));
  // Shared memory starts as ones.
  if (barrier.awaited > MAX_ARRIVALS) fail("thread %u uses a barrier that was not initialized", current->linear);
  return barrier;
}

void complete_phase_if_done(Barrier& barrier) {
  cluster.progress++;
  if (barrier.awaited > 0 || barrier.bytes != 0) return;
  barrier.arrivals ^= PARITY;
  barrier.awaited = barrier.arrivals & ~PARITY;
}

// Bits 7 to 9 of the address are XORed into bits 4 to 6, which number the chunk of 16 bytes; fewer for narrower swizzles.
unsigned swizzle(unsigned address, unsigned swizzled_bytes) {
  const unsigned chunks = swizzled_bytes / 16;
  return chunks == 0 ? address : address ^ (address >> 3 & (chunks - 1) << 4);
}

// Who has written the 16 bytes at the address and not fenced them.
uint16_t& unfenced_writer(unsigned address) { return current->block->unfenced[address / 16]; }

// Fails the launch if the 16 bytes that the asynchronous proxy reads were written without a fence.
void check_fenced(unsigned address, const char* operation) {
  const unsigned writer = unfenced_writer(address);
  if (writer != 0) fail("%s that thread %u has written without fence.proxy.async", operation, writer - 1);
}

void arrive(Barrier& barrier, const Fiber& thread, unsigned expected_bytes) {
  if (barrier.awaited == 0) {
    fail("thread %u arrives at a barrier that has its %u arrivals", thread.linear, barrier.arrivals & ~PARITY);
  }
  barrier.bytes += static_cast<int32_t>(expected_bytes);
  barrier.awaited--;
  complete_phase_if_done(barrier);
}

void copy_tma_tile(const RemoteOperation& tile) {
  const TensorMap& map = tile.map;
  const unsigned row_bytes = map.tile_columns * map.element_bytes;
  for (unsigned row = 0; row < map.tile_rows; row++) {
    for (unsigned chunk = 0; chunk < row_bytes; chunk += 16) {
      const unsigned to = swizzle(tile.to + row * row_bytes + chunk, map.swizzled_bytes);
      unsigned char* place = at_shared_address(*tile.block, to, 16);
      const uint64_t from_row = uint64_t{tile.row} + row, offset = uint64_t{tile.column} * map.element_bytes + chunk;
      const uint64_t end = map.columns * map.element_bytes;
      const bool inside = from_row < map.rows && offset < end;
      const size_t bytes = !inside ? 0 : end - offset < 16 ? end - offset : 16;
      const unsigned char* from = map.start + from_row * map.row_bytes + offset;
      check_readable(from, bytes, "a tile");
      if (bytes > 0) std::memcpy(place, from, bytes);
      std::memset(place + bytes, 0, 16 - bytes);
    }
  }
  Barrier& barrier = barrier_at(*tile.block, tile.barrier);
  // The zeros beyond the matrix count as copied bytes.
  barrier.bytes -= static_cast<int32_t>(row_bytes * map.tile_rows);
  complete_phase_if_done(barrier);
}

void run_tma_store(const TmaStore& store) {
  const TensorMap& map = *store.map;
  const unsigned row_bytes = map.tile_columns * map.element_bytes;
  for (unsigned row = 0; row < map.tile_rows; row++) {
    for (unsigned chunk = 0; chunk < row_bytes; chunk += 16) {
      const unsigned from = swizzle(store.from + row * row_bytes + chunk, map.swizzled_bytes);
      const uint64_t to_row = uint64_t{store.row} + row, offset = uint64_t{store.column} * map.element_bytes + chunk;
      const uint64_t end = map.columns * map.element_bytes;
      if (to_row >= map.rows || offset >= end) continue;
      const size_t bytes = end - offset < 16 ? end - offset : 16;
      auto* to = const_cast<unsigned char*>(map.start + to_row * map.row_bytes + offset);
      check_readable(to, bytes, "a tile");
      std::memcpy(to, at_shared_address(*current->block, from, 16), bytes);
    }
  }
}

void perform(const RemoteOperation& operation) {
  if (!operation.arriving) return copy_tma_tile(operation);
  arrive(barrier_at(*operation.block, operation.barrier), *operation.arriving, 0);
}

// Performs the operation now or later, by the options. A block must not exit while an operation on it is in flight.
void issue_remote(const RemoteOperation& operation) {
  if (operation.block->live == 0) {
    fail("%s block %u of the cluster, which has ended",
         operation.arriving ? "a thread arrives at a barrier of" : "a tile is copied to", operation.block->rank);
  }
  if (options.copies == 0 || (options.copies == 2 && next_random() % 2 == 0)) {
    perform(operation);
  } else {
    cluster.in_flight.push_back(operation);
  }
}

Block& block_of_rank(unsigned rank) {
  if (rank >= cluster.blocks.size()) fail("there is no block %u in a cluster of %zu", rank, cluster.blocks.size());
  return cluster.blocks[rank];
}

void run_wgmma(const Wgmma& wgmma, const Warp& warp) {
  const auto index = static_cast<unsigned>(&warp - current->block->warps.data());
  wgmma.run(wgmma, index % WARPGROUP_WARPS * 16);
}

// The registers of each thread at launch.
unsigned registers_at_launch(unsigned n_threads) {
  const unsigned maximum = REGISTERS / n_threads / 8 * 8;
  return maximum < 255 ? maximum : 255;
}

}  // namespace

void mbarrier_init(uint64_t* pointer, unsigned arrivals) {
  barrier_address(pointer);
  if (arrivals == 0 || arrivals > MAX_ARRIVALS) fail("a barrier of %u arrivals", arrivals);
  const Barrier barrier = {static_cast<uint16_t>(arrivals), static_cast<uint16_t>(arrivals), 0};
  std::memcpy(pointer, &barrier, sizeof barrier);
  cluster.progress++;
}

void mbarrier_arrive(uint64_t* pointer, unsigned expected_bytes) {
  arrive(barrier_at(*current->block, barrier_address(pointer)), *current, expected_bytes);
}

void mbarrier_arrive_cluster(uint64_t* pointer, unsigned rank) {
  Block& block = block_of_rank(rank);
  if (&block == current->block) return mbarrier_arrive(pointer, 0);
  issue_remote({&block, barrier_address(pointer), current, {}, 0, 0, 0});
}

void mbarrier_wait_parity(uint64_t* pointer, unsigned parity) {
  const Barrier& barrier = barrier_at(*current->block, barrier_address(pointer));
  while ((barrier.arrivals & PARITY ? 1u : 0u) == (parity & 1)) await_progress("mbarrier");
}

void issue_tma_load(void* to, const TensorMap& map, uint64_t* barrier, unsigned column, unsigned row, unsigned blocks) {
  const size_t row_bytes = size_t{map.tile_columns} * map.element_bytes;
  const unsigned address = shared_address(to, row_bytes * map.tile_rows);
  if (address % 128 != 0) fail("a tile is copied to the address %u, not a multiple of 128", address);
  if (blocks == 0) fail("a tile is copied to no block");
  for (unsigned rank = 0; blocks >> rank != 0; rank++) {
    if ((blocks >> rank & 1) == 0) continue;
    Block& block = block_of_rank(rank);
    barrier_at(block, barrier_address(barrier));
    issue_remote({&block, barrier_address(barrier), nullptr, map, address, column, row});
  }
}

void issue_tma_store(const TensorMap& map, const void* from, unsigned column, unsigned row) {
  const size_t bytes = size_t{map.tile_columns} * map.element_bytes * map.tile_rows;
  const unsigned address = shared_address(from, bytes);
  if (address % 128 != 0) fail("a tile is stored from the address %u, not a multiple of 128", address);
  for (size_t offset = 0; offset < bytes; offset += 16) {
    check_fenced(address + static_cast<unsigned>(offset), "a tile is stored");
  }
  const TmaStore store = {&map, address, column, row};
  if (options.copies == 0 || (options.copies == 2 && next_random() % 2 == 0)) {
    run_tma_store(store);
  } else {
    current->stores.pending.push_back(store);
  }
}

void bulk_commit_group() { current->stores.group_ends.push_back(current->stores.pending.size()); }

void bulk_wait_group(size_t groups_left) {
  StoreQueue& queue = current->stores;
  if (queue.group_ends.size() <= groups_left) return;
  const size_t n_groups = queue.group_ends.size() - groups_left, n_stores = queue.group_ends[n_groups - 1];
  for (size_t i = 0; i < n_stores; i++) run_tma_store(queue.pending[i]);
  queue.pending.erase(queue.pending.begin(), queue.pending.begin() + static_cast<long>(n_stores));
  queue.group_ends.erase(queue.group_ends.begin(), queue.group_ends.begin() + static_cast<long>(n_groups));
  for (size_t& end : queue.group_ends) end -= n_stores;
}

bool perform_one() {
  if (cluster.in_flight.empty()) return false;
  const size_t index = options.copies == 2 ? next_random() % cluster.in_flight.size() : 0;
  const RemoteOperation operation = cluster.in_flight[index];
  cluster.in_flight.erase(cluster.in_flight.begin() + static_cast<long>(index));
  perform(operation);
  return true;
}

void wgmma_fence() { current->warp->wgmmas.is_fenced = true; }

void issue_wgmma(const Wgmma& wgmma) {
  WgmmaQueue& queue = current->warp->wgmmas;
  if (!queue.is_fenced) fail("thread %u: the first wgmma of a group is not fenced", current->linear);
  queue.issued = (queue.issued ^ wgmma.a) * 0x9e3779b97f4a7c15ull + wgmma.b + wgmma.scale_d;
  if (options.copies == 0 || (options.copies == 2 && queue.pending.empty() && next_random() % 2 == 0)) {
    run_wgmma(wgmma, *current->warp);
  } else {
    queue.pending.push_back(wgmma);
  }
}

void wgmma_commit_group() {
  WgmmaQueue& queue = current->warp->wgmmas;
  queue.is_fenced = false;
  queue.group_ends.push_back(queue.pending.size());
}

void wgmma_wait_group(unsigned groups_left) {
  WgmmaQueue& queue = current->warp->wgmmas;
  if (queue.group_ends.size() <= groups_left) return;
  const size_t n_groups = queue.group_ends.size() - groups_left, n_wgmmas = queue.group_ends[n_groups - 1];
  for (size_t i = 0; i < n_wgmmas; i++) run_wgmma(queue.pending[i], *current->warp);
  queue.pending.erase(queue.pending.begin(), queue.pending.begin() + static_cast<long>(n_wgmmas));
  queue.group_ends.erase(queue.group_ends.begin(), queue.group_ends.begin() + static_cast<long>(n_groups));
  for (size_t& end : queue.group_ends) end -= n_wgmmas;
}

void setmaxnreg(unsigned registers, bool decreases) {
  Warp& warp = *current->warp;
  if (registers < 24 || registers > 256 || registers % 8 != 0) fail("setmaxnreg to %u registers", registers);
  if (decreases ? registers > warp.registers : registers < warp.registers) {
    fail("setmaxnreg.%s from %u to %u registers", decreases ? "dec" : "inc", warp.registers, registers);
  }
  warp.registers = registers;
}

void read_wgmma_operand(uint64_t descriptor, unsigned first_row, unsigned rows, uint16_t (*out)[16]) {
  const auto field = [&](unsigned bit) { return static_cast<unsigned>(descriptor >> bit & 0x3fff) * 16; };
  const unsigned start = field(0), eight_rows = field(32), layout = static_cast<unsigned>(descriptor >> 62);
  if (layout == 0 || (descriptor >> 49 & 7) != 0) {
    fail("wgmma: a descriptor of a layout that is not emulated, %#llx", static_cast<unsigned long long>(descriptor));
  }
  // Layouts 1, 2 and 3 have rows of 128, 64 and 32 bytes.
  const unsigned row_bytes = 256 >> layout;
  // The swizzle depends on the address, so a group of eight rows must begin at a multiple of its size.
  if (start / row_bytes % 8 != 0) fail("wgmma: a matrix at the address %u, not a multiple of %u", start, 8 * row_bytes);
  for (unsigned row = 0; row < rows; row++) {
    const unsigned in_matrix = first_row + row;
    const unsigned from = start + in_matrix / 8 * eight_rows + in_matrix % 8 * row_bytes;
    for (unsigned chunk = 0; chunk < 2; chunk++) {
      const unsigned address = swizzle(from + chunk * 16, row_bytes);
      const unsigned char* place = at_shared_address(*current->block, address, 16);
      check_fenced(address, "wgmma reads a matrix");
      std::memcpy(&out[row][chunk * 8], place, 16);
    }
  }
}

void read_wgmma_mn_major(uint64_t descriptor, unsigned columns, uint16_t (*out)[16]) {
  const auto field = [&](unsigned bit) { return static_cast<unsigned>(descriptor >> bit & 0x3fff) * 16; };
  const unsigned start = field(0), next_columns = field(16), next_rows = field(32);
  constexpr unsigned ROW_BYTES = 128;
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) {
    fail("wgmma: a descriptor of a layout that is not emulated, %#llx", static_cast<unsigned long long>(descriptor));
  }
  if (start / ROW_BYTES % 8 != 0) fail("wgmma: a matrix at the address %u, not a multiple of %u", start, 8 * ROW_BYTES);
  for (unsigned row = 0; row < 16; row++) {
    for (unsigned column = 0; column < columns; column += 8) {
      const unsigned from = start + row / 8 * next_rows + row % 8 * ROW_BYTES + column / 64 * next_columns;
      const unsigned address = swizzle(from + column % 64 * 2, ROW_BYTES);
      const unsigned char* place = at_shared_address(*current->block, address, 16);
      check_fenced(address, "wgmma reads a matrix");
      for (unsigned i = 0; i < 8; i++) std::memcpy(&out[column + i][row], place + i * 2, 2);
    }
  }
}

void record_write(unsigned address) {
  uint16_t& writer = unfenced_writer(address);
  const auto own = static_cast<uint16_t>(current->linear + 1);
  if (writer == own) return;
  writer = own;
  current->unfenced.push_back(address);
}

void fence_proxy_async() {
  for (const unsigned address : current->unfenced) {
    uint16_t& writer = unfenced_writer(address);
    if (writer == current->linear + 1) writer = 0;
  }
  current->unfenced.clear();
}

void start_asynchronous(Block& block) {
  block.unfenced.assign((DYNAMIC_OFFSET + ARENA_BYTES) / 16, 0);
  for (Warp& warp : block.warps) {
    warp.wgmmas.pending.clear();
    warp.wgmmas.group_ends.clear();
    warp.wgmmas.is_fenced = false;
    warp.wgmmas.issued = 0;
    warp.registers = registers_at_launch(static_cast<unsigned>(block.fibers.size()));
  }
}

void check_in_flight(const Block& block) {
  size_t tiles = 0, arrivals = 0;
  for (const RemoteOperation& operation : cluster.in_flight) {
    if (operation.block == &block) (operation.arriving ? arrivals : tiles)++;
  }
  if (tiles > 0) fail("ended with %zu copies of tiles in flight", tiles);
  if (arrivals > 0) fail("ended with %zu arrivals of other blocks in flight", arrivals);
}

void check_asynchronous(const Block& block) {
  unsigned registers = 0;
  for (size_t i = 0; i < block.warps.size(); i++) {
    const Warp &warp = block.warps[i], &first = block.warps[i / WARPGROUP_WARPS * WARPGROUP_WARPS];
    const std::string name = "warp " + std::to_string(i);
    if (!warp.wgmmas.pending.empty()) record_failure(block, name + " ended with wgmmas that it did not wait for");
    if (warp.wgmmas.issued != first.wgmmas.issued) record_failure(block, name + " has other wgmmas than its warpgroup");
    if (warp.registers != first.registers) record_failure(block, name + " has other registers than its warpgroup");
    registers += warp.registers * WARP;
  }
  if (registers > REGISTERS) record_failure(block, "its warps take " + std::to_string(registers) + " registers");
}

}  // namespace emulator
