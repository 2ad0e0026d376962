// upfirdn2d on the CPU for any filter, factors and layout: rows are filtered along x into a ring of line buffers, and these are combined
// along y, so that an image is read and written once. NCHW is the same problem with one channel and samples * channels images.
//
// Along x, output o = up * m + phase meets the samples down * m + first(phase) + n. If the samples are split by their remainder modulo
// `down`, every phase is therefore a sum of contiguous runs of numbers (m and the channels form one run), whatever the factors are.
// Pictures with many channels do not need this: see cpu_upfirdn2d_channels_last.h.
#pragma once

#include <type_traits>
#include <vector>

#include "cpu_combine.h"
#include "cpu_elements.h"
#include "upfirdn2d_problem.h"

namespace ganformer {

template <typename T>
class CpuUpfirdn2d {
 public:
  explicit CpuUpfirdn2d(const GanformerUpfirdn2d& args)
      : problem_(make_problem(args)), x_(static_cast<const T*>(args.x)), y_(static_cast<T*>(args.y)) {
    if (!problem_.channels_last) {
      problem_.samples *= problem_.channels;
      problem_.channels = 1;
    }
    const Axis& axis = problem_.x_axis;
    tasks_per_image_ = (problem_.y_axis.out + kRowsPerTask - 1) / kRowsPerTask;
    steps_ = (axis.out + axis.up - 1) / axis.up;
    tile_steps_ = std::min(steps_, std::max<int64_t>(8, kLineFloats / problem_.channels));
    first_sample_ = window_of(axis, 0).first_sample;
    int64_t reach = 0;
    for (int phase = 0; phase < axis.up; phase++) {
      const Window window = window_of(axis, phase);
      Phase met;
      for (int tap = window.first_tap, n = 0; tap < axis.taps; tap += axis.up, n++) {
        met.taps.push_back(tap);
        met.positions.push_back(window.first_sample + n - first_sample_);
        reach = std::max(reach, met.positions.back());
      }
      phases_.push_back(met);
    }
    split_ = (tile_steps_ + reach / axis.down) * problem_.channels;
    phase_line_ = tile_steps_ * problem_.channels;
  }

  int64_t tasks() const { return problem_.samples * tasks_per_image_; }
  int64_t task_elements() const { return kRowsPerTask * problem_.x_axis.out * problem_.channels; }

  void run(int64_t first_task, int64_t last_task) const {
    Buffers buffers(*this);
    for (int64_t task = first_task; task < last_task; task++) {
      const int64_t image = task / tasks_per_image_;
      const int64_t first_row = task % tasks_per_image_ * kRowsPerTask;
      const int64_t last_row = std::min(first_row + kRowsPerTask, problem_.y_axis.out);
      for (int64_t step = 0; step < steps_; step += tile_steps_) {
        buffers.start_tile(step, first_sample_ + step * problem_.x_axis.down);
        for (int64_t row = first_row; row < last_row; row++) run_row(image, row, &buffers);
      }
    }
  }

 private:
  static const int64_t kRowsPerTask = 16;
  static const int64_t kLineFloats = 2048;  // per phase of a tile: with a few taps, the line buffers stay in the first-level cache

  struct Phase {
    std::vector<int> taps;
    std::vector<int64_t> positions;  // of the samples for a tile's first step, counted from the tile's first sample
  };

  struct Buffers {
    explicit Buffers(const CpuUpfirdn2d& op)
        : slots(taps_met(op.problem_.y_axis)),
          line(op.phase_line_ * op.problem_.x_axis.up),
          first_step(0),
          first_sample(0),
          lines(slots * line),
          held(slots),
          samples(op.split_ * op.problem_.x_axis.down),
          sum(line) {}

    void start_tile(int64_t step, int64_t sample) {
      first_step = step;
      first_sample = sample;
      std::fill(held.begin(), held.end(), -1);
      std::fill(samples.begin(), samples.end(), 0.f);
    }

    int64_t slots, line;
    int64_t first_step, first_sample;  // of the tile: a range of columns
    std::vector<float> lines;    // [slots, phases, tile steps, channels]: rows filtered along x
    std::vector<int64_t> held;   // the row in each slot, -1 for none
    std::vector<float> samples;  // [down, split]: one row, zero outside the image
    std::vector<float> sum;      // [phases, tile steps, channels]
  };

  void run_row(int64_t image, int64_t out_row, Buffers* buffers) const {
    const Axis& axis = problem_.y_axis;
    const Window window = window_of(axis, out_row);
    const float* lines[kMaxTaps];
    float weights[kMaxTaps];
    int count = 0;
    int64_t row = window.first_sample;
    for (int tap = window.first_tap; tap < axis.taps; tap += axis.up, row++) {
      if (row < 0 || row >= axis.in) continue;
      if (problem_.separable) {
        lines[count] = filtered_row(image, row, buffers);
        weights[count++] = axis_tap(axis, problem_.flip, tap);
      } else {
        load_row(image, row, buffers);
        filter_along_x(*buffers, tap, count++ > 0, buffers->sum.data());
      }
    }
    const int64_t column = buffers->first_step * problem_.x_axis.up;
    T* const target = y_ + ((image * axis.out + out_row) * problem_.x_axis.out + column) * problem_.channels;
    if (problem_.separable) {
      write_combined(lines, weights, count, buffers, target);
    } else {
      if (count == 0) std::fill(buffers->sum.begin(), buffers->sum.end(), 0.f);
      write_phases(*buffers, buffers->sum.data(), target);
    }
  }

  const float* filtered_row(int64_t image, int64_t row, Buffers* buffers) const {
    const int64_t slot = row % buffers->slots;
    float* const line = buffers->lines.data() + slot * buffers->line;
    if (buffers->held[slot] != row) {
      load_row(image, row, buffers);
      filter_along_x(*buffers, 0, false, line);
      buffers->held[slot] = row;
    }
    return line;
  }

  // Loads the samples of the row that outputs meet, split by their remainder; the rest of the buffer stays zero.
  void load_row(int64_t image, int64_t row, Buffers* buffers) const {
    const Axis& axis = problem_.x_axis;
    const int64_t channels = problem_.channels;
    const int64_t origin = buffers->first_sample;
    const int64_t first = std::max<int64_t>(origin, 0);
    const int64_t last = std::min(axis.in, origin + split_ / channels * axis.down);
    const T* from = x_ + ((image * problem_.y_axis.in + row) * axis.in + first) * channels;
    float* const to = buffers->samples.data();
    if (axis.down == 1) {
      if (last > first) convert_all(from, (last - first) * channels, to + (first - origin) * channels);
      return;
    }
    for (int64_t split = 0; split < axis.down; split++) {
      const int64_t step = (first - origin - split + axis.down - 1) / axis.down;  // the split's first sample inside the image
      const int64_t sample = origin + step * axis.down + split;
      if (sample >= last) continue;
      copy_blocks(from + (sample - first) * channels, axis.down * channels, (last - sample + axis.down - 1) / axis.down, channels,
                  to + split * split_ + step * channels, channels);
    }
  }

  // Applies row `tap` of the filter (for a separable filter, its x part) to the loaded row.
  void filter_along_x(const Buffers& buffers, int tap, bool add, float* to) const {
    const Axis& axis = problem_.x_axis;
    for (const Phase& phase : phases_) {
      const float* lines[kMaxTaps];
      float weights[kMaxTaps];
      const int count = static_cast<int>(phase.taps.size());
      for (int n = 0; n < count; n++) {
        const int64_t position = phase.positions[n];
        lines[n] = buffers.samples.data() + position % axis.down * split_ + position / axis.down * problem_.channels;
        weights[n] = problem_.separable ? axis_tap(axis, problem_.flip, phase.taps[n]) : tap_weight(problem_, tap, phase.taps[n]);
      }
      combine(lines, weights, count, phase_line_, add, to);
      to += phase_line_;
    }
  }

  // Number of outputs of a phase in the tile.
  int64_t steps_of(const Buffers& tile, int64_t phase) const {
    const int64_t all = (problem_.x_axis.out - phase + problem_.x_axis.up - 1) / problem_.x_axis.up;
    return std::min(all - tile.first_step, tile_steps_);
  }

  void write_combined(const float* const* lines, const float* weights, int count, Buffers* buffers, T* target) const {
    if (problem_.x_axis.up == 1 && std::is_same<T, float>::value) {
      combine(lines, weights, count, steps_of(*buffers, 0) * problem_.channels, false, reinterpret_cast<float*>(target));
    } else {
      combine(lines, weights, count, buffers->line, false, buffers->sum.data());
      write_phases(*buffers, buffers->sum.data(), target);
    }
  }

  void write_phases(const Buffers& tile, const float* line, T* target) const {
    const int64_t up = problem_.x_axis.up, channels = problem_.channels;
    for (int64_t phase = 0; phase < up; phase++, line += phase_line_) {
      const int64_t steps = steps_of(tile, phase);
      if (up == 1) {
        convert_all(line, steps * channels, target);
      } else {
        copy_blocks(line, channels, steps, channels, target + phase * channels, up * channels);
      }
    }
  }

  FirProblem problem_;
  const T* x_;
  T* y_;
  int64_t tasks_per_image_, steps_, tile_steps_, first_sample_, split_, phase_line_;
  std::vector<Phase> phases_;
};

}  // namespace ganformer
