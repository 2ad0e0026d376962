// Bias, activation, gain and clamp in one pass, with the optional terms that come before the bias in a synthesis layer.
#include "launchers.h"
#include "portable.h"

namespace ganformer {
namespace {

const int kThreads = 256;

struct Position {
  int64_t sample, channel, pixel;
};

__device__ __forceinline__ Position locate(const GanformerBiasAct& args, int64_t index) {
  const int64_t inner = args.channels_last ? args.channels : args.pixels;
  const int64_t middle = args.channels_last ? args.pixels : args.channels;
  const int64_t row = divide(index, inner);
  const int64_t sample = divide(row, middle);
  const int64_t in_row = index - row * inner;
  const int64_t in_sample = row - sample * middle;
  Position position;
  position.sample = sample;
  position.channel = args.channels_last ? in_row : in_sample;
  position.pixel = args.channels_last ? in_sample : in_row;
  return position;
}

// A vector along the innermost axis: per-channel values differ inside it with channels last, per-pixel values otherwise.
template <typename T, int kSize>
__device__ __forceinline__ void load_along(const void* base, int64_t index, bool varies, float (&out)[kSize]) {
  if (varies) {
    load<T, kSize>(base, index, out);
    return;
  }
  const float value = to_float(static_cast<const T*>(base)[index]);
  GF_UNROLL
  for (int i = 0; i < kSize; i++) out[i] = value;
}

template <typename T, int kSize>
__device__ __forceinline__ void add_terms(const GanformerBiasAct& args, int64_t index, const Position& at, float (&u)[kSize]) {
  float term[kSize];
  if (args.scale) {
    load_along<T, kSize>(args.scale, at.sample * args.channels + at.channel, args.channels_last, term);
    GF_UNROLL
    for (int i = 0; i < kSize; i++) u[i] *= term[i];
  }
  if (args.residual) {
    load<T, kSize>(args.residual, index, term);
    GF_UNROLL
    for (int i = 0; i < kSize; i++) u[i] += term[i];
  }
  if (args.noise) {
    const int64_t sample = args.noise_samples == 1 ? 0 : at.sample;
    load_along<T, kSize>(args.noise, sample * args.pixels + at.pixel, !args.channels_last, term);
    GF_UNROLL
    for (int i = 0; i < kSize; i++) u[i] += term[i];
  }
}

template <typename T, int kSize, bool kPiecewise, bool kValue>
__global__ void __launch_bounds__(kThreads) bias_act_kernel(GanformerBiasAct args, ActivationSpec spec, int64_t packs) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t pack = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; pack < packs; pack += stride) {
    const int64_t index = pack * kSize;
    float x[kSize], ref[kSize], bias[kSize];
    load<T, kSize>(args.x, index, x);
    GF_UNROLL
    for (int i = 0; i < kSize; i++) bias[i] = ref[i] = 0.f;
    if (kValue || !kPiecewise) {
      const Position at = locate(args, index);
      if (args.bias) load_along<T, kSize>(args.bias, at.channel, args.channels_last, bias);
      if (kValue) add_terms<T, kSize>(args, index, at, x);
    }
    if (!kValue && args.ref) load<T, kSize>(args.ref, index, ref);
    GF_UNROLL
    for (int i = 0; i < kSize; i++) {
      x[i] = kValue ? activate<kPiecewise>(spec, x[i] + bias[i]) : x[i] * activation_factor<kPiecewise>(spec, ref[i] + bias[i]);
    }
    store<T, kSize>(args.y, index, x);
  }
}

template <typename T, int kSize, bool kPiecewise>
void launch(const GanformerBiasAct& args, const ActivationSpec& spec, cudaStream_t stream) {
  const int64_t packs = args.samples * args.channels * args.pixels / kSize;
  const unsigned blocks = block_count(packs, kThreads);
  if (args.order == 0) {
    GF_LAUNCH((bias_act_kernel<T, kSize, kPiecewise, true>), blocks, kThreads, 0, stream, args, spec, packs);
  } else {
    GF_LAUNCH((bias_act_kernel<T, kSize, kPiecewise, false>), blocks, kThreads, 0, stream, args, spec, packs);
  }
}

template <typename T>
void launch_type(const GanformerBiasAct& args, cudaStream_t stream) {
  const int kPack = 16 / sizeof(T);
  // A clamp that T cannot hold would not be recognised in the stored output by the derivative.
  const float clamp = to_float(from_float<T>(args.clamp));
  const ActivationSpec spec = make_activation(args.act, args.order, args.alpha, args.gain, clamp);
  const void* pointers[] = {args.x, args.y, args.ref, args.bias, args.scale, args.residual, args.noise};
  bool whole = (args.channels_last ? args.channels : args.pixels) % kPack == 0;
  for (const void* pointer : pointers) whole = whole && aligned16(pointer);
  const bool piecewise = is_piecewise_linear(args.act);
  if (whole) {
    piecewise ? launch<T, kPack, true>(args, spec, stream) : launch<T, kPack, false>(args, spec, stream);
  } else {
    piecewise ? launch<T, 1, true>(args, spec, stream) : launch<T, 1, false>(args, spec, stream);
  }
}

}  // namespace
}  // namespace ganformer

extern "C" int ganformer_bias_act(const GanformerBiasAct* args, void* stream) {
  using namespace ganformer;
  if (args->order < 0 || args->order > kMaxOrder || args->act < kLinear || args->act > kSwish) return cudaErrorInvalidValue;
  if (args->samples * args->channels * args->pixels == 0) return cudaSuccess;
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  switch (args->type) {
    case GANFORMER_FLOAT32: launch_type<float>(*args, on); break;
    case GANFORMER_FLOAT16: launch_type<__half>(*args, on); break;
    case GANFORMER_BFLOAT16: launch_type<bfloat16>(*args, on); break;
    default: return cudaErrorInvalidValue;
  }
  return cudaPeekAtLastError();
}
