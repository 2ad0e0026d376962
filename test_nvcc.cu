// Checks the CUDA installation without TensorFlow:
//
//     nvcc test_nvcc.cu -o test_nvcc -run
//
// prints one line from the CPU and one from the GPU. If the second is missing, an error message says why.
#include <cuda_runtime.h>

#include <cstdio>

__global__ void hello_from_gpu(int* answer) {
  printf("GPU says hello.\n");
  *answer = 42;
}

static bool succeeded(cudaError_t error, const char* what) {
  if (error != cudaSuccess) fprintf(stderr, "%s failed: %s\n", what, cudaGetErrorString(error));
  return error == cudaSuccess;
}

int main() {
  printf("CPU says hello.\n");
  fflush(stdout);
  int* on_gpu = nullptr;
  int answer = 0;
  if (!succeeded(cudaMalloc(&on_gpu, sizeof(int)), "cudaMalloc (is there a GPU, and a driver for this CUDA?)")) return 1;
  hello_from_gpu<<<1, 1>>>(on_gpu);
  if (!succeeded(cudaGetLastError(), "kernel launch (was it compiled for this GPU? try -arch=native)")) return 1;
  if (!succeeded(cudaMemcpy(&answer, on_gpu, sizeof(int), cudaMemcpyDeviceToHost), "kernel")) return 1;
  cudaFree(on_gpu);
  if (answer != 42) {
    fprintf(stderr, "the kernel ran, its result is wrong: %d\n", answer);
    return 1;
  }
  return 0;
}
