// All schemas: the contract. Files named after an op and a dispatch key hold
// the implementations. int, where sizes of tensors cannot go: a traced program
// is specialised to it anyway, and SymInt[2] would not take one number.
#include <torch/library.h>

#include "convship/ops.h"
#include "ops/packed_conv.h"
#include "ops/planned.h"

namespace convship::ops {

// The registrations below run when the library is loaded.
void register_ops() {}

}  // namespace convship::ops

TORCH_LIBRARY(convship, m) {
  // Cannot be saved: a file holds weights in their own order, and packs again.
  m.class_<convship::ops::PackedConv>("PackedConv")
      .def("description", [](const c10::intrusive_ptr<convship::ops::PackedConv>& packed) {
        return packed->description();
      });

  // Part of a network that was loaded, and a call of it; no derivatives.
  m.class_<convship::ops::Planned>("Planned");
  m.def("_run_planned(Tensor[] inputs, __torch__.torch.classes.convship.Planned plan) -> Tensor[]",
        [](const std::vector<at::Tensor>& inputs,
           const c10::intrusive_ptr<convship::ops::Planned>& plan) { return plan->run(inputs); });

  m.def(
      "conv_pool2d(Tensor input, Tensor weight, Tensor? bias=None, *, "
      "int[2] stride=1, int[2] padding=0, int[2] dilation=1, int groups=1, "
      "str activation=\"relu\", int[2] pool_size=2, int[2]? pool_stride=None, "
      "int[2] pool_padding=0, bool ceil_mode=False, str accuracy=\"default\") -> Tensor");

  // The same with weights packed once: "default" accuracy is resolved then.
  // No derivatives.
  m.def(
      "conv_pool2d_prepack(Tensor weight, Tensor? bias=None, *, "
      "int[2] stride=1, int[2] padding=0, int[2] dilation=1, int groups=1, "
      "str activation=\"relu\", int[2] pool_size=2, int[2]? pool_stride=None, "
      "int[2] pool_padding=0, bool ceil_mode=False, str accuracy=\"default\") "
      "-> __torch__.torch.classes.convship.PackedConv");
  m.def(
      "conv_pool2d_packed(Tensor input, __torch__.torch.classes.convship.PackedConv packed) "
      "-> Tensor");

  // What training records: also the winning tap of each pooling window, as
  // uint8 or int32. Sums directly, whatever `accuracy` says.
  m.def(
      "_conv_pool2d_with_index(Tensor input, Tensor weight, Tensor? bias=None, *, "
      "int[2] stride=1, int[2] padding=0, int[2] dilation=1, int groups=1, "
      "str activation=\"relu\", int[2] pool_size=2, int[2]? pool_stride=None, "
      "int[2] pool_padding=0, bool ceil_mode=False, str accuracy=\"default\") "
      "-> (Tensor output, Tensor window_index)");

  // Gradients of input, weight and bias, those that output_mask wants; others
  // have no values. `output` is there where activation was relu. One group.
  // Without a derivative: where one is recorded, autograd takes the ops below.
  m.def(
      "_conv_pool2d_backward(Tensor grad, Tensor? output, Tensor window_index, Tensor input, "
      "Tensor weight, *, int[2] stride, int[2] padding, int[2] dilation, int[2] pool_size, "
      "int[2] pool_stride, int[2] pool_padding, bool ceil_mode, bool[3] output_mask) "
      "-> (Tensor, Tensor, Tensor)");

  // Linear in their first argument and each other's derivative, so that every
  // order of derivative exists: route adds pooled values [N, C, P, Q] into
  // zeros [N, C, conv_size] where their windows' winners were, gather reads
  // there.
  m.def(
      "_pool_route(Tensor pooled, Tensor window_index, SymInt[2] conv_size, "
      "int[2] pool_size, int[2] pool_stride, int[2] pool_padding) -> Tensor");
  m.def(
      "_pool_gather(Tensor conv, Tensor window_index, "
      "int[2] pool_size, int[2] pool_stride, int[2] pool_padding) -> Tensor");
}
