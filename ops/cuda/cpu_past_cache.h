// Results larger than the caches are written directly to memory, which avoids first reading its old contents into the caches.
#pragma once

#include <cstdint>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace ganformer {

#if defined(__AVX__)
typedef float Lanes __attribute__((vector_size(32)));
#else
typedef float Lanes __attribute__((vector_size(16)));
#endif
const int kLanes = sizeof(Lanes) / sizeof(float);

#ifndef GANFORMER_PAST_CACHE_BYTES
#define GANFORMER_PAST_CACHE_BYTES (16 << 20)
#endif

// Whether a result is too large to stay in the caches until it is read, and aligned for store_past_cache at every kLanes-th float.
inline bool goes_past_cache(const void* result, uint64_t bytes) {
  return bytes >= GANFORMER_PAST_CACHE_BYTES && reinterpret_cast<uintptr_t>(result) % sizeof(Lanes) == 0;
}

// Loads and stores at any float. (A memcpy is not always one instruction: g++ 12 without AVX-512 copies in pieces of 8 bytes.)
typedef float UnalignedLanes __attribute__((vector_size(sizeof(Lanes)), aligned(sizeof(float)), may_alias));
inline Lanes load(const float* from) { return *reinterpret_cast<const UnalignedLanes*>(from); }
inline void store(const Lanes& lanes, float* to) { *reinterpret_cast<UnalignedLanes*>(to) = lanes; }

// A thread that has used store_past_cache calls finish_past_cache() before it reports that it is done.
#if defined(__AVX__)
inline void store_past_cache(const Lanes& lanes, float* to) { _mm256_stream_ps(to, reinterpret_cast<const __m256&>(lanes)); }
inline void finish_past_cache() { _mm_sfence(); }
#else
inline void store_past_cache(const Lanes& lanes, float* to) { store(lanes, to); }
inline void finish_past_cache() {}
#endif

}  // namespace ganformer
