// What an emulated device does beside its threads: barriers that count, copies of tiles by the tensor memory accelerator,
// arrivals at other blocks' barriers, and products of warpgroups. Each does what the PTX manual says of the instruction it
// stands for.
#include "internals.h"

namespace emulator {
namespace {

constexpr unsigned WARPGROUP_WARPS = 4;
constexpr unsigned REGISTERS = 64 << 10;  // of a multiprocessor
constexpr unsigned MAX_ARRIVALS = (1 << 15) - 1;

// A barrier's 64 bits. They are opaque to a kernel, so the emulator's are its own.
struct Barrier {
  uint16_t awaited;   // arrivals left of the phase
  uint16_t arrivals;  // of each phase; the top bit is the parity of the phase that goes on
  int32_t bytes;      // expected and not yet copied; less than none where copies were faster
};
static_assert(sizeof(Barrier) == 8, "a barrier has 64 bits");
constexpr uint16_t PARITY = 1 << 15;

// The address of a barrier of the current block.
unsigned barrier_address(const uint64_t* place) {
  const unsigned address = shared_address(place, 8);
  if (address % 8 != 0) fail("a barrier is not at a multiple of 8 bytes");
  return address;
}

Barrier& barrier_at(const Block& block, unsigned address) {
  // The other block may not have come to the declaration of its array yet, so that its address says nothing.
  auto& barrier = *reinterpret_cast<Barrier*>(block.arena + (address - DYNAMIC_OFFSET));
  // Shared memory starts as ones.
  if (barrier.awaited > MAX_ARRIVALS) fail("thread %u uses a barrier that was not initialised", current->linear);
  return barrier;
}

void end_phase_if_over(Barrier& barrier) {
  cluster.progress++;
  if (barrier.awaited > 0 || barrier.bytes != 0) return;
  barrier.arrivals ^= PARITY;
  barrier.awaited = barrier.arrivals & ~PARITY;
}

// Address bits that swizzling leaves alone select which chunk of 16 bytes goes where: bits 7 to 9 are added without
// carry to bits 4 to 6, or fewer of them.
unsigned swizzle(unsigned address, unsigned swizzled_bytes) {
  const unsigned chunks = swizzled_bytes / 16;
  return chunks == 0 ? address : address ^ (address >> 3 & (chunks - 1) << 4);
}

void arrive(Barrier& barrier, const Fiber& thread, unsigned expected_bytes) {
  if (barrier.awaited == 0) {
    fail("thread %u arrives at a barrier that has its %u arrivals", thread.linear, barrier.arrivals & ~PARITY);
  }
  barrier.bytes += static_cast<int32_t>(expected_bytes);
  barrier.awaited--;
  end_phase_if_over(barrier);
}

void copy_tile(const Delivery& tile) {
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
  // What lies beyond the matrix counts as copied.
  barrier.bytes -= static_cast<int32_t>(row_bytes * map.tile_rows);
  end_phase_if_over(barrier);
}

void deliver(const Delivery& delivery) {
  if (!delivery.arriving) return copy_tile(delivery);
  arrive(barrier_at(*delivery.block, delivery.barrier), *delivery.arriving, 0);
}

// Delivers now or later, as the options say. A block does not end while something is on its way to it.
void send(const Delivery& delivery) {
  if (delivery.block->live == 0) {
    fail("%s block %u of the cluster, which has ended",
         delivery.arriving ? "a thread arrives at a barrier of" : "a tile is copied to", delivery.block->rank);
  }
  if (options.copies == 0 || (options.copies == 2 && next_random() % 2 == 0)) {
    deliver(delivery);
  } else {
    cluster.deliveries.push_back(delivery);
  }
}

Block& block_of_cluster(unsigned rank) {
  if (rank >= cluster.blocks.size()) fail("there is no block %u in a cluster of %zu", rank, cluster.blocks.size());
  return cluster.blocks[rank];
}

void run_product(const Product& product, const Warp& warp) {
  const auto index = static_cast<unsigned>(&warp - current->block->warps.data());
  product.run(product, index % WARPGROUP_WARPS * 16);
}

// What a thread can have when all are launched with as many.
unsigned registers_at_launch(unsigned n_threads) {
  const unsigned most = REGISTERS / n_threads / 8 * 8;
  return most < 255 ? most : 255;
}

}  // namespace

void init_barrier(uint64_t* place, unsigned arrivals) {
  barrier_address(place);
  if (arrivals == 0 || arrivals > MAX_ARRIVALS) fail("a barrier of %u arrivals", arrivals);
  const Barrier barrier = {static_cast<uint16_t>(arrivals), static_cast<uint16_t>(arrivals), 0};
  std::memcpy(place, &barrier, sizeof barrier);
  cluster.progress++;
}

void arrive_at(uint64_t* place, unsigned expected_bytes) {
  arrive(barrier_at(*current->block, barrier_address(place)), *current, expected_bytes);
}

void arrive_at_block(uint64_t* place, unsigned rank) {
  Block& block = block_of_cluster(rank);
  if (&block == current->block) return arrive_at(place, 0);
  send({&block, barrier_address(place), current, {}, 0, 0, 0});
}

void wait_at(uint64_t* place, unsigned parity) {
  const Barrier& barrier = barrier_at(*current->block, barrier_address(place));
  while ((barrier.arrivals & PARITY ? 1u : 0u) == (parity & 1)) await_progress("mbarrier");
}

void issue_tile(void* to, const TensorMap& map, uint64_t* barrier, unsigned column, unsigned row, unsigned blocks) {
  const size_t row_bytes = size_t{map.tile_columns} * map.element_bytes;
  const unsigned address = shared_address(to, row_bytes * map.tile_rows);
  if (address % 128 != 0) fail("a tile is copied to the address %u, not a multiple of 128", address);
  if (blocks == 0) fail("a tile is copied to no block");
  for (unsigned rank = 0; blocks >> rank != 0; rank++) {
    if ((blocks >> rank & 1) == 0) continue;
    Block& block = block_of_cluster(rank);
    barrier_at(block, barrier_address(barrier));
    send({&block, barrier_address(barrier), nullptr, map, address, column, row});
  }
}

bool deliver_one() {
  if (cluster.deliveries.empty()) return false;
  const size_t index = options.copies == 2 ? next_random() % cluster.deliveries.size() : 0;
  const Delivery delivery = cluster.deliveries[index];
  cluster.deliveries.erase(cluster.deliveries.begin() + static_cast<long>(index));
  deliver(delivery);
  return true;
}

void fence_products() { current->warp->products.is_fenced = true; }

void issue_product(const Product& product) {
  ProductQueue& queue = current->warp->products;
  if (!queue.is_fenced) fail("thread %u: the first product of a group is not fenced", current->linear);
  queue.issued = (queue.issued ^ product.a) * 0x9e3779b97f4a7c15ull + product.b + product.adds;
  if (options.copies == 0 || (options.copies == 2 && queue.pending.empty() && next_random() % 2 == 0)) {
    run_product(product, *current->warp);
  } else {
    queue.pending.push_back(product);
  }
}

void commit_products() {
  ProductQueue& queue = current->warp->products;
  queue.is_fenced = false;
  queue.group_ends.push_back(queue.pending.size());
}

void wait_products(unsigned groups_left) {
  ProductQueue& queue = current->warp->products;
  if (queue.group_ends.size() <= groups_left) return;
  const size_t n_groups = queue.group_ends.size() - groups_left, n_products = queue.group_ends[n_groups - 1];
  for (size_t i = 0; i < n_products; i++) run_product(queue.pending[i], *current->warp);
  queue.pending.erase(queue.pending.begin(), queue.pending.begin() + static_cast<long>(n_products));
  queue.group_ends.erase(queue.group_ends.begin(), queue.group_ends.begin() + static_cast<long>(n_groups));
  for (size_t& end : queue.group_ends) end -= n_products;
}

void set_registers(unsigned registers, bool gives_up) {
  Warp& warp = *current->warp;
  if (registers < 24 || registers > 256 || registers % 8 != 0) fail("setmaxnreg to %u registers", registers);
  if (gives_up ? registers > warp.registers : registers < warp.registers) {
    fail("setmaxnreg.%s from %u to %u registers", gives_up ? "dec" : "inc", warp.registers, registers);
  }
  warp.registers = registers;
}

void read_operand(uint64_t descriptor, unsigned first_row, unsigned rows, uint16_t (*out)[16]) {
  const auto field = [&](unsigned bit) { return static_cast<unsigned>(descriptor >> bit & 0x3fff) * 16; };
  const unsigned start = field(0), eight_rows = field(32), layout = static_cast<unsigned>(descriptor >> 62);
  if (layout == 0 || (descriptor >> 49 & 7) != 0) {
    fail("wgmma: a descriptor of a layout that is not emulated, %#llx", static_cast<unsigned long long>(descriptor));
  }
  // Layouts 1, 2 and 3 have rows of 128, 64 and 32 bytes.
  const unsigned row_bytes = 256 >> layout;
  // Chunks are swapped by address, so the pattern of eight rows must begin where it begins in memory.
  if (start / row_bytes % 8 != 0) fail("wgmma: a matrix at the address %u, not a multiple of %u", start, 8 * row_bytes);
  for (unsigned row = 0; row < rows; row++) {
    const unsigned in_matrix = first_row + row;
    const unsigned from = start + in_matrix / 8 * eight_rows + in_matrix % 8 * row_bytes;
    for (unsigned chunk = 0; chunk < 2; chunk++) {
      const unsigned char* place = at_shared_address(*current->block, swizzle(from + chunk * 16, row_bytes), 16);
      std::memcpy(&out[row][chunk * 8], place, 16);
    }
  }
}

void start_asynchronous(Block& block) {
  for (Warp& warp : block.warps) {
    warp.products.pending.clear();
    warp.products.group_ends.clear();
    warp.products.is_fenced = false;
    warp.products.issued = 0;
    warp.registers = registers_at_launch(static_cast<unsigned>(block.fibers.size()));
  }
}

void check_deliveries(const Block& block) {
  size_t tiles = 0, arrivals = 0;
  for (const Delivery& delivery : cluster.deliveries) {
    if (delivery.block == &block) (delivery.arriving ? arrivals : tiles)++;
  }
  if (tiles > 0) fail("ended with %zu copies of tiles under way", tiles);
  if (arrivals > 0) fail("ended with %zu arrivals of other blocks under way", arrivals);
}

void check_asynchronous(const Block& block) {
  unsigned registers = 0;
  for (size_t i = 0; i < block.warps.size(); i++) {
    const Warp &warp = block.warps[i], &first = block.warps[i / WARPGROUP_WARPS * WARPGROUP_WARPS];
    const std::string name = "warp " + std::to_string(i);
    if (!warp.products.pending.empty()) told(block, name + " ended with products that it did not wait for");
    if (warp.products.issued != first.products.issued) told(block, name + " has other products than its warpgroup");
    if (warp.registers != first.registers) told(block, name + " has other registers than its warpgroup");
    registers += warp.registers * WARP;
  }
  if (registers > REGISTERS) told(block, "its warps take " + std::to_string(registers) + " registers");
}

}  // namespace emulator
