// NCHW, separable 4-tap filters. The lanes of a warp hold neighbouring columns of a plane and walk down a strip of rows. A lane reads only
// its own samples, combines them along y, and gets the others it needs along x from the lanes beside it.
#pragma once

#include "upfirdn2d_walk.cuh"

namespace ganformer {

const int kPlaneThreads = 256, kWarp = 32, kPlaneWarps = kPlaneThreads / kWarp;

// What a lane holds of a row. kWhole: with the sizes and pads that the networks use, it can read and write several neighbours as one word.
// Lanes then cover the outputs without gaps, and the first and the last lane of a warp also read the sample beyond their own, the edge.
// Otherwise the last lanes of a warp only serve those to their left.
template <int kVariant, bool kWhole>
struct Lanes {
  static const int kSamples = (kVariant == kDown2 ? 2 : 1) * (kWhole ? 2 : 1);
  static const int kOut = (kVariant == kUp2 ? 2 : 1) * (kWhole ? 2 : 1);
  static const int kHalo = kWhole ? 0 : kVariant == kDown2 ? 1 : kVariant == kUp2 ? 2 : 3;  // lanes to the right that an output needs
  static const int kComplete = kWarp - kHalo;                // lanes of a warp that have everything they need
  static const int kOwn = kSamples + (kWhole ? 1 : 0);       // including the edge
  static const int kTurn = kVariant == kSame ? 16 : 4;       // steps whose rows are fetched together
};

// Whether the sizes and pad of an axis let lanes hold whole words along it.
template <int kVariant>
inline bool holds_whole(const Axis& axis) {
  return kVariant == kUp2     ? axis.in % 2 == 0 && axis.out == 2 * axis.in && axis.pad0 == 2
         : kVariant == kDown2 ? axis.in % 4 == 0 && axis.in == 2 * axis.out && axis.pad0 == 1
                              : false;
}

// All planes side by side, each including the lanes beside its outputs; the last lanes of a warp repeat as the first of the next.
struct PlaneGrid {
  int64_t planes, lanes, strips, tiles;  // lanes: of one plane
  int origin;                            // first sample of a plane's unit 0
  bool even;                             // kUp2: a lane's first output meets taps 0 and 2, not 1 and 3
};

template <int kVariant, bool kWhole>
inline PlaneGrid make_plane_grid(const FirProblem& p) {
  typedef Lanes<kVariant, kWhole> L;
  const Axis& axis = p.x_axis;
  PlaneGrid grid;
  grid.planes = p.samples * p.channels;
  grid.lanes = tiles_of(axis.out, L::kOut) + L::kHalo;
  grid.origin = kWhole ? 0 : static_cast<int>(-floor_divide(axis.pad0, axis.up));
  grid.even = axis.pad0 % 2 == 0;
  return grid;
}

struct LanePlace {
  int64_t plane;
  int unit;                    // which kOut of the plane's outputs
  bool inside;                 // the plane exists
  bool complete;               // all lanes it needs are in the same warp
  bool first_lane, last_lane;  // of the warp
  bool first_unit, last_unit;  // of the plane
};

template <int kVariant, bool kWhole>
__device__ __forceinline__ LanePlace lane_place(const PlaneGrid& grid, int64_t group) {
  typedef Lanes<kVariant, kWhole> L;
  const int lane = threadIdx.x % kWarp;
  const int64_t flat = (group * kPlaneWarps + threadIdx.x / kWarp) * L::kComplete + lane;
  LanePlace place;
  place.plane = divide(flat, grid.lanes);
  place.unit = static_cast<int>(flat - place.plane * grid.lanes);
  place.inside = place.plane < grid.planes;
  place.complete = place.inside && lane < L::kComplete;
  place.first_lane = lane == 0;
  place.last_lane = lane == kWarp - 1;
  place.first_unit = place.unit == 0;
  place.last_unit = place.unit == grid.lanes - 1;
  return place;
}

// A lane's samples of a row, as they are in memory: one word and the edge, or single numbers.
template <typename T, int kVariant, bool kWhole>
struct LaneRow {
  typedef Lanes<kVariant, kWhole> L;
  static const int kEach = kWhole ? L::kSamples : 1, kWords = L::kSamples / kEach;
  Words<T, kEach> words[kWords];
  Words<T, 1> edge;  // kWhole

  __device__ __forceinline__ void get(float (&out)[L::kOwn]) const {
    GF_UNROLL
    for (int i = 0; i < kWords; i++) get_word<kEach>(words[i], out + i * kEach);
    if (kWhole) get_word<1>(edge, out + L::kOwn - 1);
  }

 private:
  template <int kCount>
  static __device__ __forceinline__ void get_word(const Words<T, kCount>& word, float* out) {
    float numbers[kCount];
    unpack<T, kCount>(word, numbers);
    GF_UNROLL
    for (int k = 0; k < kCount; k++) out[k] = numbers[k];
  }
};

static __device__ const uint4 kZeroWords = {0, 0, 0, 0};

// How many of an image's `rows` rows come before row `end`, which may lie above the image.
__device__ __forceinline__ unsigned rows_before(int end, int64_t rows) {
  return end < 0 ? 0 : end < rows ? static_cast<unsigned>(end) : static_cast<unsigned>(rows);
}

// The numbers of a column, row by row; zero outside the image and from row `end` on. The zeros are read from kZeroWords: an unconditional
// load goes straight to its register.
template <typename T, int kEach>
struct ColumnRows {
  const char* next;
  uint32_t row_bytes;

  __device__ __forceinline__ void start(const T* first, bool inside, int64_t row_elements) {
    next = inside ? reinterpret_cast<const char*>(first) : zeros();
    row_bytes = inside ? static_cast<uint32_t>(row_elements * sizeof(T)) : 0;
  }
  __device__ __forceinline__ Words<T, kEach> fetch(int ahead, bool row_inside) const {
    const char* at = row_inside ? next + static_cast<uint64_t>(row_bytes) * ahead : zeros();
    return load_constant_words<T, kEach>(reinterpret_cast<const T*>(at));
  }
  __device__ __forceinline__ void advance(int rows) { next += static_cast<uint64_t>(row_bytes) * rows; }

 private:
  static __device__ __forceinline__ const char* zeros() { return reinterpret_cast<const char*>(&kZeroWords); }
};

template <typename T, int kVariant, bool kWhole>
struct LaneRows {
  typedef Lanes<kVariant, kWhole> L;
  typedef LaneRow<T, kVariant, kWhole> Row;

  __device__ __forceinline__ LaneRows(const FirProblem& p, const T* x, const LanePlace& at, int first_row, int end, int column)
      : row_(first_row), rows_(rows_before(end, p.y_axis.in)) {
    const T* const first = x + (at.plane * p.y_axis.in + first_row) * p.x_axis.in + column;
    GF_UNROLL
    for (int i = 0; i < Row::kWords; i++) {
      words_[i].start(first + i, at.inside && static_cast<unsigned>(column + i) < static_cast<unsigned>(p.x_axis.in), p.x_axis.in);
    }
    const bool left = at.first_lane && !at.first_unit, right = at.last_lane && !at.last_unit;
    edge_.start(left ? first - 1 : first + L::kSamples, at.inside && (left || right), p.x_axis.in);
  }

  // Fetches the row `ahead` rows after the current one.
  __device__ __forceinline__ void fetch(int ahead, Row& row) const {
    const bool row_inside = static_cast<unsigned>(row_ + ahead) < rows_;
    GF_UNROLL
    for (int i = 0; i < Row::kWords; i++) row.words[i] = words_[i].fetch(ahead, row_inside);
    if (kWhole) row.edge = edge_.fetch(ahead, row_inside);
  }

  __device__ __forceinline__ void advance(int rows) {
    GF_UNROLL
    for (int i = 0; i < Row::kWords; i++) words_[i].advance(rows);
    edge_.advance(rows);
    row_ += rows;
  }

 private:
  ColumnRows<T, Row::kEach> words_[Row::kWords];
  ColumnRows<T, 1> edge_;
  int row_;
  unsigned rows_;
};

__device__ __forceinline__ float left_of(float last, float edge, const LanePlace& at) {
  const float left = shuffle_up(last, 1);
  return at.first_lane ? edge : at.first_unit ? 0.f : left;
}
__device__ __forceinline__ float right_of(float first, float edge, const LanePlace& at) {
  const float right = shuffle_down(first, 1);
  return at.last_lane ? edge : at.last_unit ? 0.f : right;
}

// A lane's outputs of a row, from what it and the lanes beside it have combined along y. even: a lane's first output meets taps 0 and 2,
// not 1 and 3. One overload per variant. kSame:
__device__ __forceinline__ void combine_lanes(const float (&own)[1], const float (&w)[4], const LanePlace&, bool, float (&out)[1]) {
  const float right = shuffle_down(own[0], 1);
  out[0] = w[0] * own[0] + w[1] * right + shuffle_down(w[2] * own[0] + w[3] * right, 2);
}
// kDown2:
__device__ __forceinline__ void combine_lanes(const float (&own)[2], const float (&w)[4], const LanePlace&, bool, float (&out)[1]) {
  out[0] = w[0] * own[0] + w[1] * own[1] + shuffle_down(w[2] * own[0] + w[3] * own[1], 1);
}
// kDown2, whole:
__device__ __forceinline__ void combine_lanes(const float (&own)[5], const float (&w)[4], const LanePlace& at, bool, float (&out)[2]) {
  const float left = left_of(own[3], own[4], at), right = right_of(own[0], own[4], at);
  out[0] = w[0] * left + w[1] * own[0] + w[2] * own[1] + w[3] * own[2];
  out[1] = w[0] * own[1] + w[1] * own[2] + w[2] * own[3] + w[3] * right;
}
// kUp2:
__device__ __forceinline__ void combine_lanes(const float (&own)[1], const float (&w)[4], const LanePlace&, bool even, float (&out)[2]) {
  const float right = shuffle_down(own[0], 1);
  const float by_even = w[0] * own[0] + w[2] * right, by_odd = w[1] * own[0] + w[3] * right;
  const float by_odd_right = shuffle_down(by_odd, 1);
  out[0] = even ? by_even : by_odd;
  out[1] = even ? by_odd_right : by_even;
}
// kUp2, whole:
__device__ __forceinline__ void combine_lanes(const float (&own)[3], const float (&w)[4], const LanePlace& at, bool, float (&out)[4]) {
  const float left = left_of(own[1], own[2], at), right = right_of(own[0], own[2], at);
  out[0] = w[0] * left + w[2] * own[0];
  out[1] = w[1] * own[0] + w[3] * own[1];
  out[2] = w[0] * own[0] + w[2] * own[1];
  out[3] = w[1] * own[1] + w[3] * right;
}

// Where a lane's outputs go, row by row; nothing is written from row `end` on.
template <typename T, int kVariant, bool kWhole>
struct LaneOutputs {
  typedef Walk<kVariant> W;
  typedef Lanes<kVariant, kWhole> L;

  __device__ __forceinline__ LaneOutputs(const FirProblem& p, const PlaneGrid& grid, T* y, const LanePlace& at, int first_row, int end)
      : next_(reinterpret_cast<char*>(y + (at.plane * p.y_axis.out + first_row) * p.x_axis.out + at.unit * L::kOut)),
        row_bytes_(static_cast<uint32_t>(p.x_axis.out * sizeof(T))),
        row_(first_row),
        rows_(rows_before(end, p.y_axis.out)),
        at_(at),
        even_(grid.even) {
    GF_UNROLL
    for (int e = 0; e < kStores; e++) inside_[e] = at.complete && at.unit * L::kOut + e < p.x_axis.out;
  }

  // Combines the window along y for row `phase` of a step, then the lanes; the result goes `ahead` rows after the current one. The
  // window's oldest row is at `oldest`, a compile-time constant once the walk is unrolled.
  __device__ __forceinline__ void write(int ahead, int phase, const float (&window)[W::kWindow][L::kOwn], int oldest,
                                        const float (&wy)[4], const float (&wx)[4]) {
    float own[L::kOwn], out[L::kOut];
    GF_UNROLL
    for (int i = 0; i < L::kOwn; i++) {
      own[i] = wy[walk_tap<kVariant>(phase, 0)] * window[oldest % W::kWindow][i];
      GF_UNROLL
      for (int r = 1; r < W::kWindow; r++) own[i] += wy[walk_tap<kVariant>(phase, r)] * window[(oldest + r) % W::kWindow][i];
    }
    combine_lanes(own, wx, at_, even_, out);
    const bool row_inside = static_cast<unsigned>(row_ + ahead) < rows_;
    T* const at = reinterpret_cast<T*>(next_ + static_cast<uint64_t>(row_bytes_) * ahead);
    GF_UNROLL
    for (int e = 0; e < kStores; e++) {
      float numbers[kEach];
      GF_UNROLL
      for (int k = 0; k < kEach; k++) numbers[k] = out[e * kEach + k];
      if (row_inside && inside_[e]) store<T, kEach>(numbers, at + e);
    }
  }

  __device__ __forceinline__ void advance(int rows) {
    next_ += static_cast<uint64_t>(row_bytes_) * rows;
    row_ += rows;
  }

 private:
  static const int kEach = kWhole ? L::kOut : 1, kStores = L::kOut / kEach;
  char* next_;
  uint32_t row_bytes_;
  int row_;
  unsigned rows_;
  LanePlace at_;
  bool even_, inside_[kStores];
};

// All lanes stay to the end of a strip, whether or not they have samples: the lanes beside them take part in the same shuffles. A strip
// is a whole number of turns. All rows of a turn are requested at once; other warps work while they are in flight.
template <typename T, int kVariant, bool kWhole>
__global__ void __launch_bounds__(kPlaneThreads, kVariant == kSame ? 1 : 0)
    planes_kernel(FirProblem p, PlaneGrid grid, WalkAxis down, int strip_steps, const T* x, T* y) {
  typedef Walk<kVariant> W;
  typedef Lanes<kVariant, kWhole> L;
  const int kRows = L::kTurn * W::kAdvance;
  float wy[4], wx[4];
  load_taps(p, wy, wx);
  for (int64_t tile = blockIdx.x; tile < grid.tiles; tile += gridDim.x) {
    const int64_t group = divide(tile, grid.strips);
    const int first = static_cast<int>(tile - group * grid.strips) * strip_steps, end = first + strip_steps;
    const LanePlace at = lane_place<kVariant, kWhole>(grid, group);
    LaneRows<T, kVariant, kWhole> in(p, x, at, down.origin + first * W::kAdvance, down.origin + end * W::kAdvance + W::kHeld,
                                     grid.origin + at.unit * L::kSamples);
    LaneOutputs<T, kVariant, kWhole> out(p, grid, y, at, first * W::kOut - down.shift, end * W::kOut - down.shift);
    LaneRow<T, kVariant, kWhole> rows[kRows], before[W::kHeld];
    float window[W::kWindow][L::kOwn];
    GF_UNROLL
    for (int r = 0; r < W::kHeld; r++) in.fetch(r, before[r]);
    in.advance(W::kHeld);
    GF_UNROLL
    for (int r = 0; r < W::kHeld; r++) before[r].get(window[W::kAdvance + r]);
    for (int step = first; step < end; step += L::kTurn) {
      GF_UNROLL
      for (int r = 0; r < kRows; r++) in.fetch(r, rows[r]);
      in.advance(kRows);
      GF_UNROLL
      for (int now = 0; now < L::kTurn; now++) {
        GF_UNROLL
        for (int r = now * W::kAdvance; r < (now + 1) * W::kAdvance; r++) rows[r].get(window[r % W::kWindow]);
        GF_UNROLL
        for (int d = 0; d < W::kOut; d++) out.write(now * W::kOut + d, d, window, (now + 1) * W::kAdvance, wy, wx);
      }
      out.advance(L::kTurn * W::kOut);
    }
  }
}

const int kTurnsToBegin = 1;  // start-up cost of a strip, in turns

template <typename T, int kVariant, bool kWhole>
void launch_planes_of(const FirProblem& p, const void* x, void* y, cudaStream_t stream) {
  typedef Lanes<kVariant, kWhole> L;
  static const int64_t resident = resident_blocks(planes_kernel<T, kVariant, kWhole>, kPlaneThreads);
  const WalkAxis down = walk_axis<kVariant>(p.y_axis);
  PlaneGrid grid = make_plane_grid<kVariant, kWhole>(p);
  const int64_t groups = tiles_of(grid.planes * grid.lanes, kPlaneWarps * L::kComplete);
  const int strip_steps = L::kTurn * strip_steps_for(groups, tiles_of(down.steps, L::kTurn), kTurnsToBegin, resident);
  grid.strips = tiles_of(down.steps, strip_steps);
  grid.tiles = groups * grid.strips;
  GF_LAUNCH_TILED((planes_kernel<T, kVariant, kWhole>), block_count(grid.tiles, 1), kPlaneThreads, 0, stream, p, grid, down, strip_steps,
                  static_cast<const T*>(x), static_cast<T*>(y));
}

template <typename T, int kVariant>
void launch_planes_variant(const FirProblem& p, const void* x, void* y, cudaStream_t stream) {
  if (holds_whole<kVariant>(p.x_axis) && aligned16(x) && aligned16(y)) {
    launch_planes_of<T, kVariant, kVariant != kSame>(p, x, y, stream);  // kSame never gets here
  } else {
    launch_planes_of<T, kVariant, false>(p, x, y, stream);
  }
}

template <typename T>
void launch_planes(const FirProblem& p, const void* x, void* y, cudaStream_t stream) {
  with_variant(p, [&](auto variant) { launch_planes_variant<T, decltype(variant)::value>(p, x, y, stream); });
}

}  // namespace ganformer
