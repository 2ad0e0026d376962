// Bias, activation, gain and clamp in one pass, with the optional terms that come before the bias in a synthesis layer.
#include "launchers.h"
#include "portable.h"

namespace ganformer {
namespace {

const int kThreads = 256;

// Division by a number that the launch knows, in a few instructions where both have less than 32 bits: with 2^(s-1) < by <= 2^s, n / by is
// (n + n * m / 2^32) / 2^s for m = 2^32 (2^s - by) / by + 1 (Granlund, Montgomery, Division by Invariant Integers, section 4).
struct Divisor {
  int64_t by;
  uint32_t multiplier, shift;
};

inline Divisor make_divisor(int64_t by) {
  Divisor divisor = {by, 0, 0};
  while (divisor.shift < 31 && (int64_t(1) << divisor.shift) < by) divisor.shift++;
  divisor.multiplier = static_cast<uint32_t>((((uint64_t(1) << divisor.shift) - by) << 32) / by + 1);
  return divisor;
}

__device__ __forceinline__ int64_t quotient(int64_t value, const Divisor& divisor) {
  if ((value | divisor.by) >> 31) return value / divisor.by;
  const uint32_t low = static_cast<uint32_t>(value);
  const uint32_t product = static_cast<uint32_t>((static_cast<uint64_t>(low) * divisor.multiplier) >> 32);
  return (low + product) >> divisor.shift;
}

// The sizes as vectors: `inner` of them follow each other along the innermost axis, `middle` such rows make a sample.
struct Layout {
  int64_t packs;
  Divisor inner, middle;
};

struct Position {
  int64_t sample, channel, pixel;
};

template <int kSize>
__device__ __forceinline__ Position locate(const Layout& layout, bool channels_last, int64_t pack) {
  const int64_t row = quotient(pack, layout.inner);
  const int64_t sample = quotient(row, layout.middle);
  const int64_t in_row = (pack - row * layout.inner.by) * kSize;
  const int64_t in_sample = row - sample * layout.middle.by;
  return channels_last ? Position{sample, in_row, in_sample} : Position{sample, in_sample, in_row};
}

// An operand that may be absent: a number for each element of the vector, or one for all of them.
template <typename T, int kSize, bool kEach>
struct Operand {
  static const int kNumbers = kEach ? kSize : 1;
  Words<T, kNumbers> words;

  __device__ __forceinline__ Operand(const void* base, int64_t index) : words() {
    if (base) words = load_constant_words<T, kNumbers>(static_cast<const T*>(base) + index);
  }
  __device__ __forceinline__ void get(float (&out)[kSize]) const {
    float number[kNumbers];
    unpack<T, kNumbers>(words, number);
    GF_UNROLL
    for (int i = 0; i < kSize; i++) out[i] = number[kEach ? i : 0];
  }
  __device__ __forceinline__ void add_to(float (&sum)[kSize]) const {
    float term[kSize];
    get(term);
    GF_UNROLL
    for (int i = 0; i < kSize; i++) sum[i] += term[i];
  }
};

// All operands are asked for before the first is used. y may be x.
template <typename T, int kSize, bool kChannelsLast, bool kPiecewise>
__global__ void __launch_bounds__(kThreads) value_kernel(GanformerBiasAct args, ActivationSpec spec, Layout layout) {
  typedef Operand<T, kSize, true> Whole;
  typedef Operand<T, kSize, kChannelsLast> ByChannel;
  typedef Operand<T, kSize, !kChannelsLast> ByPixel;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t pack = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; pack < layout.packs; pack += stride) {
    const int64_t index = pack * kSize;
    const Words<T, kSize> x = load_words<T, kSize>(static_cast<const T*>(args.x) + index);
    const Whole residual(args.residual, index);
    const Position at = locate<kSize>(layout, args.channels_last, pack);
    const ByChannel scale(args.scale, at.sample * args.channels + at.channel), bias(args.bias, at.channel);
    const ByPixel noise(args.noise, (args.noise_samples == 1 ? 0 : at.sample * args.pixels) + at.pixel);
    float u[kSize];
    unpack<T, kSize>(x, u);
    if (args.scale) {
      float factor[kSize];
      scale.get(factor);
      GF_UNROLL
      for (int i = 0; i < kSize; i++) u[i] *= factor[i];
    }
    if (args.residual) residual.add_to(u);
    if (args.noise) noise.add_to(u);
    if (args.bias) bias.add_to(u);
    GF_UNROLL
    for (int i = 0; i < kSize; i++) u[i] = activate<kPiecewise>(spec, u[i]);
    store<T, kSize>(u, static_cast<T*>(args.y) + index);
  }
}

template <typename T, int kSize, bool kChannelsLast, bool kPiecewise>
__global__ void __launch_bounds__(kThreads)
    derivative_kernel(GF_GRID_CONSTANT const GanformerBiasAct args, GF_GRID_CONSTANT const ActivationSpec spec, Layout layout) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t pack = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; pack < layout.packs; pack += stride) {
    const int64_t index = pack * kSize;
    const Words<T, kSize> words = load_words<T, kSize>(static_cast<const T*>(args.x) + index);
    const Operand<T, kSize, true> ref(args.ref, index);
    float x[kSize], u[kSize];
    ref.get(u);
    if (!kPiecewise && args.bias) {
      const Position at = locate<kSize>(layout, args.channels_last, pack);
      Operand<T, kSize, kChannelsLast>(args.bias, at.channel).add_to(u);
    }
    unpack<T, kSize>(words, x);
    GF_UNROLL
    for (int i = 0; i < kSize; i++) x[i] *= activation_factor<kPiecewise>(spec, u[i]);
    store<T, kSize>(x, static_cast<T*>(args.y) + index);
  }
}

template <typename T, int kSize, bool kChannelsLast, bool kPiecewise>
void launch(const GanformerBiasAct& args, const ActivationSpec& spec, cudaStream_t stream) {
  const int64_t inner = args.channels_last ? args.channels : args.pixels, middle = args.channels_last ? args.pixels : args.channels;
  const Layout layout = {args.samples * middle * inner / kSize, make_divisor(inner / kSize), make_divisor(middle)};
  const unsigned blocks = block_count(layout.packs, kThreads);
  if (args.order == 0) {
    GF_LAUNCH((value_kernel<T, kSize, kChannelsLast, kPiecewise>), blocks, kThreads, 0, stream, args, spec, layout);
  } else {
    GF_LAUNCH((derivative_kernel<T, kSize, kChannelsLast, kPiecewise>), blocks, kThreads, 0, stream, args, spec, layout);
  }
}

template <typename T, bool kPiecewise>
void launch_activation(const GanformerBiasAct& args, const ActivationSpec& spec, cudaStream_t stream) {
  const int kPack = 16 / sizeof(T);
  const void* pointers[] = {args.x, args.y, args.ref, args.bias, args.scale, args.residual, args.noise};
  bool whole = (args.channels_last ? args.channels : args.pixels) % kPack == 0;
  for (const void* pointer : pointers) whole = whole && aligned16(pointer);
  if (!whole) {
    launch<T, 1, true, kPiecewise>(args, spec, stream);  // of single elements, whatever the layout
  } else if (args.channels_last) {
    launch<T, kPack, true, kPiecewise>(args, spec, stream);
  } else {
    launch<T, kPack, false, kPiecewise>(args, spec, stream);
  }
}

template <typename T>
void launch_type(const GanformerBiasAct& args, cudaStream_t stream) {
  // A clamp that T cannot hold would not be recognised in the stored output by the derivative.
  const float clamp = to_float(from_float<T>(args.clamp));
  const ActivationSpec spec = make_activation(args.act, args.order, args.alpha, args.gain, clamp);
  if (is_piecewise_linear(args.act)) {
    launch_activation<T, true>(args, spec, stream);
  } else {
    launch_activation<T, false>(args, spec, stream);
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
  return cudaGetLastError();
}
