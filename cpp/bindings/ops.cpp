#include "convship/ops.h"

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>

#include <optional>
#include <string>
#include <variant>

#include "bindings.h"
#include "convship/accuracy.h"
#include "convship/isa.h"
#include "ops/packed_cache.h"
#include "ops/packed_conv.h"
#include "ops/timing.h"

namespace convship::bindings {
namespace {

using ops::Pair;
using IntOrPair = std::variant<std::int64_t, Pair>;

Pair to_pair(const IntOrPair& value) {
  if (const auto* one = std::get_if<std::int64_t>(&value)) return {*one, *one};
  return std::get<Pair>(value);
}

ops::ConvPool2dOptions to_options(const IntOrPair& stride,
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
  return options;
}

// function(tensors..., options) as a Python function of their arguments. Torch's
// own translation of C++ errors: c10::ValueError becomes ValueError.
template <typename... Tensors, typename Function>
auto with_options(const Function& function) {
  return torch::wrap_pybind_function_no_gil(
      [function](const Tensors&... tensors, const IntOrPair& stride, const IntOrPair& padding,
                 const IntOrPair& dilation, std::int64_t groups, const std::string& activation,
                 const IntOrPair& pool_size, const std::optional<IntOrPair>& pool_stride,
                 const IntOrPair& pool_padding, bool ceil_mode, const std::string& accuracy) {
        return function(tensors...,
                        to_options(stride, padding, dilation, groups, activation, pool_size,
                                   pool_stride, pool_padding, ceil_mode, accuracy));
      });
}

// Names and defaults of those arguments.
template <typename Define>
void define_with_options(const Define& define) {
  define(py::kw_only(), py::arg("stride") = 1, py::arg("padding") = 0, py::arg("dilation") = 1,
         py::arg("groups") = 1, py::arg("activation") = "relu", py::arg("pool_size") = 2,
         py::arg("pool_stride") = py::none(), py::arg("pool_padding") = 0,
         py::arg("ceil_mode") = false, py::arg("accuracy") = "default");
}

// Whether a Parameter is there, or in the bias's place None.
bool unpack(py::handle parameter, std::optional<at::Tensor>& tensor) {
  if (!parameter) return false;
  if (parameter.is_none()) return true;
  if (reinterpret_cast<PyObject*>(Py_TYPE(parameter.ptr())) != ParameterClass) return false;
  tensor = THPVariable_Unpack(parameter.ptr());
  return true;
}

// None for the calls that PackedCache leaves to the op, and for tensors whose
// Python type may change what the op means. Takes the module's own dictionary:
// this is called for every layer of every forward pass, and reading attributes
// in Python would take longer than all of it.
py::object run_cache(ops::PackedCache& cache, py::handle input, const py::dict& parameters) {
  static PyObject* const weight_name = PyUnicode_InternFromString("weight");
  static PyObject* const bias_name = PyUnicode_InternFromString("bias");
  std::optional<at::Tensor> weight, bias;
  if (!THPVariable_CheckExact(input.ptr()) ||
      !unpack(PyDict_GetItem(parameters.ptr(), weight_name), weight) || !weight ||
      !unpack(PyDict_GetItem(parameters.ptr(), bias_name), bias)) {
    return py::none();
  }
  at::Tensor output;
  {
    const at::Tensor& x = THPVariable_Unpack(input.ptr());
    const py::gil_scoped_release no_gil;
    output = cache.run(x, *weight, bias);
  }
  if (!output.defined()) return py::none();
  return py::reinterpret_steal<py::object>(THPVariable_Wrap(std::move(output)));
}

py::dict build_info() {
  py::dict info;
  info["version"] = CONVSHIP_VERSION;
  info["torch_version"] = CONVSHIP_TORCH_VERSION;
  info["compiler"] = CONVSHIP_COMPILER;
  info["build_type"] = CONVSHIP_BUILD_TYPE;
  return info;
}

void init_packed(py::module_& m) {
  py::class_<ops::PackedConv, c10::intrusive_ptr<ops::PackedConv>>(
      m, "PackedConv", "Packed weights of one conv_pool2d; immutable, for any number of threads.")
      .def("__repr__", &ops::PackedConv::description);

  py::class_<ops::PackedCache> cache(
      m, "PackedCache", "Packs a layer's parameters when they have changed; for any thread.");
  define_with_options([&](const auto&... options) {
    cache.def(py::init(with_options<>([](const ops::ConvPool2dOptions& given) {
                return std::make_unique<ops::PackedCache>(given);
              })),
              options...);
  });
  cache.def("run", torch::wrap_pybind_function(run_cache), py::arg("input"), py::arg("parameters"),
            "conv_pool2d with a module's 'weight' and 'bias' packed, or None where the caller must "
            "call conv_pool2d.");
  cache.def("clear", &ops::PackedCache::clear, py::call_guard<py::gil_scoped_release>(),
            "Pack again at the next call.");
}

}  // namespace

void init_ops(py::module_& m) {
  ops::register_ops();
  init_packed(m);

  using at::Tensor;
  using OptionalTensor = std::optional<Tensor>;
  define_with_options([&](const auto&... options) {
    m.def("conv_pool2d", with_options<Tensor, Tensor, OptionalTensor>(ops::conv_pool2d),
          py::arg("input"), py::arg("weight"), py::arg("bias") = py::none(), options...,
          "The op as a direct call, with autograd; see convship.ops.conv_pool2d.");
    m.def("conv_pool2d_prepack", with_options<Tensor, OptionalTensor>(ops::conv_pool2d_prepack),
          py::arg("weight"), py::arg("bias") = py::none(), options...,
          "Copies of weight and bias, packed for conv_pool2d_packed. Resolves accuracy "
          "'default'. NotImplementedError where no kernel serves the weight.");
  });
  m.def("conv_pool2d_packed", torch::wrap_pybind_function_no_gil(ops::conv_pool2d_packed),
        py::arg("input"), py::arg("packed"),
        "conv_pool2d with packed weights; refuses inputs whose gradient is recorded.");
  m.def("time_conv_pool2d", torch::wrap_pybind_function_no_gil(ops::time_conv_pool2d),
        py::arg("packed"), py::arg("input"), py::arg("seconds"),
        "Call conv_pool2d_packed from C++ for about `seconds`; returns the output and the "
        "median of seconds per call.");
  m.def(
      "packings",
      [] {
        const auto [made, kept] = ops::packings();
        return py::make_tuple(made, kept);
      },
      "How often this process has packed weights, and how many of these packings still exist.");
  m.def("build_info", build_info,
        "Version of this library, and the torch, compiler and build type it was built with.");
  m.def("available_isas", available_isas,
        "Instruction sets that this build and this CPU have in common, best first.");
  m.def("active_isa", active_isa, "The instruction set in use.");
  m.def("set_isa", set_isa, py::arg("name"),
        "Use an instruction set from now on; ValueError when it is not available.");
  m.def("last_isa", last_isa,
        "The instruction set whose loops served this thread's last conv_pool2d; '' before the "
        "first.");
  m.def("last_family", last_family,
        "The name of the loop that served this thread's last conv_pool2d; '' before the first.");
  m.def("fma_rate", fma_rate, py::arg("seconds"), py::call_guard<py::gil_scoped_release>(),
        "Operations per second of float32 multiply-adds (two each) that one core reaches with "
        "the active instruction set's vectors, in registers.");
  m.def("default_accuracy", default_accuracy, "What accuracy 'default' means: 'direct' or 'fast'.");
  m.def("set_default_accuracy", set_default_accuracy, py::arg("name"),
        "Change what accuracy 'default' means, for weights packed and calls made from now on.");
}

}  // namespace convship::bindings
