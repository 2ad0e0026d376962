// The CUDA built-ins used by the kernels, on the CPU: compile a .cu with `g++ -std=c++17 -x c++`. For tests only.
//
// A block's threads are fibers that run one after the other, each up to its next __syncthreads() or lane exchange: if a barrier is
// missing, a thread therefore reads what the others have not written yet. Shared memory is a heap block of exactly the requested size,
// filled with NaN before every block.
#pragma once

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <functional>
#include <memory>
#include <vector>

#include "host_half.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define GF_SHARED(name) float* name = static_cast<float*>(shim::shared)
#define GF_UNROLL
#define GF_GRID_CONSTANT
#define GF_MAX_BLOCKS 7       // small, so that blocks loop over several tiles
#define GF_PART_ELEMENTS 512  // small, so that tensors are processed in parts
#define GF_LAUNCH(kernel, grid, block, shared, stream, ...) \
  shim::launch(grid, block, shared, stream, false, [&] { kernel(__VA_ARGS__); })
#define GF_LAUNCH_TILED(kernel, grid, block, shared, stream, ...) \
  shim::launch(grid, block, shared, stream, true, [&] { kernel(__VA_ARGS__); })

typedef void* cudaStream_t;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
template <typename T>
T __ldg(const T* at) {
  return *at;
}

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

inline void* shared = nullptr;

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(128 << 10);
  bool finished = false;
  unsigned exchanges = 0;
};

inline ucontext_t scheduler;
inline Fiber* running = nullptr;
inline std::function<void()> body;

inline void switch_to(ucontext_t* from, ucontext_t* to, const void* stack, size_t size, bool last) {
#ifdef __SANITIZE_ADDRESS__
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(last ? nullptr : &fake, stack, size);
  swapcontext(from, to);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
  (void)stack, (void)size, (void)last;
  swapcontext(from, to);
#endif
}

inline const void* scheduler_stack = nullptr;
inline size_t scheduler_size = 0;

inline void fiber_main() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
  body();
  running->finished = true;
  switch_to(&running->context, &scheduler, scheduler_stack, scheduler_size, true);
}

inline void barrier() { switch_to(&running->context, &scheduler, scheduler_stack, scheduler_size, false); }

inline dim3 position(unsigned thread) {
  return dim3(thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y);
}

// One block: the fibers run in turn, each to its next barrier, until all have finished; all must reach the same barriers.
inline void run_tiled_block(unsigned threads) {
  static std::vector<std::unique_ptr<Fiber>> fibers;
  while (fibers.size() < threads) fibers.emplace_back(new Fiber);
  for (unsigned t = 0; t < threads; t++) {
    Fiber& fiber = *fibers[t];
    fiber.finished = false;
    fiber.exchanges = 0;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    makecontext(&fiber.context, fiber_main, 0);
  }
  for (unsigned finished = 0; finished < threads;) {
    finished = 0;
    for (unsigned t = 0; t < threads; t++) {
      running = fibers[t].get();
      threadIdx = position(t);
      switch_to(&scheduler, &running->context, running->stack.data(), running->stack.size(), false);
      finished += running->finished;
    }
    if (finished != 0 && finished != threads) {
      fprintf(stderr, "host shim: %u of %u threads missed a barrier\n", finished, threads);
      abort();
    }
  }
}

inline void launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t, bool tiled, const std::function<void()>& kernel) {
  const unsigned threads = block.x * block.y * block.z;
  if (threads > 1024 || shared_bytes > (48 << 10) || grid.y > 65535 || grid.z > 65535) {
    fprintf(stderr, "host shim: a GPU would refuse %u threads, %zu bytes of shared memory, grid %u %u %u\n", threads, shared_bytes, grid.x,
            grid.y, grid.z);
    abort();
  }
  gridDim = grid;
  blockDim = block;
  body = kernel;
  for (unsigned b = 0; b < grid.x * grid.y * grid.z; b++) {
    blockIdx = dim3(b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y);
    shared = malloc(shared_bytes);
    memset(shared, 0xff, shared_bytes);
    if (tiled) {
      run_tiled_block(threads);
    } else {
      for (unsigned t = 0; t < threads; t++) {
        threadIdx = position(t);
        kernel();
      }
    }
    free(shared);
  }
}

}  // namespace shim

inline void __syncthreads() { shim::barrier(); }

namespace ganformer {

template <typename Kernel>
int64_t resident_blocks(Kernel, int) {
  return 4;  // small, so that long strips occur too
}

// All threads of a block must call this the same number of times. Two alternating sets of slots: none is overwritten before all threads
// have read it.
inline float exchange(float value, int lanes) {
  static float slots[2][1024];
  float* const now = slots[shim::running->exchanges++ % 2];
  const int thread = threadIdx.x, lane = thread % 32 + lanes;
  now[thread] = value;
  shim::barrier();
  return now[0 <= lane && lane < 32 ? thread + lanes : thread];
}
inline float shuffle_down(float value, int lanes) { return exchange(value, lanes); }
inline float shuffle_up(float value, int lanes) { return exchange(value, -lanes); }

}  // namespace ganformer
