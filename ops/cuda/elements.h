// Element types and integer division, for the kernels and for the CPU.
#pragma once

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define GF_INLINE __host__ __device__ __forceinline__
#else
#define GF_INLINE inline
#endif

namespace ganformer {

// bfloat16 as raw bits: cuda_bf16.h exists only since CUDA 11, and conversions are all that is needed.
struct bfloat16 {
  uint16_t bits;
};

GF_INLINE float to_float(bfloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  memcpy(&result, &bits, sizeof(result));
  return result;
}

GF_INLINE bfloat16 round_to_bfloat16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  bfloat16 result;
  result.bits = value != value ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);  // to nearest even
  return result;
}

// Most tensors have fewer than 2^32 elements, and a 32-bit division costs a fraction of a 64-bit one.
GF_INLINE int64_t divide(uint64_t value, uint64_t by) {
  return (value | by) >> 32 ? value / by : static_cast<uint32_t>(value) / static_cast<uint32_t>(by);
}

GF_INLINE int64_t floor_divide(int64_t value, int64_t by) { return value >= 0 ? value / by : -((by - 1 - value) / by); }

}  // namespace ganformer
