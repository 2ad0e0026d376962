// NHWC: every thread owns one vector of channels (16 bytes if the sizes allow) and walks over pixels.
#pragma once

#include "upfirdn2d_walk.cuh"

namespace ganformer {

const int kBlockThreads = 256;

// Order of a block's threads: neighbouring channel vectors first, so that accesses coalesce; then neighbouring columns, which share
// samples in L1; then, if the picture is too narrow to fill the block, strips of rows.
struct ChannelsLastGrid {
  int lanes, side;           // channel vectors and columns side by side in a block, powers of two
  int64_t vectors, columns;  // of the problem
  int64_t tiles_c, tiles_x, strips, all_strips, tiles;
};

inline ChannelsLastGrid make_grid(int64_t vectors, int64_t columns, int64_t strips, int64_t samples) {
  ChannelsLastGrid grid;
  grid.lanes = 1;
  while (grid.lanes < 32 && grid.lanes < vectors) grid.lanes *= 2;
  grid.side = kBlockThreads / grid.lanes;
  // Fewer columns if that leaves fewer threads idle, as long as a warp stays within one strip.
  for (int side = grid.side / 2; side >= 8 && side * grid.lanes >= 32; side /= 2) {
    if (tiles_of(columns, side) * side < tiles_of(columns, grid.side) * grid.side) grid.side = side;
  }
  grid.vectors = vectors;
  grid.columns = columns;
  grid.tiles_c = tiles_of(vectors, grid.lanes);
  grid.tiles_x = tiles_of(columns, grid.side);
  grid.strips = strips;
  grid.all_strips = strips * samples;
  grid.tiles = grid.tiles_c * grid.tiles_x * tiles_of(grid.all_strips, kBlockThreads / (grid.lanes * grid.side));
  return grid;
}

struct Place {
  int64_t vector, column, strip, sample;
  bool inside;
};

__device__ __forceinline__ Place place_of(const ChannelsLastGrid& grid, int64_t tile) {
  Place place;
  const int lane = threadIdx.x & (grid.lanes - 1), beside = threadIdx.x / grid.lanes;
  const int64_t over_c = divide(tile, grid.tiles_c);
  const int64_t over_x = divide(over_c, grid.tiles_x);
  const int64_t strip = over_x * (kBlockThreads / (grid.lanes * grid.side)) + beside / grid.side;
  place.sample = divide(strip, grid.strips);
  place.strip = strip - place.sample * grid.strips;
  place.vector = (tile - over_c * grid.tiles_c) * grid.lanes + lane;
  place.column = (over_c - over_x * grid.tiles_x) * grid.side + (beside & (grid.side - 1));
  place.inside = place.vector < grid.vectors && place.column < grid.columns && strip < grid.all_strips;
  return place;
}

// ---- Any filter: a thread computes one output pixel, a strip is a row. ----

template <typename In, typename Out, int kSize>
__global__ void __launch_bounds__(kBlockThreads) direct_kernel(FirProblem p, ChannelsLastGrid grid, const In* x, Out* y) {
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
        load<In, kSize>(x + (row_start + column) * p.channels + at.vector * kSize, value);
        GF_UNROLL
        for (int v = 0; v < kSize; v++) sum[v] += weight * value[v];
      }
    }
    const int64_t pixel = (at.sample * p.y_axis.out + at.strip) * p.x_axis.out + at.column;
    store<Out, kSize>(sum, y + pixel * p.channels + at.vector * kSize);
  }
}

template <typename In, typename Out, int kSize>
void launch_direct_of(const FirProblem& p, const void* x, void* y, cudaStream_t stream) {
  const ChannelsLastGrid grid = make_grid(p.channels / kSize, p.x_axis.out, p.y_axis.out, p.samples);
  GF_LAUNCH((direct_kernel<In, Out, kSize>), block_count(grid.tiles, 1), kBlockThreads, 0, stream, p, grid,
            static_cast<const In*>(x), static_cast<Out*>(y));
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

// ---- Separable 4-tap filters: a thread walks down a strip of rows and keeps the rows it has filtered along x in registers. ----

// A thread's samples of one row, as they are in memory.
template <typename T, int kSize, int kVariant>
struct Row {
  Words<T, kSize> sample[Walk<kVariant>::kWindow];
};

// The samples that a thread reads, row by row; zero outside the image.
template <typename T, int kSize, int kVariant>
struct SampleRows {
  typedef Walk<kVariant> W;

  __device__ __forceinline__ SampleRows(const FirProblem& p, const T* x, const Place& at, int first_row, int first_column)
      : next_(x + ((at.sample * p.y_axis.in + first_row) * p.x_axis.in + first_column) * p.channels + at.vector * kSize),
        channels_(static_cast<int>(p.channels)),
        row_elements_(p.x_axis.in * p.channels),
        row_(first_row),
        rows_(static_cast<unsigned>(p.y_axis.in)) {
    GF_UNROLL
    for (int i = 0; i < W::kWindow; i++) inside_[i] = static_cast<unsigned>(first_column + i) < static_cast<unsigned>(p.x_axis.in);
  }

  __device__ __forceinline__ void fetch(Row<T, kSize, kVariant>& row) {
    const bool row_inside = static_cast<unsigned>(row_) < rows_;
    GF_UNROLL
    for (int i = 0; i < W::kWindow; i++) {
      row.sample[i] = Words<T, kSize>();
      if (row_inside && inside_[i]) row.sample[i] = load_constant_words<T, kSize>(next_ + i * channels_);
    }
    next_ += row_elements_;
    row_++;
  }

 private:
  const T* next_;
  int channels_;
  int64_t row_elements_;
  int row_;
  unsigned rows_;
  bool inside_[W::kWindow];
};

// A row combined along x into kOut columns.
template <typename T, int kSize, int kVariant>
__device__ __forceinline__ void filter_row(const Row<T, kSize, kVariant>& row, const float (&wx)[4],
                                           float (&out)[Walk<kVariant>::kOut][kSize]) {
  float value[Walk<kVariant>::kWindow][kSize];
  GF_UNROLL
  for (int i = 0; i < Walk<kVariant>::kWindow; i++) unpack<T, kSize>(row.sample[i], value[i]);
  GF_UNROLL
  for (int e = 0; e < Walk<kVariant>::kOut; e++) {
    GF_UNROLL
    for (int v = 0; v < kSize; v++) {
      out[e][v] = wx[walk_tap<kVariant>(e, 0)] * value[0][v];
      GF_UNROLL
      for (int i = 1; i < Walk<kVariant>::kWindow; i++) out[e][v] += wx[walk_tap<kVariant>(e, i)] * value[i][v];
    }
  }
}

// Where a thread's outputs go, step by step.
template <typename T, int kSize, int kVariant>
struct OutputRows {
  typedef Walk<kVariant> W;

  __device__ __forceinline__ OutputRows(const FirProblem& p, T* y, const Place& at, int first_row, int first_column)
      : next_(y + ((at.sample * p.y_axis.out + first_row) * p.x_axis.out + first_column) * p.channels + at.vector * kSize),
        channels_(static_cast<int>(p.channels)),
        row_elements_(p.x_axis.out * p.channels),
        row_(first_row),
        rows_(static_cast<unsigned>(p.y_axis.out)) {
    GF_UNROLL
    for (int e = 0; e < W::kOut; e++) inside_[e] = static_cast<unsigned>(first_column + e) < static_cast<unsigned>(p.x_axis.out);
  }

  // Combines the window along y; its oldest row is at `oldest`, a compile-time constant once the walk is unrolled.
  __device__ __forceinline__ void write(const float (&window)[W::kWindow][W::kOut][kSize], int oldest, const float (&wy)[4]) {
    GF_UNROLL
    for (int d = 0; d < W::kOut; d++) {
      const bool row_inside = static_cast<unsigned>(row_ + d) < rows_;
      GF_UNROLL
      for (int e = 0; e < W::kOut; e++) {
        if (!(row_inside && inside_[e])) continue;
        float sum[kSize];
        GF_UNROLL
        for (int v = 0; v < kSize; v++) {
          sum[v] = 0.f;
          GF_UNROLL
          for (int r = 0; r < W::kWindow; r++) {
            sum[v] += wy[walk_tap<kVariant>(d, r)] * window[(oldest + r) % W::kWindow][e][v];
          }
        }
        store<T, kSize>(sum, next_ + d * row_elements_ + e * channels_);
      }
    }
    next_ += W::kOut * row_elements_;
    row_ += W::kOut;
  }

 private:
  T* next_;
  int channels_;
  int64_t row_elements_;
  int row_;
  unsigned rows_;
  bool inside_[W::kOut];
};

// Rows are fetched one step before they are used. The window is a ring, unrolled so that its rows stay in registers. Three blocks per
// multiprocessor are just enough to keep the memory busy; down 2 has four times as many bytes in flight, so more registers help it more.
template <typename T, int kSize, int kVariant>
__global__ void __launch_bounds__(kBlockThreads, kVariant == kDown2 ? 2 : 3)
    four_tap_kernel(FirProblem p, ChannelsLastGrid grid, WalkAxis down, WalkAxis across, int strip_steps, const T* x, T* y) {
  typedef Walk<kVariant> W;
  float wy[4], wx[4];
  load_taps(p, wy, wx);
  for (int64_t tile = blockIdx.x; tile < grid.tiles; tile += gridDim.x) {
    const Place at = place_of(grid, tile);
    if (!at.inside) continue;
    const int first = static_cast<int>(at.strip) * strip_steps, column = static_cast<int>(at.column);
    SampleRows<T, kSize, kVariant> in(p, x, at, down.origin + first * W::kAdvance, across.origin + column * W::kAdvance);
    OutputRows<T, kSize, kVariant> out(p, y, at, first * W::kOut - down.shift, column * W::kOut - across.shift);
    float window[W::kWindow][W::kOut][kSize];
    Row<T, kSize, kVariant> rows[W::kAdvance], before[W::kHeld];
    GF_UNROLL
    for (int r = 0; r < W::kHeld; r++) in.fetch(before[r]);
    GF_UNROLL
    for (int r = 0; r < W::kAdvance; r++) in.fetch(rows[r]);
    GF_UNROLL
    for (int r = 0; r < W::kHeld; r++) filter_row<T, kSize, kVariant>(before[r], wx, window[W::kAdvance + r]);
    for (int steps = first + strip_steps < down.steps ? strip_steps : down.steps - first; steps > 0;) {
      GF_UNROLL
      for (int oldest = 0; oldest < W::kWindow; oldest += W::kAdvance, steps--) {
        if (steps == 0) break;  // as part of the loop condition, this would keep nvcc before 11.8 from unrolling
        GF_UNROLL
        for (int r = 0; r < W::kAdvance; r++) filter_row<T, kSize, kVariant>(rows[r], wx, window[oldest + r]);
        if (steps > 1) {
          GF_UNROLL
          for (int r = 0; r < W::kAdvance; r++) in.fetch(rows[r]);
        }
        out.write(window, oldest + W::kAdvance, wy);
      }
    }
  }
}

const int kStripBeginning = 8;  // start-up cost of a strip, in steps

template <typename T, int kSize, int kVariant>
void launch_walk(const FirProblem& p, const void* x, void* y, cudaStream_t stream) {
  static const int64_t resident = resident_blocks(four_tap_kernel<T, kSize, kVariant>, kBlockThreads);
  const WalkAxis down = walk_axis<kVariant>(p.y_axis), across = walk_axis<kVariant>(p.x_axis);
  const int64_t blocks = make_grid(p.channels / kSize, across.steps, 1, p.samples).tiles;
  const int strip_steps = strip_steps_for(blocks, down.steps, kStripBeginning, resident);
  const ChannelsLastGrid grid = make_grid(p.channels / kSize, across.steps, tiles_of(down.steps, strip_steps), p.samples);
  GF_LAUNCH((four_tap_kernel<T, kSize, kVariant>), block_count(grid.tiles, 1), kBlockThreads, 0, stream, p, grid, down, across,
            strip_steps, static_cast<const T*>(x), static_cast<T*>(y));
}

// Not part of the lambda below: there, g++ 7 fails with an internal error on constants such as `whole`.
template <typename T, int kVariant>
void launch_four_taps_variant(const FirProblem& p, const void* x, void* y, cudaStream_t stream) {
  const int kPack = 16 / sizeof(T);
  const bool whole = p.channels % kPack == 0 && aligned16(x) && aligned16(y);
  whole ? launch_walk<T, kPack, kVariant>(p, x, y, stream) : launch_walk<T, 1, kVariant>(p, x, y, stream);
}

template <typename T>
void launch_four_taps(const FirProblem& p, const void* x, void* y, cudaStream_t stream) {
  with_variant(p, [&](auto variant) { launch_four_taps_variant<T, decltype(variant)::value>(p, x, y, stream); });
}

}  // namespace ganformer
