// What the files of the extension share: pybind11, tensors as arguments, and
// one init_* per subject, which converts and documents, without logic.
#pragma once

// pybind11's own headers come first on the include path; torch's, which are
// older, are only used for the tensor casters.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

namespace convship::bindings {

namespace py = pybind11;

void init_ops(py::module_& m);
void init_images(py::module_& m);
void init_file(py::module_& m);
void init_model(py::module_& m);

}  // namespace convship::bindings
