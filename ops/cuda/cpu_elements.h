// Element types of the CPU kernels, which compute in float.
#pragma once

#include "elements.h"
#include "tensorflow/core/framework/numeric_types.h"

namespace ganformer {

inline float to_float(float value) { return value; }
inline float to_float(Eigen::half value) { return static_cast<float>(value); }

template <typename T>
inline T element_from(float value) {
  return T(value);
}
template <>
inline bfloat16 element_from<bfloat16>(float value) {
  return round_to_bfloat16(value);
}

inline void convert(float from, float* to) { *to = from; }
template <typename T>
inline void convert(T from, float* to) {
  *to = to_float(from);
}
template <typename T>
inline void convert(float from, T* to) {
  *to = element_from<T>(from);
}

template <typename From, typename To>
inline void convert_all(const From* from, int64_t count, To* to) {
  for (int64_t i = 0; i < count; i++) convert(from[i], to + i);
}

template <int kBlock, typename From, typename To>
void copy_fixed_blocks(const From* from, int64_t from_stride, int64_t blocks, To* to, int64_t to_stride) {
  for (int64_t b = 0; b < blocks; b++, from += from_stride, to += to_stride) {
    for (int i = 0; i < kBlock; i++) convert(from[i], to + i);
  }
}

// Copies runs of `block` numbers, `from_stride` and `to_stride` apart. Single numbers (NCHW) and colours are short enough to unroll.
template <typename From, typename To>
void copy_blocks(const From* from, int64_t from_stride, int64_t blocks, int64_t block, To* to, int64_t to_stride) {
  switch (block) {
    case 1: return copy_fixed_blocks<1>(from, from_stride, blocks, to, to_stride);
    case 3: return copy_fixed_blocks<3>(from, from_stride, blocks, to, to_stride);
    default:
      for (int64_t b = 0; b < blocks; b++, from += from_stride, to += to_stride) {
        for (int64_t i = 0; i < block; i++) convert(from[i], to + i);
      }
  }
}

}  // namespace ganformer
