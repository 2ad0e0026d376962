// The plain C interface of the kernels. Sizes are in elements, pointers are to device memory, stream is a cudaStream_t.
// The structs are mirrored with ctypes in benchmarks/cuda_kernels.py: keep the order of the fields.
#pragma once

#include <stdint.h>

enum GanformerType { GANFORMER_FLOAT32 = 0, GANFORMER_FLOAT16 = 1, GANFORMER_BFLOAT16 = 2 };

// order 0:  y = clamp(gain * act(u)),  u = x * scale[n, c] + residual + noise[n or 0, pixel] + bias[c]
// order k:  y = x * gain * act^(k) inside the clamp, else 0. act^(k) is evaluated from ref: the output y for linear, relu and lrelu;
//           for the others the input before the bias, u = ref + bias[c].
// scale, residual, noise, bias and ref may be null (ref only for linear without a clamp, or for order 0).
struct GanformerBiasAct {
  const void* x;         // [samples, pixels, channels] or [samples, channels, pixels]
  const void* scale;     // [samples, channels]
  const void* residual;  // like x
  const void* noise;     // [noise_samples, pixels]
  const void* bias;      // [channels]
  const void* ref;       // like x
  void* y;               // like x
  int64_t samples;
  int64_t channels;
  int64_t pixels;
  int64_t noise_samples;  // 1 or samples
  int32_t channels_last;
  int32_t type;
  int32_t act;
  int32_t order;
  float alpha;
  float gain;
  float clamp;  // < 0: none
};

// y[o] = sum_j w[j] * z[o * down + j - pad0] along both axes, z = x with up - 1 zeros after each sample, 0 outside;
// w[j] = f[len - 1 - j], or f[j] with flip. A negative pad0 crops.
struct GanformerUpfirdn2d {
  const void* x;
  const float* fy;  // [taps_y], or [taps_y, taps_x] if fx is null
  const float* fx;  // [taps_x] or null
  void* y;
  void* workspace;  // ganformer_upfirdn2d_workspace() bytes, 16-byte aligned; may be null if that is 0
  int64_t samples;
  int64_t channels;
  int64_t in_h, in_w, out_h, out_w;
  int32_t taps_y, taps_x;
  int32_t up_y, up_x, down_y, down_x;
  int32_t pad_y0, pad_x0;
  int32_t flip;
  int32_t channels_last;
  int32_t type;
};

extern "C" {
// Return a cudaError_t, 0 for success.
int ganformer_bias_act(const GanformerBiasAct* args, void* stream);
int ganformer_upfirdn2d(const GanformerUpfirdn2d* args, void* stream);
int64_t ganformer_upfirdn2d_workspace(const GanformerUpfirdn2d* args);
}
