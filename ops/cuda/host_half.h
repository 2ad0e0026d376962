// CUDA's half-precision numbers on the CPU, for compilers that have none themselves. For tests only.
#pragma once

#include <math.h>
#include <stdint.h>

struct __half {
  uint16_t bits;
};

inline float __half2float(__half value) {
  const int exponent = (value.bits >> 10) & 31;
  const int fraction = value.bits & 1023;
  float magnitude = ldexpf(static_cast<float>(exponent ? fraction + 1024 : fraction), (exponent ? exponent : 1) - 25);
  if (exponent == 31) magnitude = fraction ? NAN : INFINITY;
  return value.bits >> 15 ? -magnitude : magnitude;
}

inline __half __float2half_rn(float value) {
  __half result;
  result.bits = signbit(value) ? 0x8000 : 0;
  const float magnitude = fabsf(value);
  if (!(magnitude < 65520.f)) {
    result.bits |= magnitude != magnitude ? 0x7e00 : 0x7c00;
    return result;
  }
  if (magnitude == 0.f) return result;
  int exponent;
  frexpf(magnitude, &exponent);
  const int lowest = exponent - 11 > -24 ? exponent - 11 : -24;  // exponent of the last bit kept
  const int steps = static_cast<int>(nearbyintf(ldexpf(magnitude, -lowest)));
  result.bits |= lowest == -24 ? steps : ((lowest + 24) << 10) + steps;
  return result;
}
