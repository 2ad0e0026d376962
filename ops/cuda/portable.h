// What the kernels need from the compiler: element types, 16-byte packs, launches. With g++ the built-ins come from host_shim.h.
#pragma once

#ifdef __CUDACC__
#include <cuda_fp16.h>
#include <cuda_runtime.h>
// A launch reports only its own errors; errors while the kernel runs surface at the caller's next synchronisation.
#define GF_LAUNCH(kernel, grid, block, shared, stream, ...) kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)
#define GF_LAUNCH_TILED GF_LAUNCH  // for kernels whose threads wait for each other
#define GF_UNROLL _Pragma("unroll")
#define GF_SHARED(name) extern __shared__ float name[]
#define GF_MAX_BLOCKS (1 << 30)
#define GF_PART_ELEMENTS (1 << 30)  // at most this many per launch of bias_act
// Keeps a parameter that is indexed at run time in constant memory, instead of a copy for each thread.
#if __CUDACC_VER_MAJOR__ * 100 + __CUDACC_VER_MINOR__ >= 1107 && (!defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 700)
#define GF_GRID_CONSTANT __grid_constant__
#else
#define GF_GRID_CONSTANT
#endif
#else
#include "host_shim.h"
#endif

#include "activation.h"
#include "elements.h"

namespace ganformer {

#ifdef __CUDACC__
// Blocks of a kernel that the current GPU can hold at once; 1 if the query fails. Launchers ask once, for the first GPU they run on: only
// the lengths of strips depend on it.
template <typename Kernel>
inline int64_t resident_blocks(Kernel kernel, int threads) {
  int device = 0, processors = 0, blocks = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device) != cudaSuccess ||
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, 0) != cudaSuccess || blocks == 0) {
    cudaGetLastError();  // clear it: the launch will report what is wrong
    return 1;
  }
  return static_cast<int64_t>(processors) * blocks;
}

// The value held by the lane `lanes` to the right (down) or left (up). All lanes of the warp must call this.
__device__ __forceinline__ float shuffle_down(float value, int lanes) { return __shfl_down_sync(0xffffffffu, value, lanes); }
__device__ __forceinline__ float shuffle_up(float value, int lanes) { return __shfl_up_sync(0xffffffffu, value, lanes); }
#endif

GF_INLINE float to_float(float value) { return value; }
GF_INLINE float to_float(__half value) { return __half2float(value); }

template <typename T>
GF_INLINE T from_float(float value);
template <>
GF_INLINE float from_float<float>(float value) {
  return value;
}
template <>
GF_INLINE __half from_float<__half>(float value) {
  return __float2half_rn(value);
}
template <>
GF_INLINE bfloat16 from_float<bfloat16>(float value) {
  return round_to_bfloat16(value);
}

// The type that moves 2 to 16 bytes in one access.
template <int kBytes>
struct WordsOf;
template <>
struct WordsOf<2> {
  typedef unsigned short type;
};
template <>
struct WordsOf<4> {
  typedef unsigned int type;
};
template <>
struct WordsOf<8> {
  typedef uint2 type;
};
template <>
struct WordsOf<16> {
  typedef uint4 type;
};

// kSize neighbouring elements as they are in memory. Load them well before they are unpacked: they arrive while other work is done.
template <typename T, int kSize>
using Words = typename WordsOf<sizeof(T) * kSize>::type;

template <typename T, int kSize>
__device__ __forceinline__ Words<T, kSize> load_words(const T* at) {
  return *reinterpret_cast<const Words<T, kSize>*>(at);
}

// The same for data that the kernel does not write: GPUs since compute capability 3.2 have a read-only path for it.
template <typename T, int kSize>
__device__ __forceinline__ Words<T, kSize> load_constant_words(const T* at) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 320
  return load_words<T, kSize>(at);
#else
  return __ldg(reinterpret_cast<const Words<T, kSize>*>(at));
#endif
}

template <typename T, int kSize>
__device__ __forceinline__ void unpack(const Words<T, kSize>& words, float (&out)[kSize]) {
  T item[kSize];
  memcpy(item, &words, sizeof(words));
  GF_UNROLL
  for (int i = 0; i < kSize; i++) out[i] = to_float(item[i]);
}

template <typename T, int kSize>
__device__ __forceinline__ void load(const T* at, float (&out)[kSize]) {
  unpack<T, kSize>(load_words<T, kSize>(at), out);
}

// nvcc splits plain vector assignments into one store per element. A kernel never reads what it has stored, so these stores need no
// ordering with other accesses.
template <typename W>
__device__ __forceinline__ void store_words(W words, W* at) {
  *at = words;
}
#ifdef __CUDACC__
template <>
__device__ __forceinline__ void store_words(uint4 words, uint4* at) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(at), "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w));
}
template <>
__device__ __forceinline__ void store_words(uint2 words, uint2* at) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(at), "r"(words.x), "r"(words.y));
}
#endif

template <typename T, int kSize>
__device__ __forceinline__ void store(const float (&values)[kSize], T* at) {
  T item[kSize];
  GF_UNROLL
  for (int i = 0; i < kSize; i++) item[i] = from_float<T>(values[i]);
  Words<T, kSize> words;
  memcpy(&words, item, sizeof(words));
  store_words(words, reinterpret_cast<Words<T, kSize>*>(at));
}

inline bool aligned16(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

inline unsigned block_count(int64_t items, int64_t per_block) {
  const int64_t blocks = (items + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks < GF_MAX_BLOCKS ? blocks : GF_MAX_BLOCKS);
}

}  // namespace ganformer
