// Bias, activation, gain and clamp in one pass, with the optional terms that come before the bias in a synthesis layer.
#include "launchers.h"
#include "portable.h"

namespace ganformer {
namespace {

const int kThreads = 256;

// Division of numbers below 2^31 by a divisor that is known at launch and at most 2^31: with 2^(s-1) < by <= 2^s, n / by is
// (n + n * m / 2^32) / 2^s for m = 2^32 (2^s - by) / by + 1 (Granlund, Montgomery, Division by Invariant Integers, section 4).
struct Divisor {
  uint32_t by, multiplier, shift;
};

inline Divisor make_divisor(int64_t by) {
  Divisor divisor = {static_cast<uint32_t>(by), 0, 0};
  while ((int64_t(1) << divisor.shift) < by) divisor.shift++;
  divisor.multiplier = static_cast<uint32_t>((((uint64_t(1) << divisor.shift) - by) << 32) / by + 1);
  return divisor;
}

__device__ __forceinline__ uint32_t quotient(uint32_t value, const Divisor& divisor) {
  const uint32_t product = static_cast<uint32_t>((static_cast<uint64_t>(value) * divisor.multiplier) >> 32);
  return (value + product) >> divisor.shift;
}

// What one launch works on: fewer than 2^31 elements. A row along the innermost axis has `inner` vectors, and a sample has `middle`
// rows.
struct Part {
  const void *x, *scale, *residual, *noise, *bias, *ref;
  void* y;
  uint32_t packs, channels, noise_stride;  // noise_stride: elements from one sample's noise to the next
  Divisor inner, middle;
  bool channels_last;
};

struct Position {
  uint32_t sample, channel, pixel;
};

template <int kSize>
__device__ __forceinline__ Position locate(const Part& part, bool channels_last, uint32_t pack) {
  const uint32_t row = quotient(pack, part.inner);
  const uint32_t sample = quotient(row, part.middle);
  const uint32_t in_row = (pack - row * part.inner.by) * kSize;
  const uint32_t in_sample = row - sample * part.middle.by;
  return channels_last ? Position{sample, in_row, in_sample} : Position{sample, in_sample, in_row};
}

// An operand that may be absent: one number per element of the vector, or a single number for all of them.
template <typename T, int kSize, bool kEach>
struct Operand {
  static const int kNumbers = kEach ? kSize : 1;
  Words<T, kNumbers> words;

  __device__ __forceinline__ Operand(const void* base, uint32_t index) : words() {
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

// All operands are loaded before the first is used. y may be x. Vectors of one element serve both layouts.
template <typename T, int kSize, bool kChannelsLast, bool kPiecewise>
__global__ void __launch_bounds__(kThreads) value_kernel(Part part, ActivationSpec spec) {
  typedef Operand<T, kSize, true> Whole;
  typedef Operand<T, kSize, kChannelsLast> ByChannel;
  typedef Operand<T, kSize, !kChannelsLast> ByPixel;
  for (uint32_t pack = blockIdx.x * kThreads + threadIdx.x; pack < part.packs; pack += gridDim.x * kThreads) {
    const uint32_t index = pack * kSize;
    const Words<T, kSize> x = load_words<T, kSize>(static_cast<const T*>(part.x) + index);
    const Whole residual(part.residual, index);
    const Position at = locate<kSize>(part, kSize == 1 ? part.channels_last : kChannelsLast, pack);
    const ByChannel scale(part.scale, at.sample * part.channels + at.channel), bias(part.bias, at.channel);
    const ByPixel noise(part.noise, at.sample * part.noise_stride + at.pixel);
    float u[kSize];
    unpack<T, kSize>(x, u);
    if (part.scale) {
      float factor[kSize];
      scale.get(factor);
      GF_UNROLL
      for (int i = 0; i < kSize; i++) u[i] *= factor[i];
    }
    if (part.residual) residual.add_to(u);
    if (part.noise) noise.add_to(u);
    if (part.bias) bias.add_to(u);
    GF_UNROLL
    for (int i = 0; i < kSize; i++) u[i] = activate<kPiecewise>(spec, u[i]);
    store<T, kSize>(u, static_cast<T*>(part.y) + index);
  }
}

template <typename T, int kSize, bool kChannelsLast, bool kPiecewise>
__global__ void __launch_bounds__(kThreads)
    derivative_kernel(GF_GRID_CONSTANT const Part part, GF_GRID_CONSTANT const ActivationSpec spec) {
  for (uint32_t pack = blockIdx.x * kThreads + threadIdx.x; pack < part.packs; pack += gridDim.x * kThreads) {
    const uint32_t index = pack * kSize;
    const Words<T, kSize> words = load_words<T, kSize>(static_cast<const T*>(part.x) + index);
    const Operand<T, kSize, true> ref(part.ref, index);
    float x[kSize], u[kSize];
    ref.get(u);
    if (!kPiecewise && part.bias) {
      const Position at = locate<kSize>(part, kSize == 1 ? part.channels_last : kChannelsLast, pack);
      Operand<T, kSize, kChannelsLast>(part.bias, at.channel).add_to(u);
    }
    unpack<T, kSize>(words, x);
    GF_UNROLL
    for (int i = 0; i < kSize; i++) x[i] = times_factor(x[i], activation_factor<kPiecewise>(spec, u[i]));
    store<T, kSize>(x, static_cast<T*>(part.y) + index);
  }
}

template <typename T>
const void* moved(const void* pointer, int64_t elements) {
  return pointer ? static_cast<const T*>(pointer) + elements : nullptr;
}

// The extent of a part: `rows` rows along the innermost axis, starting at row `first` of sample `sample`, in one or several samples; a
// single row may be cut down to the `length` elements that start at `begin`.
struct Span {
  int64_t sample, first, rows, begin, length;
};

template <typename T, int kSize>
Part part_of(const GanformerBiasAct& args, const Span& span) {
  const bool last = args.channels_last;
  const int64_t inner = last ? args.channels : args.pixels, middle = last ? args.pixels : args.channels;
  const int64_t element = (span.sample * middle + span.first) * inner + span.begin;
  const int64_t channel = last ? span.begin : span.first, pixel = last ? span.first : span.begin;
  const int64_t noise_stride = args.noise_samples == 1 ? 0 : args.pixels;
  Part part;
  part.x = moved<T>(args.x, element);
  part.residual = moved<T>(args.residual, element);
  part.ref = moved<T>(args.ref, element);
  part.y = const_cast<void*>(moved<T>(args.y, element));
  part.scale = moved<T>(args.scale, span.sample * args.channels + channel);
  part.bias = moved<T>(args.bias, channel);
  part.noise = moved<T>(args.noise, span.sample * noise_stride + pixel);
  part.packs = static_cast<uint32_t>(span.rows * (span.length / kSize));
  part.channels = static_cast<uint32_t>(args.channels);
  part.noise_stride = static_cast<uint32_t>(noise_stride);
  part.inner = make_divisor(span.length / kSize);
  part.middle = make_divisor(span.rows < middle ? span.rows : middle);
  part.channels_last = last;
  return part;
}

template <typename T, int kSize, bool kChannelsLast, bool kPiecewise>
void launch(const GanformerBiasAct& args, const ActivationSpec& spec, const Span& span, cudaStream_t stream) {
  const Part part = part_of<T, kSize>(args, span);
  const unsigned blocks = block_count(part.packs, kThreads);
  if (args.order == 0) {
    GF_LAUNCH((value_kernel<T, kSize, kChannelsLast, kPiecewise>), blocks, kThreads, 0, stream, part, spec);
  } else {
    GF_LAUNCH((derivative_kernel<T, kSize, kChannelsLast, kPiecewise>), blocks, kThreads, 0, stream, part, spec);
  }
}

// Several samples at once; if a sample is too large, some of its rows; if a row is too large, parts of it.
template <typename T, int kSize, bool kChannelsLast, bool kPiecewise>
void launch_parts(const GanformerBiasAct& args, const ActivationSpec& spec, cudaStream_t stream) {
  const int64_t limit = GF_PART_ELEMENTS;
  const int64_t inner = args.channels_last ? args.channels : args.pixels, middle = args.channels_last ? args.pixels : args.channels;
  const int64_t samples = limit / inner / middle > 1 ? limit / inner / middle : 1;
  const int64_t rows = inner * middle <= limit ? middle : limit / inner > 1 ? limit / inner : 1;
  const int64_t length = inner <= limit ? inner : limit;
  for (int64_t n = 0; n < args.samples; n += samples) {
    const int64_t together = samples < args.samples - n ? samples : args.samples - n;
    for (int64_t first = 0; first < middle; first += rows) {
      for (int64_t begin = 0; begin < inner; begin += length) {
        const int64_t of_each = rows < middle - first ? rows : middle - first;
        const Span span = {n, first, together * of_each, begin, length < inner - begin ? length : inner - begin};
        launch<T, kSize, kChannelsLast, kPiecewise>(args, spec, span, stream);
      }
    }
  }
}

template <typename T, bool kPiecewise>
void launch_activation(const GanformerBiasAct& args, const ActivationSpec& spec, cudaStream_t stream) {
  const int kPack = 16 / sizeof(T);
  const void* pointers[] = {args.x, args.y, args.ref, args.bias, args.scale, args.residual, args.noise};
  bool whole = (args.channels_last ? args.channels : args.pixels) % kPack == 0;
  for (const void* pointer : pointers) whole = whole && aligned16(pointer);
  if (!whole) {
    launch_parts<T, 1, true, kPiecewise>(args, spec, stream);
  } else if (args.channels_last) {
    launch_parts<T, kPack, true, kPiecewise>(args, spec, stream);
  } else {
    launch_parts<T, kPack, false, kPiecewise>(args, spec, stream);
  }
}

template <typename T>
void launch_type(const GanformerBiasAct& args, cudaStream_t stream) {
  // The derivative recognises clamped outputs by their stored value, so round the clamp to what T can hold.
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
