// What a kernel needs from the compiler: element types, 16-byte packs, launches. With g++ the built-ins come from host_shim.h.
#pragma once

#ifdef __CUDACC__
#include <cuda_fp16.h>
#include <cuda_runtime.h>
// Launches end with the error of the launch itself; errors while running surface at the caller's next synchronisation.
#define GF_LAUNCH(kernel, grid, block, shared, stream, ...) kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)
#define GF_LAUNCH_TILED GF_LAUNCH  // a kernel that synchronises its block
#define GF_UNROLL _Pragma("unroll")
#define GF_SHARED(name) extern __shared__ float name[]
#define GF_MAX_BLOCKS (1 << 30)
#else
#include "host_shim.h"
#endif

#include "activation.h"
#include "elements.h"

namespace ganformer {

GF_INLINE float to_float(float value) { return value; }
GF_INLINE float to_float(__half value) { return __half2float(value); }

template <typename T>
GF_INLINE T from_float(float value);
template <>
GF_INLINE float from_float<float>(float value) {
  return value;
}
template <>
GF_INLINE __half from_float<__half>(float value) {
  return __float2half_rn(value);
}
template <>
GF_INLINE bfloat16 from_float<bfloat16>(float value) {
  return round_to_bfloat16(value);
}

// kSize neighbouring elements, moved as one access.
template <typename T, int kSize>
struct alignas(sizeof(T) * kSize) Pack {
  T item[kSize];
};

template <typename T, int kSize>
__device__ __forceinline__ void load(const void* base, int64_t index, float (&out)[kSize]) {
  const Pack<T, kSize> pack = *reinterpret_cast<const Pack<T, kSize>*>(static_cast<const T*>(base) + index);
  GF_UNROLL
  for (int i = 0; i < kSize; i++) out[i] = to_float(pack.item[i]);
}

template <typename T, int kSize>
__device__ __forceinline__ void store(void* base, int64_t index, const float (&values)[kSize]) {
  Pack<T, kSize> pack;
  GF_UNROLL
  for (int i = 0; i < kSize; i++) pack.item[i] = from_float<T>(values[i]);
  *reinterpret_cast<Pack<T, kSize>*>(static_cast<T*>(base) + index) = pack;
}

inline bool aligned16(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

inline unsigned block_count(int64_t items, int64_t per_block) {
  const int64_t blocks = (items + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks < GF_MAX_BLOCKS ? blocks : GF_MAX_BLOCKS);
}

}  // namespace ganformer
