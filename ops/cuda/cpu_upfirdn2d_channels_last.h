// upfirdn2d on the CPU for separable filters and enough channels to fill vectors: a row is filtered along x, column by column, into a line
// in the output's order, and lines are combined along y straight into the result. Floats are not copied or split on the way.
#pragma once

#include <type_traits>
#include <vector>

#include "cpu_combine.h"
#include "cpu_elements.h"
#include "upfirdn2d_problem.h"

namespace ganformer {

template <typename T>
class CpuUpfirdn2dChannelsLast {
 public:
  explicit CpuUpfirdn2dChannelsLast(const GanformerUpfirdn2d& args)
      : problem_(make_problem(args)), x_(static_cast<const T*>(args.x)), y_(static_cast<T*>(args.y)) {
    const Axis& axis = problem_.x_axis;
    tasks_per_image_ = (problem_.y_axis.out + kRowsPerTask - 1) / kRowsPerTask;
    tile_columns_ = std::min(axis.out, std::max<int64_t>(1, kLineFloats / problem_.channels));
    for (int64_t column = 0; column < axis.out; column++) columns_.push_back(met_by(axis, column));
    for (int phase = 0; phase < axis.up; phase++) {
      weights_.emplace_back();
      for (int tap = phase; tap < axis.taps; tap += axis.up) weights_.back().push_back(axis_tap(axis, problem_.flip, tap));
    }
  }

  static bool takes(const GanformerUpfirdn2d& args) {
    return args.channels_last && args.fx != nullptr && args.channels >= kVectorChannels;
  }

  int64_t tasks() const { return problem_.samples * tasks_per_image_; }
  int64_t task_elements() const { return kRowsPerTask * problem_.x_axis.out * problem_.channels; }

  void run(int64_t first_task, int64_t last_task) const {
    Tile tile(*this);
    for (int64_t task = first_task; task < last_task; task++) {
      const int64_t first_row = task % tasks_per_image_ * kRowsPerTask;
      const int64_t last_row = std::min(first_row + kRowsPerTask, problem_.y_axis.out);
      tile.image = task / tasks_per_image_;
      for (int64_t column = 0; column < problem_.x_axis.out; column += tile_columns_) {
        tile.start(column, std::min(tile_columns_, problem_.x_axis.out - column));
        for (int64_t row = first_row; row < last_row; row++) write_row(row, &tile);
      }
    }
  }

 private:
  static const int64_t kRowsPerTask = 32;
  static const int64_t kLineFloats = 16384;   // per tile: the lines of a few taps stay in the second-level cache
  static const int64_t kVectorChannels = 16;  // with fewer, the sums for single columns are too short

  // The taps first_tap, first_tap + up, ... that an output meets inside the image, at neighbouring samples.
  struct Met {
    int64_t first_sample;
    int first_tap, count;
  };

  static Met met_by(const Axis& axis, int64_t output) {
    const Window window = window_of(axis, output);
    const int64_t outside = std::max<int64_t>(0, -window.first_sample);
    Met met = {window.first_sample + outside, static_cast<int>(window.first_tap + outside * axis.up), 0};
    while (met.first_tap + met.count * axis.up < axis.taps && met.first_sample + met.count < axis.in) met.count++;
    return met;
  }

  // A range of columns of an image, and the rows most recently filtered along x. The thread keeps the memory: getting new pages takes
  // longer than filtering a small picture.
  struct Tile {
    explicit Tile(const CpuUpfirdn2dChannelsLast& op) : held(taps_met(op.problem_.y_axis)), line(op.tile_columns_ * op.problem_.channels) {
      static thread_local std::vector<float> memory;
      const size_t converted = std::is_same<T, float>::value ? 0 : line + op.problem_.x_axis.in * op.problem_.channels;
      const size_t size = held.size() * line + converted;
      if (memory.size() < size) memory = std::vector<float>(size);
      lines = memory.data();
      sum = lines + held.size() * line;
      samples = sum + line;
    }

    void start(int64_t first, int64_t count) {
      first_column = first;
      columns = count;
      std::fill(held.begin(), held.end(), -1);
    }

    int64_t image, first_column, columns;
    std::vector<int64_t> held;  // the row in each slot, -1 for none
    int64_t line;               // numbers in a slot
    float* lines;               // [slots, tile columns, channels]
    float* sum;                 // [tile columns, channels], unless T is float
    float* samples;             // [columns in, channels], likewise
  };

  void write_row(int64_t out_row, Tile* tile) const {
    const Axis& axis = problem_.y_axis;
    const Met met = met_by(axis, out_row);
    const float* lines[kMaxTaps];
    float weights[kMaxTaps];
    for (int n = 0; n < met.count; n++) {
      lines[n] = filtered_row(met.first_sample + n, tile);
      weights[n] = axis_tap(axis, problem_.flip, met.first_tap + n * axis.up);
    }
    T* const target = y_ + ((tile->image * axis.out + out_row) * problem_.x_axis.out + tile->first_column) * problem_.channels;
    write_combined(lines, weights, met.count, tile, target);
  }

  void write_combined(const float* const* lines, const float* weights, int count, Tile* tile, float* target) const {
    combine(lines, weights, count, tile->columns * problem_.channels, false, target);
  }
  template <typename U>
  void write_combined(const float* const* lines, const float* weights, int count, Tile* tile, U* target) const {
    combine(lines, weights, count, tile->columns * problem_.channels, false, tile->sum);
    convert_all(tile->sum, tile->columns * problem_.channels, target);
  }

  const float* filtered_row(int64_t row, Tile* tile) const {
    const int64_t slot = row % tile->held.size();
    float* const line = tile->lines + slot * tile->line;
    if (tile->held[slot] != row) {
      const int64_t start = (tile->image * problem_.y_axis.in + row) * problem_.x_axis.in * problem_.channels;
      filter_along_x(samples_of(x_ + start, tile), *tile, line);
      tile->held[slot] = row;
    }
    return line;
  }

  // The row as floats, at least the part that the tile meets.
  const float* samples_of(const float* row, Tile*) const { return row; }
  template <typename U>
  const float* samples_of(const U* row, Tile* tile) const {
    const Met &first = columns_[tile->first_column], &last = columns_[tile->first_column + tile->columns - 1];
    const int64_t begin = first.first_sample * problem_.channels;
    const int64_t end = std::min(last.first_sample + last.count, problem_.x_axis.in) * problem_.channels;
    if (end > begin) convert_all(row + begin, end - begin, tile->samples + begin);
    return tile->samples;
  }

  void filter_along_x(const float* samples, const Tile& tile, float* line) const {
    const Axis& axis = problem_.x_axis;
    const int64_t channels = problem_.channels, last_column = tile.first_column + tile.columns;
    for (int64_t column = tile.first_column; column < last_column;) {
      const Met& met = columns_[column];
      const int64_t run = run_length(column, last_column);
      const float* lines[kMaxTaps];
      for (int n = 0; n < met.count; n++) lines[n] = samples + (met.first_sample + n) * channels;
      const float* weights = met.count ? weights_[met.first_tap % axis.up].data() + met.first_tap / axis.up : nullptr;
      combine(lines, weights, met.count, run * channels, false, line);
      line += run * channels;
      column += run;
    }
  }

  // How many columns, starting with this one, meet the same taps, each one sample further on: they are computed as one sum.
  int64_t run_length(int64_t column, int64_t last) const {
    const Met& met = columns_[column];
    int64_t run = 1;
    while (column + run < last && columns_[column + run].first_tap == met.first_tap && columns_[column + run].count == met.count &&
           columns_[column + run].first_sample == met.first_sample + run) {
      run++;
    }
    return run;
  }

  FirProblem problem_;
  const T* x_;
  T* y_;
  int64_t tasks_per_image_, tile_columns_;
  std::vector<Met> columns_;                 // what each column meets
  std::vector<std::vector<float>> weights_;  // for each phase, of the taps phase, phase + up, ...
};

}  // namespace ganformer
