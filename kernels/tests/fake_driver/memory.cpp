// The fake driver's memory: pools, allocations, pinned memory, copies and fills.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "internals.h"

// As memory.cpp of the emulator defines them.
extern "C" unsigned char* actbench_emulator_alloc(size_t bytes);
extern "C" void actbench_emulator_free(unsigned char* start, size_t bytes);

namespace fake_driver {
namespace {

enum PoolAttribute { REUSE_WITH_WAITS = 3, THRESHOLD = 4, RESERVED = 5, RESERVED_HIGH = 6, USED = 7, USED_HIGH = 8 };
constexpr size_t POOL_STEP = 2 << 20;  // a pool takes memory from the device in steps

size_t used_bytes;
std::map<uint64_t, Allocation> allocations;
std::map<uintptr_t, size_t> pinned;
std::set<Pool*> pools;

int allocate(uint64_t* out, size_t bytes, Pool* pool) {
  if (int error = entry_error()) return error;
  if (bytes == 0) return INVALID_VALUE;
  if (used_bytes + bytes > settings.memory) return OUT_OF_MEMORY;
  // A multiple of 16, so that the memory begins at one of a page and bytes behind the end are as the emulator leaves them.
  unsigned char* start = actbench_emulator_alloc(bytes);
  if (!start) return OUT_OF_MEMORY;
  used_bytes += bytes;
  if (pool) {
    pool->used += bytes;
    pool->used_high = std::max(pool->used_high, pool->used);
    const uint64_t steps = (pool->used + POOL_STEP - 1) / POOL_STEP * POOL_STEP;
    pool->reserved = std::max(pool->reserved, std::min<uint64_t>(steps, settings.memory));
    pool->reserved_high = std::max(pool->reserved_high, pool->reserved);
  }
  *out = reinterpret_cast<uint64_t>(start);
  allocations[*out] = {bytes, false, pool};
  return SUCCESS;
}

void release(uint64_t start) {
  const auto found = allocations.find(start);
  used_bytes -= found->second.bytes;
  if (Pool* pool = found->second.pool) pool->used -= found->second.bytes;
  actbench_emulator_free(reinterpret_cast<unsigned char*>(start), found->second.bytes);
  allocations.erase(found);
}

// Whether a copy or fill runs after its memory was freed.
bool is_freed(uint64_t start, size_t bytes) {
  if (find_allocation(start, bytes)) return false;
  fprintf(stderr, "fake driver: %zu bytes were freed before pending work on them ran\n", bytes);
  context_error = ILLEGAL_ADDRESS;
  return true;
}

bool is_pinned(const void* start, size_t bytes) {
  auto after = pinned.upper_bound(reinterpret_cast<uintptr_t>(start));
  if (after == pinned.begin()) return false;
  --after;
  return reinterpret_cast<uintptr_t>(start) + bytes <= after->first + after->second;
}

}  // namespace

const Allocation* find_allocation(uint64_t start, size_t bytes) {
  auto after = allocations.upper_bound(start);
  if (after == allocations.begin()) return nullptr;
  auto& [first, allocation] = *--after;
  return start + bytes <= first + allocation.bytes ? &allocation : nullptr;
}

size_t remaining_bytes(uint64_t start) {
  auto after = allocations.upper_bound(start);
  if (after == allocations.begin() || !find_allocation(start, 0)) return 0;
  --after;
  return after->first + after->second.bytes - start;
}

size_t leaked_allocations() {
  if (!allocations.empty()) fprintf(stderr, "fake driver: %zu allocations leaked\n", allocations.size());
  return allocations.size() + pinned.size();
}

void free_all_memory() {
  while (!allocations.empty()) {
    allocations.begin()->second.pool = nullptr;
    release(allocations.begin()->first);
  }
  pinned.clear();
}

}  // namespace fake_driver

using namespace fake_driver;

API int cuMemPoolCreate(void** pool, const void*) {
  ENTER;
  *pool = *pools.insert(new Pool()).first;
  return SUCCESS;
}
API int cuMemPoolDestroy(void* pool) {
  LOCK;
  run_all();
  pools.erase(static_cast<Pool*>(pool));
  delete static_cast<Pool*>(pool);
  return SUCCESS;
}
API int cuMemPoolGetAttribute(void* pool, int attribute, void* value) {
  ENTER;
  const Pool* asked = static_cast<Pool*>(pool);
  uint64_t answer;
  switch (attribute) {
    case THRESHOLD: answer = asked->threshold; break;
    case RESERVED: answer = asked->reserved; break;
    case RESERVED_HIGH: answer = asked->reserved_high; break;
    case USED: answer = asked->used; break;
    case USED_HIGH: answer = asked->used_high; break;
    default: return INVALID_VALUE;
  }
  std::memcpy(value, &answer, sizeof answer);
  return SUCCESS;
}
API int cuMemPoolSetAttribute(void* pool, int attribute, void* value) {
  ENTER;
  Pool* changed = static_cast<Pool*>(pool);
  uint64_t given;
  std::memcpy(&given, value, sizeof given);
  if (attribute == REUSE_WITH_WAITS) return SUCCESS;  // memory is never reused here
  if (attribute == THRESHOLD) changed->threshold = given;
  else if (attribute == RESERVED_HIGH && given == 0) changed->reserved_high = changed->reserved;
  else if (attribute == USED_HIGH && given == 0) changed->used_high = changed->used;
  else return INVALID_VALUE;
  return SUCCESS;
}
API int cuMemPoolTrimTo(void* pool, size_t bytes) {
  ENTER;
  Pool* trimmed = static_cast<Pool*>(pool);
  const uint64_t in_use = (trimmed->used + POOL_STEP - 1) / POOL_STEP * POOL_STEP;
  trimmed->reserved = std::min<uint64_t>(trimmed->reserved, std::max<uint64_t>(in_use, bytes));
  return SUCCESS;
}
API int cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
  ENTER;
  *total = settings.memory;
  size_t taken = used_bytes;
  for (const Pool* pool : pools) taken += pool->reserved - pool->used;
  *free_bytes = settings.memory - std::min(settings.memory, taken);
  return SUCCESS;
}
API int cuMemAllocFromPoolAsync(uint64_t* start, size_t bytes, void* pool, void*) {
  LOCK;
  return allocate(start, bytes, static_cast<Pool*>(pool));
}
API int cuMemAlloc_v2(uint64_t* start, size_t bytes) {
  LOCK;
  return allocate(start, bytes, nullptr);
}
API int cuMemFreeAsync(uint64_t start, void* stream) {
  ENTER;
  const auto found = allocations.find(start);
  if (found == allocations.end() || found->second.freed || !found->second.pool) return INVALID_VALUE;
  found->second.freed = true;
  work_of(stream).push_back([start] { release(start); });
  return SUCCESS;
}
API int cuMemFree_v2(uint64_t start) {
  ENTER;
  const auto found = allocations.find(start);
  if (found == allocations.end() || found->second.pool) return INVALID_VALUE;
  run_all();
  release(start);
  return SUCCESS;
}
API int cuMemHostAlloc(void** start, size_t bytes, unsigned) {
  ENTER;
  *start = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!*start) return OUT_OF_MEMORY;
  std::memset(*start, 0xff, bytes);
  pinned[reinterpret_cast<uintptr_t>(*start)] = bytes;
  counts["pinned"]++;
  return SUCCESS;
}
API int cuMemFreeHost(void* start) {
  LOCK;
  if (!pinned.count(reinterpret_cast<uintptr_t>(start))) return INVALID_VALUE;
  run_all();
  pinned.erase(reinterpret_cast<uintptr_t>(start));
  free(start);
  return SUCCESS;
}

API int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
  ENTER;
  if (!find_allocation(to, bytes)) return INVALID_VALUE;
  const auto* first = static_cast<const unsigned char*>(from);
  // Pinned memory is read when the copy runs; pageable memory is copied before the call returns.
  std::vector<unsigned char> taken;
  if (!is_pinned(from, bytes)) taken.assign(first, first + bytes);
  work_of(stream).push_back([=] {
    if (!is_freed(to, bytes)) std::memcpy(reinterpret_cast<void*>(to), taken.empty() ? first : taken.data(), bytes);
  });
  return SUCCESS;
}
API int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
  ENTER;
  if (!find_allocation(from, bytes)) return INVALID_VALUE;
  work_of(stream).push_back([=] {
    if (context_error || is_freed(from, bytes)) return;
    if (settings.fail_download >= 0 && settings.fail_download-- == 0) {
      context_error = ILLEGAL_ADDRESS;
      return;
    }
    counts["downloads"]++;
    std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
  });
  return SUCCESS;
}
API int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
  ENTER;
  if (!find_allocation(to, bytes) || !find_allocation(from, bytes)) return INVALID_VALUE;
  work_of(stream).push_back([=] {
    if (is_freed(from, bytes) || is_freed(to, bytes)) return;
    std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
  });
  return SUCCESS;
}
API int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void* stream) {
  ENTER;
  if (!find_allocation(to, bytes)) return INVALID_VALUE;
  work_of(stream).push_back([=] {
    if (!is_freed(to, bytes)) std::memset(reinterpret_cast<void*>(to), value, bytes);
  });
  return SUCCESS;
}
