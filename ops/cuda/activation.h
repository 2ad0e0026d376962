// Activations and their derivatives of every order, for the kernels and for the CPU. Formulas: docs/cuda.md, "Activations".
#pragma once

#include <math.h>

#include "elements.h"

namespace ganformer {

// The numbers are the interface to Python (ops/compiled.py).
enum Activation { kLinear = 0, kRelu = 1, kLrelu = 2, kTanh = 3, kSigmoid = 4, kElu = 5, kSelu = 6, kSoftplus = 7, kSwish = 8 };

const int kMaxOrder = 8;

// y = gain * act(u) limited to [-clamp, clamp] (order 0), or its order-th derivative with respect to u.
struct ActivationSpec {
  int act;
  int order;
  float slope;                      // negative slope of the piecewise linear activations: 1, 0 or alpha
  float gain;
  float clamp;                      // < 0: none
  float sigmoid[kMaxOrder + 2];     // sigmoid^(order) as a polynomial in s = sigmoid(u): coefficient of s^i
  float sigmoid_below[kMaxOrder + 2];  // the same for order - 1
};

inline bool is_piecewise_linear(int act) { return act <= kLrelu; }

// d/du s = s - s^2, so P_{k+1}(s) = P_k'(s) (s - s^2) with P_0(s) = s.
inline void sigmoid_polynomial(int order, float* coefficients) {
  for (int i = 0; i < kMaxOrder + 2; i++) coefficients[i] = i == 1 ? 1.f : 0.f;
  for (int k = 0; k < order; k++) {
    float next[kMaxOrder + 2] = {0.f};
    for (int i = 1; i <= k + 1; i++) {
      next[i] += i * coefficients[i];
      next[i + 1] -= i * coefficients[i];
    }
    for (int i = 0; i < kMaxOrder + 2; i++) coefficients[i] = next[i];
  }
}

inline ActivationSpec make_activation(int act, int order, float alpha, float gain, float clamp) {
  ActivationSpec spec;
  spec.act = act;
  spec.order = order;
  spec.slope = act == kLinear ? 1.f : act == kRelu ? 0.f : alpha;
  spec.gain = gain;
  spec.clamp = clamp;
  sigmoid_polynomial(order, spec.sigmoid);
  sigmoid_polynomial(order > 0 ? order - 1 : 0, spec.sigmoid_below);
  return spec;
}

// Evaluated at sigmoid(-|u|), which keeps its relative precision in both tails; sigmoid^(k) is even for odd k, odd for even k > 0.
GF_INLINE float sigmoid_derivative(const float* polynomial, int order, float u) {
  const float e = expf(-fabsf(u));
  const float s = e / (1.f + e);
  if (order == 0) return u > 0.f ? 1.f / (1.f + e) : s;
  float sum = polynomial[order + 1];
  for (int i = order; i >= 1; i--) sum = sum * s + polynomial[i];
  sum *= s;
  return (u > 0.f && order % 2 == 0) ? -sum : sum;
}

GF_INLINE float piecewise_linear(float slope, float u) {
  if (slope == 0.f && u < 0.f) return 0.f;  // relu of -inf is 0, of NaN is NaN
  return u > 0.f ? u : u * slope;
}

GF_INLINE float exponential_unit(float scale, float alpha, int order, float u) {
  if (u < 0.f) return scale * alpha * (order == 0 ? expm1f(u) : expf(u));
  return order == 0 ? scale * u : order == 1 ? scale : 0.f;
}

// act^(order)(u) of the smooth activations, without gain and clamp.
GF_INLINE float smooth_activation(const ActivationSpec& spec, int order, float u) {
  switch (spec.act) {
    case kTanh: return order == 0 ? tanhf(u) : ldexpf(sigmoid_derivative(spec.sigmoid, order, 2.f * u), order + 1);
    case kSigmoid: return sigmoid_derivative(spec.sigmoid, order, u);
    case kElu: return exponential_unit(1.f, 1.f, order, u);
    case kSelu: return exponential_unit(1.0507009873554805f, 1.6732632423543772f, order, u);
    case kSoftplus:
      return order == 0 ? fmaxf(u, 0.f) + log1pf(expf(-fabsf(u))) : sigmoid_derivative(spec.sigmoid_below, order - 1, u);
    default:  // swish, u * sigmoid(u); the product rule leaves two terms
      return order == 0 ? u * sigmoid_derivative(spec.sigmoid, 0, u)
                        : u * sigmoid_derivative(spec.sigmoid, order, u) + order * sigmoid_derivative(spec.sigmoid_below, order - 1, u);
  }
}

GF_INLINE float limit(float value, float clamp) {
  if (clamp < 0.f) return value;
  return value > clamp ? clamp : value < -clamp ? -clamp : value;  // NaN stays NaN
}

// The value, order 0.
template <bool kPiecewise>
GF_INLINE float activate(const ActivationSpec& spec, float u) {
  return limit(spec.gain * (kPiecewise ? piecewise_linear(spec.slope, u) : smooth_activation(spec, 0, u)), spec.clamp);
}

// The factor gain * act^(order) inside the clamp, 0 outside. `ref` is the output y for a piecewise linear
// activation and the input u for a smooth one.
template <bool kPiecewise>
GF_INLINE float activation_factor(const ActivationSpec& spec, float ref) {
  if (kPiecewise) {
    const bool inside = spec.clamp < 0.f || fabsf(ref) < spec.clamp;
    const bool positive = spec.gain < 0.f ? ref < 0.f : ref > 0.f;
    return spec.order > 1 || !inside ? 0.f : positive ? spec.gain : spec.gain * spec.slope;
  }
  const bool inside = spec.clamp < 0.f || fabsf(spec.gain * smooth_activation(spec, 0, ref)) < spec.clamp;
  return inside ? spec.gain * smooth_activation(spec, spec.order, ref) : 0.f;
}

// x times the factor; 0 if the factor is 0, whatever x is: an infinite incoming gradient does not get past the clamp.
GF_INLINE float times_factor(float x, float factor) { return factor == 0.f ? 0.f : x * factor; }

}  // namespace ganformer
