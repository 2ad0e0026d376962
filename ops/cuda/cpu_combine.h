// Weighted sums of lines of floats, what an FIR filter on the CPU consists of.
#pragma once

#include <algorithm>
#include <cstdint>

#if defined(__AVX__) && defined(__FMA__)
#include <immintrin.h>
#endif

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

// to = (add ? to : 0) + sum_n weights[n] * lines[n], all of `size` numbers
inline void combine(const float* const* lines, const float* weights, int count, int64_t size, bool add, float* to) {
  if (count == 0 && !add) std::fill(to, to + size, 0.f);
  for (int n = 0; n < count; n += 4, add = true) {
    const int some = std::min(count - n, 4);
    add ? combine_up_to_four<true>(lines + n, weights + n, some, size, to)
        : combine_up_to_four<false>(lines + n, weights + n, some, size, to);
  }
}

// combine() without `add` for a large result, written to memory past the caches, which saves reading it into them first, where it is
// aligned and has at most four lines. A thread that has used it calls finish_past_cache() before it says that it is done.
#if defined(__AVX__) && defined(__FMA__)
template <int kCount>
void combine_past_cache_some(const float* const* lines, const float* weights, int64_t size, float* to) {
  for (int64_t i = 0; i < size; i += 8) {
    __m256 sum = _mm256_mul_ps(_mm256_set1_ps(weights[0]), _mm256_loadu_ps(lines[0] + i));
    for (int n = 1; n < kCount; n++) sum = _mm256_fmadd_ps(_mm256_set1_ps(weights[n]), _mm256_loadu_ps(lines[n] + i), sum);
    _mm256_stream_ps(to + i, sum);
  }
}

inline void combine_past_cache(const float* const* lines, const float* weights, int count, int64_t size, float* to) {
  const bool aligned = reinterpret_cast<uintptr_t>(to) % 32 == 0 && size % 8 == 0;
  switch (aligned ? count : 0) {
    case 1: return combine_past_cache_some<1>(lines, weights, size, to);
    case 2: return combine_past_cache_some<2>(lines, weights, size, to);
    case 3: return combine_past_cache_some<3>(lines, weights, size, to);
    case 4: return combine_past_cache_some<4>(lines, weights, size, to);
    default: combine(lines, weights, count, size, false, to);
  }
}

inline void finish_past_cache() { _mm_sfence(); }
#else
inline void combine_past_cache(const float* const* lines, const float* weights, int count, int64_t size, float* to) {
  combine(lines, weights, count, size, false, to);
}

inline void finish_past_cache() {}
#endif

}  // namespace ganformer
