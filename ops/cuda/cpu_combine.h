// Weighted sums of lines of floats, the building block of FIR filters on the CPU.
#pragma once

#include <algorithm>
#include <cstdint>

namespace ganformer {

template <int kCount, bool kAdd>
void combine_some(const float* const* lines, const float* weights, int64_t size, float* to) {
  const float *a = lines[0], *b = lines[kCount > 1 ? 1 : 0], *c = lines[kCount > 2 ? 2 : 0], *d = lines[kCount > 3 ? 3 : 0];
  const float wa = weights[0], wb = kCount > 1 ? weights[1] : 0.f, wc = kCount > 2 ? weights[2] : 0.f, wd = kCount > 3 ? weights[3] : 0.f;
#pragma GCC ivdep
  for (int64_t i = 0; i < size; i++) {
    float sum = wa * a[i];
    if (kCount > 1) sum += wb * b[i];
    if (kCount > 2) sum += wc * c[i];
    if (kCount > 3) sum += wd * d[i];
    to[i] = kAdd ? to[i] + sum : sum;
  }
}

template <bool kAdd>
void combine_up_to_four(const float* const* lines, const float* weights, int count, int64_t size, float* to) {
  switch (count) {
    case 1: combine_some<1, kAdd>(lines, weights, size, to); break;
    case 2: combine_some<2, kAdd>(lines, weights, size, to); break;
    case 3: combine_some<3, kAdd>(lines, weights, size, to); break;
    default: combine_some<4, kAdd>(lines, weights, size, to);
  }
}

// to = (add ? to : 0) + sum_n weights[n] * lines[n], each `size` numbers long
inline void combine(const float* const* lines, const float* weights, int count, int64_t size, bool add, float* to) {
  if (count == 0 && !add) std::fill(to, to + size, 0.f);
  for (int n = 0; n < count; n += 4, add = true) {
    const int some = std::min(count - n, 4);
    add ? combine_up_to_four<true>(lines + n, weights + n, some, size, to)
        : combine_up_to_four<false>(lines + n, weights + n, some, size, to);
  }
}

}  // namespace ganformer
