// Copies between the memory of the host and that of a device.
#pragma once

#include <cstddef>
#include <memory>

namespace align {

class DeviceMemory {
public:
    virtual ~DeviceMemory() = default;

    // Makes the device the one of the calling thread.
    virtual void enter() = 0;
    virtual void to_device(void *device, const void *host, std::size_t bytes) = 0;
    virtual void to_host(void *host, const void *device, std::size_t bytes) = 0;

    // The memory of the GPU with the index `gpu`, through NVIDIA's driver, which is loaded at run time. Throws
    // BackendUnavailableError where there is no driver or no such GPU. Copies throw DeviceError.
    static std::unique_ptr<DeviceMemory> of_cuda(int gpu);
};

} // namespace align
