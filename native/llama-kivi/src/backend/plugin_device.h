// A Device that calls a plugin's functions; see backend/plugin.h.
#pragma once

#include <functional>
#include <memory>

#include "backend/device.h"
#include "backend/plugin.h"

namespace lk {

// The functions throw the plugin's errors as Error, or std::bad_alloc for LK_OUT_OF_MEMORY. The plugin must outlive the
// device.
std::shared_ptr<Device> open_plugin_device(const lk_plugin& plugin, const DeviceWeights& weights,
                                           const std::function<bool(float)>& progress);
lk_device_info describe_plugin_device(const lk_plugin& plugin, uint32_t index);

}  // namespace lk
