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

template <typename T>
inline void load_elements(const T* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i++) to[i] = to_float(from[i]);
}

template <typename T>
inline void store_elements(const float* from, int64_t count, T* to) {
  for (int64_t i = 0; i < count; i++) to[i] = element_from<T>(from[i]);
}

}  // namespace ganformer
