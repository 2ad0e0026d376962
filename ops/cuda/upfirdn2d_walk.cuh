// Code shared by the kernels that walk down strips of rows.
#pragma once

#include "portable.h"
#include "upfirdn2d_four_taps.h"

namespace ganformer {

__device__ __forceinline__ void load_taps(const FirProblem& p, float (&wy)[4], float (&wx)[4]) {
  GF_UNROLL
  for (int j = 0; j < 4; j++) {
    wy[j] = axis_tap(p.y_axis, p.flip, j);
    wx[j] = axis_tap(p.x_axis, p.flip, j);
  }
}

inline int64_t tiles_of(int64_t items, int64_t size) { return (items + size - 1) / size; }

const int kMaxStrips = 64;  // per column

// The number of steps per strip that minimises the total time if blocks run in waves of `resident`: long strips read fewer rows twice,
// short ones fill the GPU. `blocks`: needed for one strip of every column. `beginning`: start-up cost of a strip in steps, for the rows
// above its own and the wait for the first of them.
inline int strip_steps_for(int64_t blocks, int64_t steps, int64_t beginning, int64_t resident) {
  int64_t best_steps = steps, best_time = INT64_MAX;
  for (int64_t strips = 1; strips <= steps && strips <= kMaxStrips; strips++) {
    const int64_t strip_steps = tiles_of(steps, strips);
    const int64_t waves = tiles_of(blocks * tiles_of(steps, strip_steps), resident);
    const int64_t time = waves * (strip_steps + beginning);
    if (time < best_time) best_time = time, best_steps = strip_steps;
  }
  return static_cast<int>(best_steps);
}

}  // namespace ganformer
