// The sizes and filters of one upfirdn2d call, seen axis by axis.
#pragma once

#include "elements.h"
#include "launchers.h"

namespace ganformer {

const int kMaxTaps = 32, kMaxFactor = 1 << 20;  // kMaxFactor: of up and down; a factor times the taps fits in 32 bits

struct Axis {
  const float* filter;  // null: the filter is not separable and is stored with the other axis, or it is the single tap 1
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

GF_INLINE Window window_of(const Axis& axis, int64_t output) {
  const int64_t start = output * axis.down - axis.pad0;  // position of tap 0 among the upsampled samples
  Window window;
  window.first_sample = floor_divide(start + axis.up - 1, axis.up);
  window.first_tap = static_cast<int>(window.first_sample * axis.up - start);
  return window;
}

GF_INLINE float axis_tap(const Axis& axis, bool flip, int tap) {
  return axis.filter ? axis.filter[flip ? tap : axis.taps - 1 - tap] : 1.f;
}

// The weight of tap (j, i), for separable filters and others.
GF_INLINE float tap_weight(const FirProblem& p, int j, int i) {
  if (p.separable) return axis_tap(p.y_axis, p.flip, j) * axis_tap(p.x_axis, p.flip, i);
  const int row = p.flip ? j : p.y_axis.taps - 1 - j;
  const int column = p.flip ? i : p.x_axis.taps - 1 - i;
  return p.y_axis.filter[row * p.x_axis.taps + column];
}

// The largest number of taps that one output meets.
GF_INLINE int64_t taps_met(const Axis& axis) { return (axis.taps + axis.up - 1) / axis.up; }

inline FirProblem make_problem(const GanformerUpfirdn2d& args) {
  FirProblem p;
  p.samples = args.samples;
  p.channels = args.channels;
  p.channels_last = args.channels_last != 0;
  p.separable = args.fx != nullptr;
  p.flip = args.flip != 0;
  p.y_axis = Axis{args.fy, args.in_h, args.out_h, args.taps_y, args.up_y, args.down_y, args.pad_y0};
  p.x_axis = Axis{args.fx, args.in_w, args.out_w, args.taps_x, args.up_x, args.down_x, args.pad_x0};
  return p;
}

inline bool acceptable(const GanformerUpfirdn2d& args) {
  const int32_t factors[] = {args.up_y, args.up_x, args.down_y, args.down_x};
  for (int32_t factor : factors) {
    if (factor < 1 || factor > kMaxFactor) return false;
  }
  return args.taps_y >= 1 && args.taps_x >= 1 && args.taps_y <= kMaxTaps && args.taps_x <= kMaxTaps;
}

}  // namespace ganformer
