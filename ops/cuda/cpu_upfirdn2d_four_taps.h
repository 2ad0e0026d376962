// upfirdn2d on the CPU for the cases that the networks use: float pictures, channels last in whole vectors, separable 4-tap filters with
// factor 2 up, 2 down, or 1. A sweep over the columns computes one row, or two for factor 2 up: each new column of pixels is combined
// along y, and then along x with the columns before it, which stay in the first-level cache. Memory is thus read and written steadily and
// in order, and a large result bypasses the caches.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu_past_cache.h"
#include "upfirdn2d_four_taps.h"

namespace ganformer {

inline bool takes_cpu_four_taps(const FirProblem& problem) {
  return problem.channels_last && problem.channels % kLanes == 0 && has_four_tap_variant(problem);
}

template <int kVariant>
class CpuUpfirdn2dFourTaps {
 public:
  CpuUpfirdn2dFourTaps(const FirProblem& problem, const void* x, void* y)
      : problem_(problem),
        x_(static_cast<const float*>(x)),
        y_(static_cast<float*>(y)),
        down_(walk_axis<kVariant>(problem.y_axis)),
        across_(walk_axis<kVariant>(problem.x_axis)) {
    strips_ = (down_.steps + kStrip - 1) / kStrip;
    tile_ = std::max<int64_t>(8, kTileFloats / (problem.channels * W::kAdvance));
    const uint64_t bytes = problem.samples * problem.y_axis.out * problem.x_axis.out * problem.channels * sizeof(float);
    past_cache_ = goes_past_cache(y, bytes);
    for (int out = 0; out < W::kOut; out++) {
      for (int sample = 0; sample < W::kWindow; sample++) {
        along_y_.of[out][sample] = axis_tap(problem.y_axis, problem.flip, walk_tap<kVariant>(out, sample));
        along_x_.of[out][sample] = axis_tap(problem.x_axis, problem.flip, walk_tap<kVariant>(out, sample));
      }
    }
  }

  int64_t tasks() const { return problem_.samples * strips_; }
  int64_t task_elements() const { return kStrip * W::kOut * problem_.x_axis.out * problem_.channels; }

  void run(int64_t first_task, int64_t last_task) const {
    Sweep sweep(problem_.channels);
    for (int64_t task = first_task; task < last_task; task++) {
      const int64_t first = task % strips_ * kStrip, last = std::min<int64_t>(first + kStrip, down_.steps);
      for (int64_t column = 0; column < across_.steps; column += tile_) {
        for (int64_t step = first; step < last; step++) {
          choose_rows(task / strips_, step, &sweep);
          write_columns(column, std::min<int64_t>(column + tile_, across_.steps), &sweep);
        }
      }
    }
    if (past_cache_) finish_past_cache();
  }

 private:
  typedef Walk<kVariant> W;
  static const int64_t kStrip = 8;           // steps down per task
  static const int64_t kTileFloats = 16384;  // per row of a tile: the rows of a step stay in the second-level cache

  // The taps that each output of a step applies to the window's samples.
  struct Taps {
    float of[W::kOut][W::kWindow];
  };

  // A column combined along y: [channels] for each output of a step down.
  struct Column {
    float* combined[W::kOut];
  };

  // The rows of a step down, and the window that moves over their columns; the oldest column comes first.
  struct Sweep {
    explicit Sweep(int64_t channels) : memory((W::kWindow * W::kOut + 2) * channels + kLanes, 0.f) {
      float* next = memory.data() + (kLanes - reinterpret_cast<uintptr_t>(memory.data()) / sizeof(float) % kLanes);
      unused = next;
      zeros = next + channels;
      next += 2 * channels;
      for (Column& column : window) {
        for (float*& combined : column.combined) {
          combined = next;
          next += channels;
        }
      }
    }

    std::vector<float> memory;
    const float* zeros;             // [channels], a pixel outside the image
    float* unused;                  // [channels], target for the pixels of a pair that do not exist
    const float* rows[W::kWindow];  // null outside the image
    float* out[W::kOut];            // null for the row of a pair that does not exist
    Column window[W::kWindow];
  };

  void choose_rows(int64_t image, int64_t step, Sweep* sweep) const {
    const Axis &y = problem_.y_axis, &x = problem_.x_axis;
    for (int r = 0; r < W::kWindow; r++) {
      const int64_t row = down_.origin + step * W::kAdvance + r;
      sweep->rows[r] = row >= 0 && row < y.in ? x_ + (image * y.in + row) * x.in * problem_.channels : nullptr;
    }
    for (int d = 0; d < W::kOut; d++) {
      const int64_t row = step * W::kOut + d - down_.shift;
      sweep->out[d] = row >= 0 && row < y.out ? y_ + (image * y.out + row) * x.out * problem_.channels : nullptr;
    }
  }

  void write_columns(int64_t first_step, int64_t last_step, Sweep* sweep) const {
    for (int held = 0; held < W::kHeld; held++) {
      Lanes unused[W::kOut];
      const Pixels from = pixels(*sweep, across_.origin + first_step * W::kAdvance + held);
      const Column to = sweep->window[W::kAdvance + held];
      for (int64_t c = 0; c < problem_.channels; c += kLanes) combine_column(along_y_, from, to, c, unused);
    }
    for (int64_t step = first_step; step < last_step; step++) {
      std::rotate(sweep->window, sweep->window + W::kAdvance, sweep->window + W::kWindow);
      past_cache_ ? write_step<true>(step, *sweep) : write_step<false>(step, *sweep);
    }
  }

  // The pixels of one column, one from each row.
  struct Pixels {
    const float* row[W::kWindow];
  };

  Pixels pixels(const Sweep& sweep, int64_t column) const {
    const bool inside = column >= 0 && column < problem_.x_axis.in;
    Pixels result;
    for (int r = 0; r < W::kWindow; r++) {
      result.row[r] = inside && sweep.rows[r] ? sweep.rows[r] + column * problem_.channels : sweep.zeros;
    }
    return result;
  }

  template <bool kPastCache>
  void write_step(int64_t step, const Sweep& sweep) const {
    Pixels fresh[W::kAdvance];
    for (int a = 0; a < W::kAdvance; a++) fresh[a] = pixels(sweep, across_.origin + step * W::kAdvance + W::kHeld + a);
    float* to[W::kOut][W::kOut];
    for (int d = 0; d < W::kOut; d++) {
      for (int e = 0; e < W::kOut; e++) {
        const int64_t column = step * W::kOut + e - across_.shift;
        const bool exists = sweep.out[d] && column >= 0 && column < problem_.x_axis.out;
        to[d][e] = exists ? sweep.out[d] + column * problem_.channels : sweep.unused;
      }
    }
    combine<kPastCache>(along_y_, along_x_, fresh, sweep.window, to, problem_.channels);
  }

  // Computes a step's outputs. Everything but the pixels is copied, so that the compiler need not reload it after every store.
  template <bool kPastCache>
  static void combine(const Taps along_y, const Taps along_x, const Pixels (&fresh)[W::kAdvance], const Column (&columns)[W::kWindow],
                      float* const (&to)[W::kOut][W::kOut], int64_t channels) {
    Column window[W::kWindow];
    std::copy(columns, columns + W::kWindow, window);
    for (int64_t c = 0; c < channels; c += kLanes) {
      Lanes combined[W::kWindow][W::kOut];
      for (int r = 0; r < W::kHeld; r++) {
        for (int d = 0; d < W::kOut; d++) combined[r][d] = load(window[r].combined[d] + c);
      }
      for (int a = 0; a < W::kAdvance; a++) combine_column(along_y, fresh[a], window[W::kHeld + a], c, combined[W::kHeld + a]);
      for (int d = 0; d < W::kOut; d++) {
        for (int e = 0; e < W::kOut; e++) {
          Lanes sum = along_x.of[e][0] * combined[0][d];
          for (int r = 1; r < W::kWindow; r++) sum += along_x.of[e][r] * combined[r][d];
          kPastCache ? store_past_cache(sum, to[d][e] + c) : store(sum, to[d][e] + c);
        }
      }
    }
  }

  static void combine_column(const Taps& along_y, const Pixels& from, const Column& to, int64_t c, Lanes (&sums)[W::kOut]) {
    Lanes samples[W::kWindow];
    for (int r = 0; r < W::kWindow; r++) samples[r] = load(from.row[r] + c);
    for (int d = 0; d < W::kOut; d++) {
      sums[d] = along_y.of[d][0] * samples[0];
      for (int r = 1; r < W::kWindow; r++) sums[d] += along_y.of[d][r] * samples[r];
      store(sums[d], to.combined[d] + c);
    }
  }

  FirProblem problem_;
  const float* x_;
  float* y_;
  WalkAxis down_, across_;
  int64_t strips_, tile_;
  bool past_cache_;
  Taps along_y_, along_x_;
};

}  // namespace ganformer
