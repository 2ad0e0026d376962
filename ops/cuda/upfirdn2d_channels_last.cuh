// NHWC: every thread owns one vector of channels (16 bytes where the sizes allow) and walks over pixels.
#pragma once

#include "upfirdn2d_problem.cuh"

namespace ganformer {

const int kBlockThreads = 256;

// Threads of a block: neighbouring channel vectors first, so that accesses coalesce, then neighbouring columns, which share samples in L1.
struct ChannelsLastGrid {
  int lanes;                // channel vectors side by side in a block, a power of two up to 32
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
  const int64_t tile_c = tile % grid.tiles_c;
  tile /= grid.tiles_c;
  const int64_t tile_x = tile % grid.tiles_x;
  tile /= grid.tiles_x;
  place.strip = tile % grid.strips;
  place.sample = tile / grid.strips;
  const int lane = threadIdx.x % grid.lanes;
  place.vector = tile_c * grid.lanes + lane;
  place.column = tile_x * (kBlockThreads / grid.lanes) + threadIdx.x / grid.lanes;
  place.inside = place.vector < grid.vectors && place.column < grid.columns;
  return place;
}

__device__ __forceinline__ int64_t pixel_index(const FirProblem& p, const Axis& y_axis_rows, int64_t rows, int64_t columns, const Place& at,
                                               int64_t row, int64_t column, int size) {
  (void)y_axis_rows;
  return ((at.sample * rows + row) * columns + column) * p.channels + at.vector * size;
}

// ---- Any filter: one thread, one output pixel. ----

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
      int64_t column = columns.first_sample;
      for (int i = columns.first_tap; i < p.x_axis.taps; i += p.x_axis.up, column++) {
        if (column < 0 || column >= p.x_axis.in) continue;
        const float weight = tap_weight(p, j, i);
        float value[kSize];
        load<In, kSize>(x, pixel_index(p, p.y_axis, p.y_axis.in, p.x_axis.in, at, row, column, kSize), value);
        GF_UNROLL
        for (int v = 0; v < kSize; v++) sum[v] += weight * value[v];
      }
    }
    store<Out, kSize>(y, pixel_index(p, p.y_axis, p.y_axis.out, p.x_axis.out, at, at.strip, at.column, kSize), sum);
  }
}
}  // namespace ganformer
