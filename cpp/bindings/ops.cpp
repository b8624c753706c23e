#include "convship/ops.h"

#include <torch/csrc/Exceptions.h>

#include <optional>
#include <string>
#include <variant>

#include "bindings.h"
#include "convship/isa.h"

namespace convship::bindings {
namespace {

using ops::Pair;
using IntOrPair = std::variant<std::int64_t, Pair>;

Pair to_pair(const IntOrPair& value) {
  if (const auto* one = std::get_if<std::int64_t>(&value)) return {*one, *one};
  return std::get<Pair>(value);
}

at::Tensor conv_pool2d(const at::Tensor& input,
                       const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias,
                       const IntOrPair& stride,
                       const IntOrPair& padding,
                       const IntOrPair& dilation,
                       std::int64_t groups,
                       const std::string& activation,
                       const IntOrPair& pool_size,
                       const std::optional<IntOrPair>& pool_stride,
                       const IntOrPair& pool_padding,
                       bool ceil_mode,
                       const std::string& accuracy) {
  ops::ConvPool2dOptions options{.stride = to_pair(stride),
                                 .padding = to_pair(padding),
                                 .dilation = to_pair(dilation),
                                 .groups = groups,
                                 .activation = activation,
                                 .pool_size = to_pair(pool_size),
                                 .pool_padding = to_pair(pool_padding),
                                 .ceil_mode = ceil_mode,
                                 .accuracy = accuracy};
  if (pool_stride) options.pool_stride = to_pair(*pool_stride);
  return ops::conv_pool2d(input, weight, bias, options);
}

py::dict build_info() {
  py::dict info;
  info["version"] = CONVSHIP_VERSION;
  info["torch_version"] = CONVSHIP_TORCH_VERSION;
  info["compiler"] = CONVSHIP_COMPILER;
  info["build_type"] = CONVSHIP_BUILD_TYPE;
  return info;
}

}  // namespace

void init_ops(py::module_& m) {
  ops::register_ops();

  // Torch's own translation of C++ errors: c10::ValueError becomes ValueError.
  m.def("conv_pool2d", torch::wrap_pybind_function_no_gil(conv_pool2d), py::arg("input"),
        py::arg("weight"), py::arg("bias") = py::none(), py::kw_only(), py::arg("stride") = 1,
        py::arg("padding") = 0, py::arg("dilation") = 1, py::arg("groups") = 1,
        py::arg("activation") = "relu", py::arg("pool_size") = 2,
        py::arg("pool_stride") = py::none(), py::arg("pool_padding") = 0,
        py::arg("ceil_mode") = false, py::arg("accuracy") = "default",
        "The op as a direct call, with autograd; see convship.ops.conv_pool2d.");
  m.def("build_info", build_info,
        "Version of this library, and the torch, compiler and build type it was built with.");
  m.def("available_isas", available_isas,
        "Instruction sets that this build and this CPU have in common, best first.");
  m.def("active_isa", active_isa, "The instruction set in use.");
  m.def("set_isa", set_isa, py::arg("name"),
        "Use an instruction set from now on; ValueError when it is not available.");
}

}  // namespace convship::bindings
