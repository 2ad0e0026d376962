// Bias-act on the CPU: the same arguments as the launcher's, in lines of neighbouring elements that fit the first-level cache.
#pragma once

#include <algorithm>
#include <vector>

#include "activation.h"
#include "cpu_elements.h"
#include "launchers.h"

namespace ganformer {

const int64_t kLine = 1024;  // elements

// What the elements of a line have in common (a number) or not (a row of numbers).
struct LineTerm {
  const float* row;
  float number;
};

inline void add_term(const LineTerm& term, int64_t count, float* u) {
  if (term.row) {
    for (int64_t i = 0; i < count; i++) u[i] += term.row[i];
  } else if (term.number != 0.f) {
    for (int64_t i = 0; i < count; i++) u[i] += term.number;
  }
}

inline void multiply_term(const LineTerm& term, int64_t count, float* u) {
  if (term.row) {
    for (int64_t i = 0; i < count; i++) u[i] *= term.row[i];
  } else if (term.number != 1.f) {
    for (int64_t i = 0; i < count; i++) u[i] *= term.number;
  }
}

template <bool kPiecewise>
void activate_line(const ActivationSpec& spec, int64_t count, float* u) {
  const ActivationSpec local = spec;
  for (int64_t i = 0; i < count; i++) u[i] = activate<kPiecewise>(local, u[i]);
}

template <bool kPiecewise>
void multiply_factor(const ActivationSpec& spec, int64_t count, const float* ref, float* x) {
  const ActivationSpec local = spec;
  for (int64_t i = 0; i < count; i++) x[i] *= activation_factor<kPiecewise>(local, ref[i]);
}

template <typename T>
class CpuBiasAct {
 public:
  explicit CpuBiasAct(const GanformerBiasAct& args) : args_(args), piecewise_(is_piecewise_linear(args.act)) {
    const float clamp = to_float(element_from<T>(args.clamp));  // as the stored output shows it
    spec_ = make_activation(args.act, args.order, args.alpha, args.gain, clamp);
    // Short rows are joined while nothing depends on the sample or pixel; the bias is repeated to match.
    row_ = args.channels_last ? args.channels : args.pixels;
    repeats_ = args.channels_last && !args.scale && !args.noise ? std::max<int64_t>(1, kLine / row_) : 1;
    if (args.bias) {
      bias_ = decode(args.bias, args.channels);
      if (args.channels_last) {
        for (int64_t i = 1; i < repeats_; i++) bias_.insert(bias_.end(), bias_.begin(), bias_.begin() + row_);
      }
    }
    if (args.scale) scale_ = decode(args.scale, args.samples * args.channels);
    if (args.noise) noise_ = decode(args.noise, args.noise_samples * args.pixels);
    rows_ = args.samples * (args.channels_last ? args.pixels : args.channels);
  }

  // Groups of rows, the unit of work.
  int64_t groups() const { return (rows_ + repeats_ - 1) / repeats_; }
  int64_t group_elements() const { return row_ * repeats_; }

  void run(int64_t first_group, int64_t last_group) const {
    for (int64_t group = first_group; group < last_group; group++) {
      const int64_t row = group * repeats_;
      const int64_t count = std::min(repeats_, rows_ - row) * row_;
      for (int64_t at = 0; at < count; at += kLine) run_line(row, at, std::min(kLine, count - at));
    }
  }

 private:
  std::vector<float> decode(const void* values, int64_t count) const {
    std::vector<float> result(count);
    convert_all(static_cast<const T*>(values), count, result.data());
    return result;
  }

  LineTerm channel_term(const std::vector<float>& values, int64_t sample, int64_t channel, int64_t at, float missing) const {
    if (values.empty()) return LineTerm{nullptr, missing};
    const float* of_sample = values.data() + sample * args_.channels;
    return args_.channels_last ? LineTerm{of_sample + at, 0.f} : LineTerm{nullptr, of_sample[channel]};
  }

  LineTerm noise_term(int64_t sample, int64_t pixel, int64_t at) const {
    if (noise_.empty()) return LineTerm{nullptr, 0.f};
    const float* of_sample = noise_.data() + (args_.noise_samples == 1 ? 0 : sample) * args_.pixels;
    return args_.channels_last ? LineTerm{nullptr, of_sample[pixel]} : LineTerm{of_sample + at, 0.f};
  }

  void run_line(int64_t row, int64_t at, int64_t count) const {
    float x[kLine], other[kLine];
    const int64_t start = row * row_ + at;
    const int64_t middle = args_.channels_last ? args_.pixels : args_.channels;
    const int64_t sample = row / middle, in_sample = row % middle;  // in_sample: the pixel, or the channel
    const LineTerm bias = channel_term(bias_, 0, in_sample, at, 0.f);
    convert_all(static_cast<const T*>(args_.x) + start, count, x);
    if (spec_.order > 0) {
      std::fill(other, other + count, 0.f);
      if (args_.ref) convert_all(static_cast<const T*>(args_.ref) + start, count, other);
      if (!piecewise_) add_term(bias, count, other);
      piecewise_ ? multiply_factor<true>(spec_, count, other, x) : multiply_factor<false>(spec_, count, other, x);
    } else {
      multiply_term(channel_term(scale_, sample, in_sample, at, 1.f), count, x);
      if (args_.residual) {
        convert_all(static_cast<const T*>(args_.residual) + start, count, other);
        add_term(LineTerm{other, 0.f}, count, x);
      }
      add_term(noise_term(sample, in_sample, at), count, x);
      add_term(bias, count, x);
      piecewise_ ? activate_line<true>(spec_, count, x) : activate_line<false>(spec_, count, x);
    }
    convert_all(x, count, static_cast<T*>(args_.y) + start);
  }

  GanformerBiasAct args_;
  ActivationSpec spec_;
  bool piecewise_;
  int64_t row_, rows_, repeats_;
  std::vector<float> bias_, scale_, noise_;
};

}  // namespace ganformer
