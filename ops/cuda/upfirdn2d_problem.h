// The sizes and filters of one upfirdn2d call, seen axis by axis.
#pragma once

#include "portable.h"

namespace ganformer {

const int kMaxTaps = 32;

struct Axis {
  const float* filter;  // null: the filter is not separable and lies with the other axis, or is the single tap 1
  int64_t in, out;
  int taps, up, down, pad0;
};

struct FirProblem {
  int64_t samples, channels;
  Axis y_axis, x_axis;
  bool channels_last, separable, flip;
};

inline Axis identity_axis(int64_t size) { return Axis{nullptr, size, size, 1, 1, 1, 0}; }

// Output o meets the taps j = first_tap, first_tap + up, ... at the samples first_sample, first_sample + 1, ...
struct Window {
  int64_t first_sample;
  int first_tap;
};

__device__ __forceinline__ int64_t floor_divide(int64_t value, int64_t by) { return value >= 0 ? value / by : -((by - 1 - value) / by); }

__device__ __forceinline__ Window window_of(const Axis& axis, int64_t output) {
  const int64_t start = output * axis.down - axis.pad0;  // position of tap 0 among the upsampled samples
  Window window;
  window.first_sample = floor_divide(start + axis.up - 1, axis.up);
  window.first_tap = static_cast<int>(window.first_sample * axis.up - start);
  return window;
}

__device__ __forceinline__ float axis_tap(const Axis& axis, bool flip, int tap) {
  return axis.filter ? axis.filter[flip ? tap : axis.taps - 1 - tap] : 1.f;
}

// The weight of tap (j, i), for separable filters and others.
__device__ __forceinline__ float tap_weight(const FirProblem& p, int j, int i) {
  if (p.separable) return axis_tap(p.y_axis, p.flip, j) * axis_tap(p.x_axis, p.flip, i);
  const int row = p.flip ? j : p.y_axis.taps - 1 - j;
  const int column = p.flip ? i : p.x_axis.taps - 1 - i;
  return p.y_axis.filter[row * p.x_axis.taps + column];
}

}  // namespace ganformer
