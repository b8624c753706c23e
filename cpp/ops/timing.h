// How long a call with packed weights takes, without Python around it.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include "convship/export.h"
#include "ops/packed_conv.h"

namespace convship::ops {

// The output and the median of seconds per call, over batches of calls that
// take about `seconds` together, after one call to warm up. Throws as
// conv_pool2d_packed, and c10::ValueError unless seconds is positive.
CONVSHIP_API std::pair<at::Tensor, double> time_conv_pool2d(
    const c10::intrusive_ptr<PackedConv>& packed, const at::Tensor& input, double seconds);

}  // namespace convship::ops
