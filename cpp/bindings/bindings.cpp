#include "bindings.h"

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled part of convship; use the Python modules over it.";
  convship::bindings::init_ops(m);
  convship::bindings::init_images(m);
  convship::bindings::init_file(m);
  convship::bindings::init_model(m);
}
