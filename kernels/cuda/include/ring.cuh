// The order of the stages of a ring in shared memory, of a producer and of its consumers alike.
#pragma once

#include "types.cuh"

// A stage, and the parity of the phase in which it is full. The order of stages goes on from tile to tile.
template <u32 STAGES>
struct Slot {
  u32 stage, parity;
};
template <u32 STAGES>
DEVICE void advance(Slot<STAGES>& slot) {
  slot.stage++;
  if (slot.stage < STAGES) return;
  slot.stage = 0;
  slot.parity ^= 1;
}
