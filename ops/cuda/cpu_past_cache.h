// Results larger than the caches are written to memory past them, which saves reading what lay there into the caches first.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace ganformer {

typedef float Lanes __attribute__((vector_size(32)));
const int kLanes = sizeof(Lanes) / sizeof(float);

// Whether the caches would not hold a result until it is read, and it is aligned for store_past_cache at every kLanes-th float.
inline bool goes_past_cache(const void* result, uint64_t bytes) {
  return bytes >= 16 << 20 && reinterpret_cast<uintptr_t>(result) % sizeof(Lanes) == 0;
}

inline Lanes load(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof(lanes));
  return lanes;
}

inline void store(const Lanes& lanes, float* to) { std::memcpy(to, &lanes, sizeof(lanes)); }

// A thread that has used it calls finish_past_cache() before it says that it is done.
#if defined(__AVX__)
inline void store_past_cache(const Lanes& lanes, float* to) { _mm256_stream_ps(to, reinterpret_cast<const __m256&>(lanes)); }
inline void finish_past_cache() { _mm_sfence(); }
#else
inline void store_past_cache(const Lanes& lanes, float* to) { store(lanes, to); }
inline void finish_past_cache() {}
#endif

}  // namespace ganformer
