// NHWC: every thread owns one vector of channels (16 bytes where the sizes allow) and walks over pixels.
#pragma once

#include "portable.h"
#include "upfirdn2d_problem.h"

namespace ganformer {

const int kBlockThreads = 256;

// Threads of a block: neighbouring channel vectors first, so that accesses coalesce, then neighbouring columns, which share samples in L1.
struct ChannelsLastGrid {
  int lanes;                 // channel vectors side by side in a block, a power of two up to 32
  int64_t vectors, columns;  // of the problem
  int64_t tiles_c, tiles_x, strips, tiles;
};

inline ChannelsLastGrid make_grid(int64_t vectors, int64_t columns, int64_t strips, int64_t samples) {
  ChannelsLastGrid grid;
  grid.lanes = 1;
  while (grid.lanes < 32 && grid.lanes < vectors) grid.lanes *= 2;
  grid.vectors = vectors;
  grid.columns = columns;
  const int64_t side = kBlockThreads / grid.lanes;
  grid.tiles_c = (vectors + grid.lanes - 1) / grid.lanes;
  grid.tiles_x = (columns + side - 1) / side;
  grid.strips = strips;
  grid.tiles = grid.tiles_c * grid.tiles_x * strips * samples;
  return grid;
}

struct Place {
  int64_t vector, column, strip, sample;
  bool inside;
};

__device__ __forceinline__ Place place_of(const ChannelsLastGrid& grid, int64_t tile) {
  Place place;
  const int64_t over_c = divide(tile, grid.tiles_c);
  const int64_t over_x = divide(over_c, grid.tiles_x);
  place.sample = divide(over_x, grid.strips);
  place.strip = over_x - place.sample * grid.strips;
  const int lane = threadIdx.x % grid.lanes;
  place.vector = (tile - over_c * grid.tiles_c) * grid.lanes + lane;
  place.column = (over_c - over_x * grid.tiles_x) * (kBlockThreads / grid.lanes) + threadIdx.x / grid.lanes;
  place.inside = place.vector < grid.vectors && place.column < grid.columns;
  return place;
}

// ---- Any filter: a thread computes one output pixel, a strip is a row. ----

template <typename In, typename Out, int kSize>
__global__ void __launch_bounds__(kBlockThreads) direct_kernel(FirProblem p, ChannelsLastGrid grid, const void* x, void* y) {
  for (int64_t tile = blockIdx.x; tile < grid.tiles; tile += gridDim.x) {
    const Place at = place_of(grid, tile);
    if (!at.inside) continue;
    const Window rows = window_of(p.y_axis, at.strip);
    const Window columns = window_of(p.x_axis, at.column);
    float sum[kSize] = {0.f};
    int64_t row = rows.first_sample;
    for (int j = rows.first_tap; j < p.y_axis.taps; j += p.y_axis.up, row++) {
      if (row < 0 || row >= p.y_axis.in) continue;
      const int64_t row_start = (at.sample * p.y_axis.in + row) * p.x_axis.in;
      int64_t column = columns.first_sample;
      for (int i = columns.first_tap; i < p.x_axis.taps; i += p.x_axis.up, column++) {
        if (column < 0 || column >= p.x_axis.in) continue;
        const float weight = tap_weight(p, j, i);
        float value[kSize];
        load<In, kSize>(x, (row_start + column) * p.channels + at.vector * kSize, value);
        GF_UNROLL
        for (int v = 0; v < kSize; v++) sum[v] += weight * value[v];
      }
    }
    const int64_t pixel = (at.sample * p.y_axis.out + at.strip) * p.x_axis.out + at.column;
    store<Out, kSize>(y, pixel * p.channels + at.vector * kSize, sum);
  }
}

template <typename In, typename Out, int kSize>
void launch_direct_of(const FirProblem& p, const void* x, void* y, cudaStream_t stream) {
  const ChannelsLastGrid grid = make_grid(p.channels / kSize, p.x_axis.out, p.y_axis.out, p.samples);
  GF_LAUNCH((direct_kernel<In, Out, kSize>), block_count(grid.tiles, 1), kBlockThreads, 0, stream, p, grid, x, y);
}

template <typename In, typename Out>
void launch_direct(const FirProblem& p, const void* x, void* y, cudaStream_t stream) {
  const int kPack = 16 / (sizeof(In) > sizeof(Out) ? sizeof(In) : sizeof(Out));
  if (p.channels % kPack == 0 && aligned16(x) && aligned16(y)) {
    launch_direct_of<In, Out, kPack>(p, x, y, stream);
  } else {
    launch_direct_of<In, Out, 1>(p, x, y, stream);
  }
}

// ---- Separable 4-tap filters. A thread walks down a strip of rows and keeps the rows that it has filtered along x in registers. ----

enum FourTaps { kUp2, kDown2, kSame };

// What one step of the walk needs. With factor 2 up, two outputs per axis share the same two samples (each uses two of the taps).
template <int kVariant>
struct Walk {
  static const int kColumnsIn = kVariant == kUp2 ? 2 : 4;    // samples read per row
  static const int kOut = kVariant == kUp2 ? 2 : 1;          // outputs per axis and step
  static const int kWindow = kVariant == kUp2 ? 2 : 4;       // rows that an output needs
  static const int kAdvance = kVariant == kDown2 ? 2 : 1;    // new rows per step
};

// For up 2: outputs are paired so that a pair shares its samples, which begins one before output 0 for even pads.
struct WalkAxis {
  int shift;        // outputs of the first pair that do not exist
  int64_t origin;   // first sample of step 0
  int64_t steps;
};

template <int kVariant>
inline WalkAxis walk_axis(const Axis& axis) {
  WalkAxis walk;
  walk.shift = kVariant == kUp2 && axis.pad0 % 2 == 0 ? 1 : 0;
  walk.origin = kVariant == kUp2 ? -((axis.pad0 + walk.shift - 1) / 2) : -static_cast<int64_t>(axis.pad0);
  walk.steps = (axis.out + walk.shift + Walk<kVariant>::kOut - 1) / Walk<kVariant>::kOut;
  return walk;
}

// The samples of one row combined along x into kOut columns, zero outside the image.
template <typename T, int kSize, int kVariant>
__device__ __forceinline__ void filter_row(const FirProblem& p, const void* x, const float (&wx)[4], int64_t row_start, bool row_inside,
                                           int64_t column, int64_t channel, float (&out)[Walk<kVariant>::kOut][kSize]) {
  float value[Walk<kVariant>::kColumnsIn][kSize];
  GF_UNROLL
  for (int i = 0; i < Walk<kVariant>::kColumnsIn; i++) {
    GF_UNROLL
    for (int v = 0; v < kSize; v++) value[i][v] = 0.f;
    const int64_t at = column + i;
    if (row_inside && at >= 0 && at < p.x_axis.in) load<T, kSize>(x, (row_start + at) * p.channels + channel, value[i]);
  }
  GF_UNROLL
  for (int v = 0; v < kSize; v++) {
    if (kVariant == kUp2) {
      out[0][v] = wx[1] * value[0][v] + wx[3] * value[1][v];
      out[Walk<kVariant>::kOut - 1][v] = wx[0] * value[0][v] + wx[2] * value[1][v];
    } else {
      float sum = 0.f;
      GF_UNROLL
      for (int i = 0; i < Walk<kVariant>::kColumnsIn; i++) sum += wx[i] * value[i][v];
      out[0][v] = sum;
    }
  }
}

template <typename T, int kSize, int kVariant>
__global__ void __launch_bounds__(kBlockThreads)
    four_tap_kernel(FirProblem p, ChannelsLastGrid grid, WalkAxis down, WalkAxis across, int strip_steps, const void* x, void* y) {
  typedef Walk<kVariant> W;
  float wy[4], wx[4];
  GF_UNROLL
  for (int j = 0; j < 4; j++) {
    wy[j] = axis_tap(p.y_axis, p.flip, j);
    wx[j] = axis_tap(p.x_axis, p.flip, j);
  }
  for (int64_t tile = blockIdx.x; tile < grid.tiles; tile += gridDim.x) {
    const Place at = place_of(grid, tile);
    if (!at.inside) continue;
    const int64_t channel = at.vector * kSize;
    const int64_t column = across.origin + at.column * (kVariant == kDown2 ? 2 : 1);
    const int64_t first = at.strip * strip_steps;
    const int64_t last = first + strip_steps < down.steps ? first + strip_steps : down.steps;
    int64_t row = down.origin + first * W::kAdvance;
    float window[W::kWindow][W::kOut][kSize];
    GF_UNROLL
    for (int r = W::kAdvance; r < W::kWindow; r++, row++) {
      filter_row<T, kSize, kVariant>(p, x, wx, (at.sample * p.y_axis.in + row) * p.x_axis.in, row >= 0 && row < p.y_axis.in, column,
                                     channel, window[r]);
    }
    for (int64_t step = first; step < last; step++) {
      GF_UNROLL
      for (int r = 0; r < W::kWindow; r++) {
        if (r < W::kWindow - W::kAdvance) {
          GF_UNROLL
          for (int e = 0; e < W::kOut; e++) {
            GF_UNROLL
            for (int v = 0; v < kSize; v++) window[r][e][v] = window[(r + W::kAdvance) % W::kWindow][e][v];
          }
        } else {
          filter_row<T, kSize, kVariant>(p, x, wx, (at.sample * p.y_axis.in + row) * p.x_axis.in, row >= 0 && row < p.y_axis.in, column,
                                         channel, window[r]);
          row++;
        }
      }
      GF_UNROLL
      for (int d = 0; d < W::kOut; d++) {
        const int64_t out_row = step * W::kOut + d - down.shift;
        if (out_row < 0 || out_row >= p.y_axis.out) continue;
        GF_UNROLL
        for (int e = 0; e < W::kOut; e++) {
          const int64_t out_column = at.column * W::kOut + e - across.shift;
          if (out_column < 0 || out_column >= p.x_axis.out) continue;
          float sum[kSize];
          GF_UNROLL
          for (int v = 0; v < kSize; v++) {
            sum[v] = 0.f;
            GF_UNROLL
            for (int r = 0; r < W::kWindow; r++) sum[v] += wy[kVariant == kUp2 ? 1 - d + 2 * r : r] * window[r][e][v];
          }
          store<T, kSize>(y, ((at.sample * p.y_axis.out + out_row) * p.x_axis.out + out_column) * p.channels + channel, sum);
        }
      }
    }
  }
}

inline bool has_four_tap_variant(const FirProblem& p) {
  const Axis &y = p.y_axis, &x = p.x_axis;
  return p.separable && y.taps == 4 && x.taps == 4 && y.up == x.up && y.down == x.down && y.up * y.down <= 2;
}

template <typename T, int kSize, int kVariant>
void launch_walk(const FirProblem& p, const void* x, void* y, cudaStream_t stream) {
  const WalkAxis down = walk_axis<kVariant>(p.y_axis), across = walk_axis<kVariant>(p.x_axis);
  // Long strips read fewer rows twice, short ones give more threads: about 2^18 fill the largest GPU.
  int strip_steps = 16;
  while (strip_steps > 2 && p.samples * (p.channels / kSize) * across.steps * (down.steps / strip_steps + 1) < (1 << 18)) strip_steps /= 2;
  const ChannelsLastGrid grid = make_grid(p.channels / kSize, across.steps, (down.steps + strip_steps - 1) / strip_steps, p.samples);
  GF_LAUNCH((four_tap_kernel<T, kSize, kVariant>), block_count(grid.tiles, 1), kBlockThreads, 0, stream, p, grid, down, across, strip_steps,
            x, y);
}

template <typename T, int kSize>
void launch_four_taps_of(const FirProblem& p, const void* x, void* y, cudaStream_t stream) {
  if (p.y_axis.up == 2) {
    launch_walk<T, kSize, kUp2>(p, x, y, stream);
  } else if (p.y_axis.down == 2) {
    launch_walk<T, kSize, kDown2>(p, x, y, stream);
  } else {
    launch_walk<T, kSize, kSame>(p, x, y, stream);
  }
}

template <typename T>
void launch_four_taps(const FirProblem& p, const void* x, void* y, cudaStream_t stream) {
  const int kPack = 16 / sizeof(T);
  if (p.channels % kPack == 0 && aligned16(x) && aligned16(y)) {
    launch_four_taps_of<T, kPack>(p, x, y, stream);
  } else {
    launch_four_taps_of<T, 1>(p, x, y, stream);
  }
}

}  // namespace ganformer
