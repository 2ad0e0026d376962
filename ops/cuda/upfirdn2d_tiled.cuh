// NCHW, any filter: a block loads a tile of one channel into shared memory, filters it along x, then along y.
#pragma once

#include "portable.h"
#include "upfirdn2d_problem.h"

namespace ganformer {

const int kTileThreads = 256;
const int kTileHeight = 32, kTileWidth = 64;
const int64_t kSharedFloats = 48 * 1024 / sizeof(float);

// The largest number of samples that `outputs` neighbouring outputs meet.
inline int tile_extent(int outputs, int up, int down, int taps) {
  return ((outputs - 1) * down + up - 1) / up + (taps + up - 1) / up;
}

struct TileShape {
  int out_h, out_w, in_h, in_w;
  int64_t tiles_y, tiles_x, tiles;
};

inline int64_t shared_floats(const FirProblem& p, const TileShape& shape) {
  const int filters = p.separable ? p.y_axis.taps + p.x_axis.taps : p.y_axis.taps * p.x_axis.taps;
  return filters + static_cast<int64_t>(shape.in_h) * shape.in_w + (p.separable ? static_cast<int64_t>(shape.in_h) * shape.out_w : 0);
}

inline TileShape make_tiles(const FirProblem& p) {
  TileShape shape;
  shape.out_h = kTileHeight;
  shape.out_w = kTileWidth;
  for (;;) {
    // Computed in 64 bits first: a huge factor must shrink the tile, not overflow.
    const int64_t in_h = (static_cast<int64_t>(shape.out_h - 1) * p.y_axis.down) / p.y_axis.up + kMaxTaps;
    const int64_t in_w = (static_cast<int64_t>(shape.out_w - 1) * p.x_axis.down) / p.x_axis.up + kMaxTaps;
    if (in_h < kSharedFloats && in_w < kSharedFloats) {
      shape.in_h = tile_extent(shape.out_h, p.y_axis.up, p.y_axis.down, p.y_axis.taps);
      shape.in_w = tile_extent(shape.out_w, p.x_axis.up, p.x_axis.down, p.x_axis.taps);
      if (shared_floats(p, shape) <= kSharedFloats) break;
    }
    int& larger = in_h > in_w ? shape.out_h : shape.out_w;
    int& other = in_h > in_w ? shape.out_w : shape.out_h;
    (larger > 1 ? larger : other) /= 2;
  }
  shape.tiles_y = (p.y_axis.out + shape.out_h - 1) / shape.out_h;
  shape.tiles_x = (p.x_axis.out + shape.out_w - 1) / shape.out_w;
  shape.tiles = shape.tiles_y * shape.tiles_x * p.samples * p.channels;
  return shape;
}

// Where a tile's outputs meet its samples, relative to the corners of the output tile and the input tile.
struct TileAxis {
  int64_t first_sample;
  int phase;  // position of the first output's tap 0 relative to first_sample, in upsampled steps, -up < phase <= 0
};

__device__ __forceinline__ TileAxis tile_axis(const Axis& axis, int64_t first_output) {
  const Window window = window_of(axis, first_output);
  return TileAxis{window.first_sample, -window.first_tap};
}

// sum_n weights[tap + n * up] * samples[(first + n) * stride]
__device__ __forceinline__ float filter_at(const float* weights, const float* samples, int output, int phase, int up, int down, int taps,
                                           int stride) {
  const int start = output * down + phase;
  const int first = (start + up - 1) / up;
  float sum = 0.f;
  int n = first;
  for (int j = first * up - start; j < taps; j += up, n++) sum += weights[j] * samples[n * stride];
  return sum;
}

template <typename T>
__global__ void __launch_bounds__(kTileThreads) tiled_kernel(FirProblem p, TileShape shape, const T* x, T* y) {
  GF_SHARED(shared);
  const int up_y = p.y_axis.up, up_x = p.x_axis.up, down_y = p.y_axis.down, down_x = p.x_axis.down;
  const int taps_y = p.y_axis.taps, taps_x = p.x_axis.taps;
  const int out_h = shape.out_h, out_w = shape.out_w, in_h = shape.in_h, in_w = shape.in_w;
  const int filters = p.separable ? taps_y + taps_x : taps_y * taps_x;
  float* const weights = shared;
  float* const samples = weights + filters;
  float* const rows = samples + in_h * in_w;
  const int thread = threadIdx.x;

  for (int k = thread; k < filters; k += kTileThreads) {
    weights[k] = !p.separable ? tap_weight(p, k / taps_x, k % taps_x)
                 : k < taps_y ? axis_tap(p.y_axis, p.flip, k)
                              : axis_tap(p.x_axis, p.flip, k - taps_y);
  }
  for (int64_t tile = blockIdx.x; tile < shape.tiles; tile += gridDim.x) {
    const int64_t over_x = divide(tile, shape.tiles_x);
    const int64_t plane = divide(over_x, shape.tiles_y);
    const int64_t first_row = (over_x - plane * shape.tiles_y) * out_h;
    const int64_t first_column = (tile - over_x * shape.tiles_x) * out_w;
    const TileAxis along_y = tile_axis(p.y_axis, first_row), along_x = tile_axis(p.x_axis, first_column);
    for (int k = thread; k < in_h * in_w; k += kTileThreads) {
      const int64_t row = along_y.first_sample + k / in_w, column = along_x.first_sample + k % in_w;
      const bool inside = row >= 0 && row < p.y_axis.in && column >= 0 && column < p.x_axis.in;
      samples[k] = inside ? to_float(x[(plane * p.y_axis.in + row) * p.x_axis.in + column]) : 0.f;
    }
    __syncthreads();
    if (p.separable) {
      for (int k = thread; k < in_h * out_w; k += kTileThreads) {
        rows[k] = filter_at(weights + taps_y, samples + k / out_w * in_w, k % out_w, along_x.phase, up_x, down_x, taps_x, 1);
      }
      __syncthreads();
    }
    for (int k = thread; k < out_h * out_w; k += kTileThreads) {
      const int row = k / out_w, column = k % out_w;
      if (first_row + row >= p.y_axis.out || first_column + column >= p.x_axis.out) continue;
      float sum = 0.f;
      if (p.separable) {
        sum = filter_at(weights, rows + column, row, along_y.phase, up_y, down_y, taps_y, out_w);
      } else {
        const int start = row * down_y + along_y.phase;
        int n = (start + up_y - 1) / up_y;
        for (int j = n * up_y - start; j < taps_y; j += up_y, n++) {
          sum += filter_at(weights + j * taps_x, samples + n * in_w, column, along_x.phase, up_x, down_x, taps_x, 1);
        }
      }
      y[(plane * p.y_axis.out + first_row + row) * p.x_axis.out + first_column + column] = from_float<T>(sum);
    }
    __syncthreads();
  }
}

template <typename T>
void launch_tiled(const FirProblem& p, const void* x, void* y, cudaStream_t stream) {
  const TileShape shape = make_tiles(p);
  const size_t bytes = shared_floats(p, shape) * sizeof(float);
  GF_LAUNCH_TILED((tiled_kernel<T>), block_count(shape.tiles, 1), kTileThreads, bytes, stream, p, shape, static_cast<const T*>(x),
                  static_cast<T*>(y));
}

}  // namespace ganformer
