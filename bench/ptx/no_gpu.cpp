// The part of the CUDA runtime that launchers call, without a GPU: a kernel that is launched goes to a Python function.
// Linked into one shared object with the launchers, so that their calls end here and not in PyTorch.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

namespace {

struct Dim3 {
  unsigned x, y, z;
};

using Launched = int (*)(const char* kernel, unsigned grid, unsigned block, void** arguments, size_t shared);

Launched launched = nullptr;
Dim3 grid_of_launch, block_of_launch;
size_t shared_of_launch;
int last_error = 0;

std::map<const void*, std::string>& kernels() {
  static std::map<const void*, std::string> names;
  return names;
}

}  // namespace

#define HERE extern "C" __attribute__((visibility("hidden")))

extern "C" __attribute__((visibility("default"))) void set_launched(Launched function) { launched = function; }

HERE void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
HERE void __cudaRegisterFatBinaryEnd(void**) {}
HERE void __cudaUnregisterFatBinary(void**) {}
HERE void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
HERE void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, void*, void*, Dim3*, Dim3*, int*) {
  kernels()[host] = name;
}
HERE unsigned __cudaPushCallConfiguration(Dim3 grid, Dim3 block, size_t shared, void*) {
  grid_of_launch = grid, block_of_launch = block, shared_of_launch = shared;
  return 0;
}
HERE int __cudaPopCallConfiguration(Dim3* grid, Dim3* block, size_t* shared, void* stream) {
  *grid = grid_of_launch, *block = block_of_launch, *shared = shared_of_launch;
  memset(stream, 0, sizeof(void*));
  return 0;
}
HERE int __cudaGetKernel(const void** kernel, const void* host) {
  *kernel = host;
  return 0;
}
HERE int __cudaLaunchKernel(const void* host, Dim3 grid, Dim3 block, void** arguments, size_t shared, void*) {
  const bool one_axis = grid.y == 1 && grid.z == 1 && block.y == 1 && block.z == 1;
  last_error = one_axis ? launched(kernels().at(host).c_str(), grid.x, block.x, arguments, shared) : 1;
  return last_error;
}
HERE int cudaGetLastError() {
  const int error = last_error;
  last_error = 0;
  return error;
}
HERE int cudaGetDevice(int* device) { return *device = 0; }
HERE int cudaDeviceGetAttribute(int* value, int, int) {  // the launchers ask for the number of multiprocessors
  *value = 132;
  return 0;
}

HERE int aoti_torch_create_device_guard(int32_t, void** guard) {
  *guard = nullptr;
  return 0;
}
HERE int aoti_torch_delete_device_guard(void*) { return 0; }
HERE int aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}
HERE int torch_c10_cuda_check_msg(int32_t error, const char*, const char*, uint32_t, bool, char** message) {
  *message = error ? strdup("the kernel was stopped by the executor") : nullptr;
  return 0;
}
HERE void torch_c10_cuda_free_error_msg(char* message) { free(message); }
