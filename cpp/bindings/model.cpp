#include "convship/model.h"

#include <pybind11/stl/filesystem.h>

#include <cstring>

#include "bindings.h"
#include "images/decode.h"
#include "runtime/convert.h"

namespace convship::bindings {
namespace {

// `tensor` must outlive the view.
TensorView view_of(const std::string& name, const at::Tensor& tensor) {
  if (!tensor.is_cpu() || tensor.layout() != at::kStrided) {
    throw Error(ErrorCode::usage, "input '" + name + "' must be a dense tensor on the CPU");
  }
  return {tensor.const_data_ptr(), runtime::dtype_of(tensor), tensor.sizes().vec(),
          tensor.strides().vec()};
}

py::dict to_dict(const std::vector<NamedTensor>& tensors) {
  py::dict result;
  for (const auto& [name, tensor] : tensors) result[py::str(name)] = runtime::to_aten(tensor);
  return result;
}

Options options_of(const std::string& backend,
                   bool allow_plain,
                   std::optional<int> threads,
                   const std::string& public_key) {
  Options options;
  options.public_key = public_key;
  if (backend != "convship" && backend != "libtorch") {
    throw Error(ErrorCode::usage,
                "backend must be 'convship' or 'libtorch', got '" + backend + "'");
  }
  options.backend = backend == "libtorch" ? Backend::libtorch : Backend::convship;
  options.allow_plain = allow_plain;
  // A Python process has its own way to set threads: torch.set_num_threads.
  options.threads = threads.value_or(Options::keep_threads);
  return options;
}

Model from_file(const std::filesystem::path& path,
                const std::string& backend,
                bool allow_plain,
                std::optional<int> threads,
                const std::string& public_key) {
  const Options options = options_of(backend, allow_plain, threads, public_key);
  const py::gil_scoped_release release;
  return Model::load(path, options);
}

Model from_bytes(const py::bytes& data,
                 const std::string& name,
                 const std::string& backend,
                 bool allow_plain,
                 std::optional<int> threads,
                 const std::string& public_key) {
  const Options options = options_of(backend, allow_plain, threads, public_key);
  const std::string_view bytes = data;
  const py::gil_scoped_release release;
  return Model::load(std::as_bytes(std::span(bytes)), options, name);
}

std::vector<Prediction> predict_encoded(const Model& model, const py::bytes& data, int top_k) {
  const std::string_view bytes = data;
  const py::gil_scoped_release release;
  return model.predict_encoded(std::as_bytes(std::span(bytes)), top_k);
}

using Inputs = std::map<std::string, at::Tensor>;

// Calls function(views) without the interpreter's lock.
template <typename Function>
auto with_views(const Inputs& inputs, const Function& function) {
  std::vector<NamedView> views;
  std::vector<at::Tensor> resolved;
  resolved.reserve(inputs.size());
  for (const auto& [name, tensor] : inputs) {
    // Conjugation and negation may be pending: memory then holds other values.
    resolved.push_back(tensor.resolve_conj().resolve_neg());
    views.push_back({name, view_of(name, resolved.back())});
  }
  const py::gil_scoped_release release;
  return function(views);
}

py::dict run(const Model& model, const Inputs& inputs) {
  return to_dict(with_views(inputs, [&](const auto& views) { return model.run(views); }));
}

py::dict plan(const Model& model, const Inputs& inputs) {
  const PlanReport report =
      with_views(inputs, [&](const auto& views) { return model.plan(views); });
  py::list steps;
  for (const PlanStep& step : report.steps) {
    steps.append(py::make_tuple(step.name, step.milliseconds));
  }
  py::dict left;
  for (const auto& [name, count] : report.left_to_libtorch) left[py::str(name)] = count;
  py::dict result;
  result["whole"] = report.whole;
  result["steps"] = steps;
  result["left_to_libtorch"] = left;
  return result;
}

py::dict stages(const Model& model, const py::bytes& data) {
  Stages found;
  {
    const std::string_view bytes = data;
    const py::gil_scoped_release release;
    found = model.stages(std::as_bytes(std::span(bytes)));
  }
  py::dict result;
  result["pixels"] = runtime::to_aten(found.pixels);
  result["preprocessed"] = runtime::to_aten(found.preprocessed);
  for (const auto& [name, tensor] : found.outputs)
    result[py::str("output." + name)] = runtime::to_aten(tensor);
  result["probabilities"] = runtime::to_aten(found.probabilities);
  return result;
}

// convship's exceptions as those of convship.errors, by code.
void translate(std::exception_ptr thrown) {
  // A message may hold a path, which need not be UTF-8.
  const auto text = [](const char* what) {
    return py::reinterpret_steal<py::str>(
        PyUnicode_DecodeUTF8(what, static_cast<Py_ssize_t>(std::strlen(what)), "replace"));
  };
  const auto raise = [&](const char* type, const char* what) {
    PyErr_SetObject(py::module_::import("convship.errors").attr(type).ptr(), text(what).ptr());
  };
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const images::ImageError& error) {
    raise("ImageError", error.what());
  } catch (const Error& error) {
    switch (error.code()) {
      case ErrorCode::image:
        raise("ImageError", error.what());
        break;
      case ErrorCode::model:
        raise("ModelFileError", error.what());
        break;
      case ErrorCode::usage:
        PyErr_SetObject(PyExc_ValueError, text(error.what()).ptr());
        break;
      case ErrorCode::environment:
        PyErr_SetObject(PyExc_OSError, text(error.what()).ptr());
        break;
    }
  }
}

}  // namespace

void init_model(py::module_& m) {
  py::register_local_exception_translator(&translate);

  py::class_<Prediction>(m, "Prediction", "One class of a classifier's answer.")
      .def_readonly("label", &Prediction::label)
      .def_readonly("index", &Prediction::index)
      .def_readonly("probability", &Prediction::probability)
      .def("__repr__", [](const Prediction& p) {
        return py::str("Prediction(label={!r}, index={}, probability={:.6g})")
            .format(p.label, p.index, p.probability);
      });

  py::class_<Check>(m, "Check", "One golden's stage, compared with this machine's answer.")
      .def_readonly("golden", &Check::golden)
      .def_readonly("stage", &Check::stage)
      .def_readonly("max_error", &Check::max_error)
      .def_readonly("tolerance", &Check::tolerance)
      .def_readonly("passed", &Check::passed);

  py::class_<Model>(m, "Model", "A shipped model in the native runtime; see convship.Model.")
      .def_static("from_file", &from_file, py::arg("path"), py::kw_only(),
                  py::arg("backend") = "convship", py::arg("allow_plain") = false,
                  py::arg("threads") = py::none(), py::arg("public_key") = "")
      .def_static("from_bytes", &from_bytes, py::arg("data"), py::arg("name") = "model",
                  py::kw_only(), py::arg("backend") = "convship", py::arg("allow_plain") = false,
                  py::arg("threads") = py::none(), py::arg("public_key") = "")
      .def_property_readonly("manifest", &Model::manifest)
      .def_property_readonly("labels", &Model::labels)
      .def("predict_file", &Model::predict_file, py::arg("path"), py::arg("top_k") = 1,
           py::call_guard<py::gil_scoped_release>())
      .def("predict_encoded", &predict_encoded, py::arg("data"), py::arg("top_k") = 1)
      .def("run", &run, py::arg("inputs"))
      .def("plan", &plan, py::arg("inputs"))
      .def("stages", &stages, py::arg("data"))
      .def("selftest", &Model::selftest, py::call_guard<py::gil_scoped_release>());
}

}  // namespace convship::bindings
