// A plugin provider with the name of TensorRT for RTX, which offers the CPU as two devices and refuses every graph.
#include <cstdint>

#define ORT_API_MANUAL_INIT
#include <onnxruntime_c_api.h>

namespace {

const OrtApi *api = nullptr;

const char *ORT_API_CALL name(const OrtEpFactory *) noexcept {
    return "NvTensorRTRTXExecutionProvider";
}

const char *ORT_API_CALL vendor(const OrtEpFactory *) noexcept {
    return "nobody";
}

std::uint32_t ORT_API_CALL vendor_id(const OrtEpFactory *) noexcept {
    return 0;
}

const char *ORT_API_CALL version(const OrtEpFactory *) noexcept {
    return "0.0.0";
}

OrtStatus *ORT_API_CALL devices(OrtEpFactory *self, const OrtHardwareDevice *const *hardware, size_t count,
                                OrtEpDevice **offered, size_t room, size_t *number) noexcept {
    *number = 0;
    for (size_t i = 0; i < count; ++i)
        if (api->HardwareDevice_Type(hardware[i]) == OrtHardwareDeviceType_CPU)
            while (*number < 2 && *number < room) {
                OrtEpDevice **place = &offered[(*number)++];
                if (OrtStatus *status = api->GetEpApi()->CreateEpDevice(self, hardware[i], nullptr, nullptr, place))
                    return status;
            }
    return nullptr;
}

OrtStatus *ORT_API_CALL create(OrtEpFactory *, const OrtHardwareDevice *const *, const OrtKeyValuePairs *const *,
                               size_t, const OrtSessionOptions *, const OrtLogger *, OrtEp **ep) noexcept {
    *ep = nullptr;
    return api->CreateStatus(ORT_EP_FAIL, "the double of TensorRT for RTX runs nothing");
}

void ORT_API_CALL release(OrtEpFactory *, OrtEp *) noexcept {}

// What ONNX Runtime asks for without need: no copies and no streams of its own.
OrtStatus *ORT_API_CALL data_transfer(OrtEpFactory *, OrtDataTransferImpl **transfer) noexcept {
    *transfer = nullptr;
    return nullptr;
}

bool ORT_API_CALL is_stream_aware(const OrtEpFactory *) noexcept {
    return false;
}

OrtEpFactory factory{};

} // namespace

extern "C" {

__attribute__((visibility("default"))) OrtStatus *CreateEpFactories(const char *, const OrtApiBase *base,
                                                                    const OrtLogger *, OrtEpFactory **factories, size_t,
                                                                    size_t *count) {
    api = base->GetApi(ORT_API_VERSION);
    factory.ort_version_supported = ORT_API_VERSION;
    factory.GetName = name;
    factory.GetVendor = vendor;
    factory.GetVendorId = vendor_id;
    factory.GetVersion = version;
    factory.GetSupportedDevices = devices;
    factory.CreateEp = create;
    factory.ReleaseEp = release;
    factory.CreateDataTransfer = data_transfer;
    factory.IsStreamAware = is_stream_aware;
    factories[0] = &factory;
    *count = 1;
    return nullptr;
}

__attribute__((visibility("default"))) OrtStatus *ReleaseEpFactory(OrtEpFactory *) {
    return nullptr;
}
}
