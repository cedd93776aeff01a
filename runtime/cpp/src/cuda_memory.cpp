#include "device_memory.hpp"

#include <cstdint>
#include <dlfcn.h>
#include <string>

#include "errors.hpp"

namespace align {

namespace {

// Functions of libcuda.so.1, which stay the same in all versions of CUDA. All return 0 for success.
struct Driver {
    int (*init)(unsigned flags);
    int (*device_get)(int *device, int index);
    int (*retain)(void **context, int device);
    int (*release)(int device);
    int (*set_current)(void *context);
    int (*copy_to_device)(std::uint64_t device, const void *host, std::size_t bytes);
    int (*copy_to_host)(void *host, std::uint64_t device, std::size_t bytes);
    int (*synchronize)(void *stream);

    Driver() {
        void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr)
            throw BackendUnavailableError(
                "libcuda.so.1 cannot be loaded; install the NVIDIA driver, or use device cpu");
        find(library, "cuInit", init);
        find(library, "cuDeviceGet", device_get);
        find(library, "cuDevicePrimaryCtxRetain", retain);
        find(library, "cuDevicePrimaryCtxRelease_v2", release);
        find(library, "cuCtxSetCurrent", set_current);
        find(library, "cuMemcpyHtoD_v2", copy_to_device);
        find(library, "cuMemcpyDtoH_v2", copy_to_host);
        find(library, "cuStreamSynchronize", synchronize);
    }

private:
    template <typename Function> static void find(void *library, const char *name, Function &function) {
        function = reinterpret_cast<Function>(dlsym(library, name));
        if (function == nullptr)
            throw BackendUnavailableError(std::string("libcuda.so.1 has no ") + name +
                                          "; install a newer NVIDIA driver");
    }
};

std::uint64_t address(const void *pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer);
}

class CudaMemory : public DeviceMemory {
public:
    explicit CudaMemory(int gpu) {
        if (driver_.init(0) != 0 || driver_.device_get(&device_, gpu) != 0)
            throw BackendUnavailableError("CUDA sees no GPU with the index " + std::to_string(gpu) +
                                          "; see nvidia-smi and CUDA_VISIBLE_DEVICES");
        if (const int code = driver_.retain(&context_, device_); code != 0) // the context that ONNX Runtime uses, too
            throw BackendUnavailableError("the GPU with the index " + std::to_string(gpu) +
                                          " cannot be used (CUDA error " + std::to_string(code) + "); see nvidia-smi");
    }
    ~CudaMemory() override { driver_.release(device_); }
    CudaMemory(const CudaMemory &) = delete;
    CudaMemory &operator=(const CudaMemory &) = delete;

    void enter() override { check(driver_.set_current(context_), "be used in this thread"); }

    void to_device(void *device, const void *host, std::size_t bytes) override {
        check(driver_.copy_to_device(address(device), host, bytes), "take inputs");
        check(driver_.synchronize(nullptr), "take inputs"); // the copy may still be on its way from a staging buffer
    }

    void to_host(void *host, const void *device, std::size_t bytes) override {
        check(driver_.copy_to_host(host, address(device), bytes), "give its output");
    }

private:
    static void check(int code, const char *action) {
        if (code != 0)
            throw DeviceError(std::string("the GPU cannot ") + action + " (CUDA error " + std::to_string(code) +
                              "); see nvidia-smi and the kernel's log, and restart the process");
    }

    Driver driver_;
    int device_ = 0;
    void *context_ = nullptr;
};

} // namespace

std::unique_ptr<DeviceMemory> DeviceMemory::of_cuda(int gpu) {
    return std::make_unique<CudaMemory>(gpu);
}

} // namespace align
