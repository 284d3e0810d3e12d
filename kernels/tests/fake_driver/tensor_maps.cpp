// The fake driver's tensor maps, in the form that the emulator reads.
#include <cstring>

#include "internals.h"

using namespace fake_driver;

// Matrices of two dimensions, with the limits of the driver's reference.
API int cuTensorMapEncodeTiled(void* map, int type, unsigned rank, void* start, const uint64_t* extents,
                               const uint64_t* strides, const unsigned* tile, const unsigned* steps, int interleave,
                               int swizzle, int, int fill) {
  ENTER;
  const size_t element = type == 6 || type == 9 ? 2 : type == 7 ? 4 : 0;
  const auto address = reinterpret_cast<uint64_t>(start);
  const bool is_a_matrix = element != 0 && rank == 2 && interleave == 0 && fill == 0 && steps[0] == 1 && steps[1] == 1;
  if (!is_a_matrix || reinterpret_cast<uint64_t>(map) % 64 != 0 || address % 16 != 0) return INVALID_VALUE;
  for (int i = 0; i < 2; i++) {
    if (extents[i] == 0 || extents[i] > (1ull << 32) || tile[i] == 0 || tile[i] > 256) return INVALID_VALUE;
  }
  const size_t tile_row = tile[0] * element;
  if (strides[0] % 16 != 0 || strides[0] >= (1ull << 40) || strides[0] < extents[0] * element) return INVALID_VALUE;
  if (tile_row % 16 != 0 || (swizzle == 3 ? tile_row > 128 : swizzle != 0)) return INVALID_VALUE;
  if (!find_allocation(address, (extents[1] - 1) * strides[0] + extents[0] * element)) return INVALID_VALUE;
  const emulator::TensorMap encoded = {static_cast<unsigned char*>(start), extents[0], extents[1], strides[0], tile[0],
                                       tile[1], static_cast<uint32_t>(element), swizzle == 3 ? 128u : 0u, {}};
  std::memcpy(map, &encoded, sizeof encoded);
  return SUCCESS;
}
