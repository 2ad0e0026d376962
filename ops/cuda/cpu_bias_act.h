// Bias-act on the CPU, with the launcher's arguments, in lines of neighbouring elements. Terms shared by several elements are repeated,
// so that a single loop computes a line.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "activation.h"
#include "cpu_elements.h"
#include "cpu_past_cache.h"
#include "launchers.h"

namespace ganformer {

const int64_t kLine = 1024;  // elements

// The terms of a line's elements; absent ones are ones (scale) or zeros.
struct LineTerms {
  const float *scale, *residual, *noise, *bias;
};

template <bool kPiecewise>
void activate_line(const ActivationSpec& spec, const LineTerms& terms, const float* x, int64_t count, float* y) {
  const ActivationSpec local = spec;
  const LineTerms line = terms;
#pragma GCC ivdep
  for (int64_t i = 0; i < count; i++) {
    y[i] = activate<kPiecewise>(local, x[i] * line.scale[i] + line.residual[i] + line.noise[i] + line.bias[i]);
  }
}

template <bool kPiecewise>
void multiply_factor(const ActivationSpec& spec, const float* ref, const float* bias, const float* x, int64_t count, float* y) {
  const ActivationSpec local = spec;
#pragma GCC ivdep
  for (int64_t i = 0; i < count; i++) {
    y[i] = times_factor(x[i], activation_factor<kPiecewise>(local, kPiecewise ? ref[i] : ref[i] + bias[i]));
  }
}

template <typename T>
class CpuBiasAct {
 public:
  explicit CpuBiasAct(const GanformerBiasAct& args)
      : args_(args), piecewise_(is_piecewise_linear(args.act)), zeros_(kLine, 0.f), ones_(kLine, 1.f) {
    const float clamp = to_float(element_from<T>(args.clamp));  // as it appears in the stored output
    spec_ = make_activation(args.act, args.order, args.alpha, args.gain, clamp);
    if (args.channels_last && !args.scale && (!args.noise || args.noise_samples == args.samples)) {
      args_.pixels *= args.samples;  // nothing depends on the sample
      args_.samples = args_.noise_samples = 1;
    }
    pixels_ = args.channels_last ? std::max<int64_t>(1, std::min(args_.pixels, kLine / args.channels)) : 1;
    blocks_ = args.channels_last ? (args_.pixels + pixels_ - 1) / pixels_ : args.channels;
    if (args.bias) bias_ = decode(args.bias, 1, args.channels);
    if (args.scale) scale_ = decode(args.scale, args.samples, args.channels);
    const uint64_t elements = args.samples * args.pixels * args.channels;
    past_cache_ = std::is_same<T, float>::value && args.x != args.y && goes_past_cache(args.y, elements * sizeof(T));
  }

  // A task is a block of a sample: neighbouring pixels for channels last, one channel for channels first.
  int64_t tasks() const { return args_.samples * blocks_; }
  int64_t task_elements() const { return args_.channels_last ? pixels_ * args_.channels : args_.pixels; }

  void run(int64_t first_task, int64_t last_task) const {
    Buffers buffers;
    const int64_t sample_elements = args_.pixels * args_.channels;
    for (int64_t task = first_task; task < last_task; task++) {
      const int64_t sample = task / blocks_, first = task % blocks_ * task_elements();
      const int64_t count = std::min(task_elements(), sample_elements - first);
      for (int64_t at = 0; at < count; at += kLine) {
        run_line(sample, first + at, at, std::min(kLine, count - at), &buffers);
      }
    }
    if (past_cache_) finish_past_cache();
  }

 private:
  struct Buffers {
    float x[kLine], y[kLine], other[kLine];  // other: the residual, or ref
    float scale[kLine], noise[kLine], bias[kLine];
  };

  // Per-channel values as floats; for channels last, every row is repeated for each pixel of a block.
  std::vector<float> decode(const void* values, int64_t rows, int64_t channels) const {
    std::vector<float> result(rows * pixels_ * channels);
    for (int64_t row = 0; row < rows; row++) {
      float* const to = result.data() + row * pixels_ * channels;
      convert_all(static_cast<const T*>(values) + row * channels, channels, to);
      for (int64_t pixel = 1; pixel < pixels_; pixel++) std::copy(to, to + channels, to + pixel * channels);
    }
    return result;
  }

  // Elements start, start + 1, ... of a tensor shaped like x.
  static const float* elements(const void* tensor, int64_t start, int64_t count, float* buffer) {
    return floats(static_cast<const T*>(tensor) + start, count, buffer);
  }
  static const float* floats(const float* from, int64_t, float*) { return from; }
  template <typename U>
  static const float* floats(const U* from, int64_t count, float* buffer) {
    convert_all(from, count, buffer);
    return buffer;
  }

  // The per-channel values for a line that begins at element `first` of the sample, which is element `at` of its block.
  const float* channel_line(const std::vector<float>& values, int64_t sample, int64_t first, int64_t at, int64_t count,
                            const float* absent, float* buffer) const {
    if (values.empty()) return absent;
    if (args_.channels_last) return values.data() + sample * pixels_ * args_.channels + at;
    std::fill(buffer, buffer + count, values[sample * args_.channels + first / args_.pixels]);
    return buffer;
  }

  const float* noise_line(int64_t sample, int64_t first, int64_t at, int64_t count, const float* absent, float* buffer) const {
    if (!args_.noise) return absent;
    const T* const of_sample = static_cast<const T*>(args_.noise) + (args_.noise_samples == 1 ? 0 : sample * args_.pixels);
    if (!args_.channels_last) return floats(of_sample + at, count, buffer);
    int64_t pixel = first / args_.channels;
    for (int64_t i = 0, end = (pixel + 1) * args_.channels - first; i < count; end += args_.channels, pixel++) {
      float value;
      convert(of_sample[pixel], &value);
      for (; i < std::min(end, count); i++) buffer[i] = value;
    }
    return buffer;
  }

  void run_line(int64_t sample, int64_t first, int64_t at, int64_t count, Buffers* buffers) const {
    const int64_t start = sample * args_.pixels * args_.channels + first;
    const float* const x = elements(args_.x, start, count, buffers->x);
    const float* const bias = channel_line(bias_, 0, first, at, count, zeros_.data(), buffers->bias);
    float* const y = place_of(static_cast<T*>(args_.y) + start, buffers);
    if (spec_.order > 0) {
      const float* const ref = args_.ref ? elements(args_.ref, start, count, buffers->other) : zeros_.data();
      piecewise_ ? multiply_factor<true>(spec_, ref, bias, x, count, y) : multiply_factor<false>(spec_, ref, bias, x, count, y);
    } else {
      LineTerms terms;
      terms.scale = channel_line(scale_, sample, first, at, count, ones_.data(), buffers->scale);
      terms.residual = args_.residual ? elements(args_.residual, start, count, buffers->other) : zeros_.data();
      terms.noise = noise_line(sample, first, at, count, zeros_.data(), buffers->noise);
      terms.bias = bias;
      piecewise_ ? activate_line<true>(spec_, terms, x, count, y) : activate_line<false>(spec_, terms, x, count, y);
    }
    finish_line(y, count, static_cast<T*>(args_.y) + start);
  }

  // Where a line's results are computed: in place if nothing is left to be done with them.
  float* place_of(float* result, Buffers* buffers) const { return past_cache_ ? buffers->y : result; }
  template <typename U>
  float* place_of(U*, Buffers* buffers) const {
    return buffers->y;
  }

  void finish_line(const float* line, int64_t count, float* result) const {
    if (!past_cache_) return;
    int64_t i = 0;
    for (; i < count && reinterpret_cast<uintptr_t>(result + i) % sizeof(Lanes) != 0; i++) result[i] = line[i];
    for (; i + kLanes <= count; i += kLanes) store_past_cache(load(line + i), result + i);
    for (; i < count; i++) result[i] = line[i];
  }
  template <typename U>
  void finish_line(const float* line, int64_t count, U* result) const {
    convert_all(line, count, result);
  }

  GanformerBiasAct args_;
  ActivationSpec spec_;
  bool piecewise_, past_cache_;
  int64_t pixels_, blocks_;  // pixels per block for channels last, else 1; blocks per sample
  std::vector<float> bias_, scale_;
  const std::vector<float> zeros_, ones_;  // lines of absent terms
};

}  // namespace ganformer
