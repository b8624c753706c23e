#include "convship/file.h"

#include <pybind11/stl/filesystem.h>

#include "bindings.h"

namespace convship::bindings {
namespace {

py::bytes to_bytes(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

py::tuple read_extras(const std::filesystem::path& path, const std::string& public_key) {
  Extras extras;
  {
    const py::gil_scoped_release release;
    extras = convship::read_extras(path, public_key);
  }
  return py::make_tuple(py::bytes(extras.manifest), to_bytes(extras.goldens));
}

py::bytes sign(const py::bytes& data, const std::string& private_key, const std::string& name) {
  const std::string_view bytes = data;
  return to_bytes(convship::sign(std::as_bytes(std::span(bytes)), private_key, name));
}

}  // namespace

void init_file(py::module_& m) {
  m.def("read_extras", &read_extras, py::arg("path"), py::arg("public_key") = "",
        "Check a shipped file; return its manifest (JSON) and its goldens (safetensors).");
  m.def("sign", &sign, py::arg("data"), py::arg("private_key"), py::arg("name") = "model",
        "Return a shipped file's bytes, signed with an Ed25519 key in PEM.");
}

}  // namespace convship::bindings
