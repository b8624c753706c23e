#include <ATen/ops/from_blob.h>

#include "bindings.h"
#include "images/decode.h"

namespace convship::bindings {
namespace {

at::Tensor decode_image(const py::bytes& data, const std::string& subject) {
  const std::string_view bytes = data;
  const py::gil_scoped_release release;
  images::Image image = images::decode(std::as_bytes(std::span(bytes)), {}, subject);
  auto rgb = std::make_shared<std::vector<std::uint8_t>>(std::move(image.rgb));
  return at::from_blob(
             rgb->data(), {image.height, image.width, 3}, [rgb](void*) mutable { rgb.reset(); },
             at::kByte)
      .permute({2, 0, 1})
      .contiguous();
}

}  // namespace

void init_images(py::module_& m) {
  m.def("decode_image", &decode_image, py::arg("data"), py::arg("subject") = "image",
        "Decode JPEG or PNG bytes to uint8 [3, H, W] RGB, the pixels that Pillow gives.\n\n"
        "Raises convship.ImageError, its message opening with `subject`.");
}

}  // namespace convship::bindings
