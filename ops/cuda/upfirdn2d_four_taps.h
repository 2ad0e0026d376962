// Separable 4-tap filters with factor 2 up, 2 down, or 1, the cases that the networks use, treated as a walk along each axis: every step
// adds samples to a window and completes outputs.
#pragma once

#include <stdlib.h>

#include <type_traits>

#include "upfirdn2d_problem.h"

namespace ganformer {

enum FourTaps { kUp2, kDown2, kSame };

// What one step of the walk needs. For factor 2 up, two outputs per axis share the same two samples (each uses two of the taps).
template <int kVariant>
struct Walk {
  static const int kOut = kVariant == kUp2 ? 2 : 1;        // outputs per axis and step
  static const int kWindow = kVariant == kUp2 ? 2 : 4;     // samples that an output needs
  static const int kAdvance = kVariant == kDown2 ? 2 : 1;  // new samples per step
  static const int kHeld = kWindow - kAdvance;             // samples kept from earlier steps
};

// The tap that output `out` of a step applies to sample `sample` of the window.
template <int kVariant>
GF_INLINE int walk_tap(int out, int sample) {
  return kVariant == kUp2 ? 1 - out + 2 * sample : sample;
}

// For up 2, outputs are paired so that both of a pair use the same samples; with an even pad, the first pair begins one before output 0.
struct WalkAxis {
  int shift;   // outputs of the first pair that do not exist
  int origin;  // first sample of step 0
  int steps;
};

template <int kVariant>
inline WalkAxis walk_axis(const Axis& axis) {
  WalkAxis walk;
  walk.shift = kVariant == kUp2 && axis.pad0 % 2 == 0 ? 1 : 0;
  walk.origin = kVariant == kUp2 ? -((axis.pad0 + walk.shift - 1) / 2) : -axis.pad0;
  walk.steps = static_cast<int>((axis.out + walk.shift + Walk<kVariant>::kOut - 1) / Walk<kVariant>::kOut);
  return walk;
}

const int64_t kWalkSize = 1 << 28;  // with sizes up to this, the walk can count in 32 bits within a row

inline bool has_four_tap_variant(const FirProblem& p) {
  const Axis &y = p.y_axis, &x = p.x_axis;
  const int64_t sizes[] = {p.channels, y.in, x.in, y.out, x.out, llabs(y.pad0), llabs(x.pad0)};
  for (int64_t size : sizes) {
    if (size > kWalkSize) return false;
  }
  return p.separable && y.taps == 4 && x.taps == 4 && y.up == x.up && y.down == x.down && y.up <= 2 && y.down <= 2 &&
         y.up * y.down <= 2;
}

// Calls `function` with the variant of a problem that has one, as a std::integral_constant.
template <typename Function>
inline void with_variant(const FirProblem& p, const Function& function) {
  if (p.y_axis.up == 2) {
    function(std::integral_constant<int, kUp2>());
  } else if (p.y_axis.down == 2) {
    function(std::integral_constant<int, kDown2>());
  } else {
    function(std::integral_constant<int, kSame>());
  }
}

}  // namespace ganformer
