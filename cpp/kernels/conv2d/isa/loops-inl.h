// All loops over vectors, for the instruction set that the including file is
// compiled for; see common-inl.h.
#pragma once

#include "kernels/conv2d/isa/common-inl.h"

namespace convship::kernels::conv2d {
namespace {

#include "kernels/conv2d/isa/interleave-inl.h"
//
#include "kernels/conv2d/isa/columns-inl.h"
//
#include "kernels/conv2d/isa/winners-inl.h"
//
#include "kernels/conv2d/isa/narrow-inl.h"
//
#include "kernels/conv2d/isa/winograd-inl.h"
//
#include "kernels/conv2d/isa/peak-inl.h"
//
#include "kernels/layers/isa/layers-inl.h"
//
#include "kernels/layers/isa/attention-inl.h"

constexpr LayerLoops kLayerLoops = {
    .pool = pool_layer,
    .map = map_layer,
    .combine = combine_layer,
    .across = across_layer,
    .softmax = softmax_layer,
    .normalize = normalize_layer,
    .moments = moments_layer,
    .interpolate = interpolate_layer,
    .linear = linear_layer,
    .groups = groups_layer,
    .attend = attend_layer,
};

template <typename A>
constexpr Loops<A> kLoops = {
    .lanes = static_cast<int>(hn::MaxLanes(hn::ScalableTag<A>())),
    .interleave = interleave<A>,
    .transpose = transpose_matrix<A>,
    .channels = channels<A>,
    .channels_vectors = kMaxChannelVectors<A>,
    .depthwise = depthwise<A>,
    .columns_channels = kColumnsChannels,
    .columns_split = columns_split<A>,
    .columns = columns<A>,
    .winners_to_weight = winners<true, A>,
    .winners_to_image = winners<false, A>,
    .narrow = narrow_values<A>,
    .fma_loop = fma_loop<A>,
};

constexpr InstructionSet instruction_set(const char* name) {
  return {.name = name,
          .single = kLoops<float>,
          .twofold = kLoops<double>,
          .layers = kLayerLoops,
          .winograd_2x2_3x3 = kWinogradLoops<Winograd<2, 3>, float>,
          .winograd_4x4_3x3 = kWinogradLoops<Winograd<4, 3>, float>,
          .winograd_2x2_5x5 = kWinogradLoops<Winograd<2, 5>, float>};
}

}  // namespace
}  // namespace convship::kernels::conv2d
