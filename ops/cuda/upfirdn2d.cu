// Upsampling, FIR filtering and downsampling of images in one pass. Which kernel takes which case: docs/cuda.md, "upfirdn2d".
#include "upfirdn2d_channels_last.cuh"
#include "upfirdn2d_planes.cuh"
#include "upfirdn2d_tiled.cuh"

namespace ganformer {
namespace {

// Two passes pay off if a single pass would read many more samples than two short ones.
bool takes_two_passes(const FirProblem& p) {
  const int64_t along_y = taps_met(p.y_axis), along_x = taps_met(p.x_axis);
  return p.channels_last && p.separable && !has_four_tap_variant(p) && along_y * along_x > 2 * (along_y + along_x);
}

template <typename T>
void launch_type(const GanformerUpfirdn2d& args, const FirProblem& p, cudaStream_t stream) {
  const bool four_taps = has_four_tap_variant(p);
  if (!p.channels_last) {
    four_taps ? launch_planes<T>(p, args.x, args.y, stream) : launch_tiled<T>(p, args.x, args.y, stream);
  } else if (four_taps) {
    launch_four_taps<T>(p, args.x, args.y, stream);
  } else if (takes_two_passes(p)) {
    FirProblem along_x = p, along_y = p;
    along_x.y_axis = identity_axis(p.y_axis.in);
    along_y.x_axis = identity_axis(p.x_axis.out);
    launch_direct<T, float>(along_x, args.x, args.workspace, stream);
    launch_direct<float, T>(along_y, args.workspace, args.y, stream);
  } else {
    launch_direct<T, T>(p, args.x, args.y, stream);
  }
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
  return cudaGetLastError();
}
