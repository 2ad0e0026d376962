// upfirdn2d on the CPU: rows are filtered along x into a ring of line buffers, and these are combined along y, so that an image is read
// and written once. NCHW is the same problem with one channel and samples * channels images.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu_elements.h"
#include "upfirdn2d_problem.h"

namespace ganformer {

const int64_t kRowsPerTask = 16;

// to = sum_n weights[n] * lines[n], a few terms at a time so that sums stay in registers.
inline void combine_lines(const float* const* lines, const float* weights, int count, int64_t size, float* to) {
  if (count == 0) std::fill(to, to + size, 0.f);
  for (int n = 0; n < count; n += 4) {
    const int left = std::min(count - n, 4);
    const float *a = lines[n], *b = lines[n + std::min(1, left - 1)], *c = lines[n + std::min(2, left - 1)], *d = lines[n + left - 1];
    const float wa = weights[n], wb = left > 1 ? weights[n + 1] : 0.f, wc = left > 2 ? weights[n + 2] : 0.f,
                wd = left > 3 ? weights[n + 3] : 0.f;
    if (n > 0) {
      for (int64_t i = 0; i < size; i++) to[i] += wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i];
    } else if (left == 1) {
      for (int64_t i = 0; i < size; i++) to[i] = wa * a[i];
    } else if (left == 2) {
      for (int64_t i = 0; i < size; i++) to[i] = wa * a[i] + wb * b[i];
    } else {
      for (int64_t i = 0; i < size; i++) to[i] = wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i];
    }
  }
}

template <typename T>
class CpuUpfirdn2d {
 public:
  explicit CpuUpfirdn2d(const GanformerUpfirdn2d& args)
      : problem_(make_problem(args)), x_(static_cast<const T*>(args.x)), y_(static_cast<T*>(args.y)) {
    if (!problem_.channels_last) {
      problem_.samples *= problem_.channels;
      problem_.channels = 1;
    }
    tasks_per_image_ = (problem_.y_axis.out + kRowsPerTask - 1) / kRowsPerTask;
    in_line_ = problem_.x_axis.in * problem_.channels;
    out_line_ = problem_.x_axis.out * problem_.channels;
  }

  int64_t tasks() const { return problem_.samples * tasks_per_image_; }
  int64_t task_elements() const { return kRowsPerTask * out_line_; }

  void run(int64_t first_task, int64_t last_task) const {
    Buffers buffers(*this);
    for (int64_t task = first_task; task < last_task; task++) {
      const int64_t image = task / tasks_per_image_;
      const int64_t first_row = task % tasks_per_image_ * kRowsPerTask;
      const int64_t last_row = std::min(first_row + kRowsPerTask, problem_.y_axis.out);
      std::fill(buffers.held.begin(), buffers.held.end(), -1);
      for (int64_t row = first_row; row < last_row; row++) run_row(image, row, &buffers);
    }
  }

 private:
  struct Buffers {
    explicit Buffers(const CpuUpfirdn2d& op)
        : slots(op.problem_.separable ? taps_met(op.problem_.y_axis) : 1),
          lines(slots * op.out_line_),
          held(slots),
          in_line(op.in_line_),
          out_line(op.out_line_) {}
    int64_t slots;
    std::vector<float> lines;   // [slots, out_line]: rows filtered along x
    std::vector<int64_t> held;  // the row in each slot, -1 for none
    std::vector<float> in_line, out_line;
  };

  void run_row(int64_t image, int64_t out_row, Buffers* buffers) const {
    const Axis& axis = problem_.y_axis;
    const Window window = window_of(axis, out_row);
    const float* lines[kMaxTaps];
    float weights[kMaxTaps];
    int count = 0;
    T* const target = y_ + (image * axis.out + out_row) * out_line_;
    float* const sum = direct(target, buffers->out_line.data());
    if (!problem_.separable) std::fill(sum, sum + out_line_, 0.f);
    int64_t row = window.first_sample;
    for (int tap = window.first_tap; tap < axis.taps; tap += axis.up, row++) {
      if (row < 0 || row >= axis.in) continue;
      if (problem_.separable) {
        lines[count] = filtered_row(image, row, buffers);
        weights[count++] = axis_tap(axis, problem_.flip, tap);
      } else {
        filter_along_x(image, row, tap, buffers, buffers->lines.data());
        for (int64_t i = 0; i < out_line_; i++) sum[i] += buffers->lines[i];
      }
    }
    if (problem_.separable) combine_lines(lines, weights, count, out_line_, sum);
    finish(sum, target);
  }

  const float* filtered_row(int64_t image, int64_t row, Buffers* buffers) const {
    const int64_t slot = row % buffers->slots;
    float* const line = buffers->lines.data() + slot * out_line_;
    if (buffers->held[slot] != row) {
      filter_along_x(image, row, 0, buffers, line);
      buffers->held[slot] = row;
    }
    return line;
  }

  // One input row with the filter's row `tap` (only the x part of a separable filter) into out_line_ numbers.
  void filter_along_x(int64_t image, int64_t row, int tap, Buffers* buffers, float* to) const {
    const Axis& axis = problem_.x_axis;
    const int64_t channels = problem_.channels;
    const float* from = source(x_ + (image * problem_.y_axis.in + row) * in_line_, buffers->in_line.data());
    const float* lines[kMaxTaps];
    float weights[kMaxTaps];
    for (int64_t out = 0; out < axis.out; out++, to += channels) {
      const Window window = window_of(axis, out);
      int count = 0;
      int64_t column = window.first_sample;
      for (int i = window.first_tap; i < axis.taps; i += axis.up, column++) {
        if (column < 0 || column >= axis.in) continue;
        lines[count] = from + column * channels;
        weights[count++] = problem_.separable ? axis_tap(axis, problem_.flip, i) : tap_weight(problem_, tap, i);
      }
      combine_lines(lines, weights, count, channels, to);
    }
  }

  // float is read and written in place, other types through a line.
  const float* source(const float* from, float*) const { return from; }
  template <typename U>
  const float* source(const U* from, float* line) const {
    load_elements(from, in_line_, line);
    return line;
  }
  float* direct(float* target, float*) const { return target; }
  template <typename U>
  float* direct(U*, float* line) const {
    return line;
  }
  void finish(const float*, float*) const {}
  template <typename U>
  void finish(const float* line, U* target) const {
    store_elements(line, out_line_, target);
  }

  FirProblem problem_;
  const T* x_;
  T* y_;
  int64_t tasks_per_image_, in_line_, out_line_;
};

}  // namespace ganformer
