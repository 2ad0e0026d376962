// Upsample, FIR filter and downsample of images in one pass. Which kernel takes which case: docs/cuda.md, "upfirdn2d".
#include "launchers.h"
#include "upfirdn2d_channels_last.cuh"
#include "upfirdn2d_tiled.cuh"

namespace ganformer {
namespace {

// One axis of a separable filter as a problem of its own, [.., taps_y, 1] or [.., 1, taps_x].
FirProblem only_rows(const FirProblem& p) {
  FirProblem rows = p;
  rows.x_axis = identity_axis(p.x_axis.in);
  return rows;
}

FirProblem only_columns(const FirProblem& p) {
  FirProblem columns = p;
  columns.y_axis = identity_axis(p.y_axis.in);
  return columns;
}

// Taps met by one output sample. Two passes pay when one pass would read many more samples than two short ones.
int64_t taps_met(const Axis& axis) { return (axis.taps + axis.up - 1) / axis.up; }

bool takes_two_passes(const FirProblem& p) {
  const int64_t along_y = taps_met(p.y_axis), along_x = taps_met(p.x_axis);
  return p.channels_last && p.separable && !has_four_tap_variant(p) && along_y * along_x > 2 * (along_y + along_x);
}

FirProblem make_problem(const GanformerUpfirdn2d& args) {
  FirProblem p;
  p.samples = args.samples;
  p.channels = args.channels;
  p.channels_last = args.channels_last != 0;
  p.separable = args.fx != nullptr;
  p.flip = args.flip != 0;
  p.y_axis = Axis{args.fy, args.in_h, args.out_h, args.taps_y, args.up_y, args.down_y, args.pad_y0};
  p.x_axis = Axis{args.fx, args.in_w, args.out_w, args.taps_x, args.up_x, args.down_x, args.pad_x0};
  return p;
}

template <typename T>
void launch_type(const GanformerUpfirdn2d& args, const FirProblem& p, cudaStream_t stream) {
  if (!p.channels_last) {
    launch_tiled<T>(p, args.x, args.y, stream);
  } else if (has_four_tap_variant(p)) {
    launch_four_taps<T>(p, args.x, args.y, stream);
  } else if (takes_two_passes(p)) {
    FirProblem columns = only_columns(p), rows = only_rows(p);
    columns.y_axis.out = p.y_axis.in;
    rows.x_axis = identity_axis(p.x_axis.out);
    launch_direct<T, float>(columns, args.x, args.workspace, stream);
    launch_direct<float, T>(rows, args.workspace, args.y, stream);
  } else {
    launch_direct<T, T>(p, args.x, args.y, stream);
  }
}

bool acceptable(const GanformerUpfirdn2d& args) {
  const int32_t positive[] = {args.taps_y, args.taps_x, args.up_y, args.up_x, args.down_y, args.down_x};
  for (int32_t value : positive) {
    if (value < 1) return false;
  }
  return args.taps_y <= kMaxTaps && args.taps_x <= kMaxTaps;
}

}  // namespace
}  // namespace ganformer

extern "C" int64_t ganformer_upfirdn2d_workspace(const GanformerUpfirdn2d* args) {
  if (!ganformer::takes_two_passes(ganformer::make_problem(*args))) return 0;
  return args->samples * args->in_h * args->out_w * args->channels * static_cast<int64_t>(sizeof(float));
}

extern "C" int ganformer_upfirdn2d(const GanformerUpfirdn2d* args, void* stream) {
  using namespace ganformer;
  if (!acceptable(*args)) return cudaErrorInvalidValue;
  if (args->samples * args->channels * args->out_h * args->out_w == 0) return cudaSuccess;
  const FirProblem problem = make_problem(*args);
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  switch (args->type) {
    case GANFORMER_FLOAT32: launch_type<float>(*args, problem, on); break;
    case GANFORMER_FLOAT16: launch_type<__half>(*args, problem, on); break;
    case GANFORMER_BFLOAT16: launch_type<bfloat16>(*args, problem, on); break;
    default: return cudaErrorInvalidValue;
  }
  return cudaPeekAtLastError();
}
