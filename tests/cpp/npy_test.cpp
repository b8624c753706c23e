#include "apps/npy.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

using namespace convship;
using namespace convship::apps;

namespace {

std::filesystem::path write_file(const std::string& content) {
  const auto path = std::filesystem::temp_directory_path() / "convship_npy_test.npy";
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

std::string npy_of(const Tensor& tensor) {
  std::ostringstream out;
  write_npy(out, tensor);
  return out.str();
}

const Tensor kMatrix(DType::float32,
                     {2, 3},
                     std::shared_ptr<const void>(new float[6]{1, 2, 3, 4, 5, 6}, [](const void* p) {
                       delete[] static_cast<const float*>(p);
                     }));

}  // namespace

TEST_CASE("an array survives being written and read") {
  const Tensor again = read_npy(write_file(npy_of(kMatrix)));
  CHECK(again.dtype() == DType::float32);
  CHECK(again.shape() == std::vector<std::int64_t>{2, 3});
  CHECK(again.values<float>()[5] == 6);
}

TEST_CASE("the data is aligned to 64 bytes, as NumPy maps it") {
  CHECK((npy_of(kMatrix).size() - 6 * sizeof(float)) % 64 == 0);
}

TEST_CASE("a file cut anywhere is refused") {
  const std::string whole = npy_of(kMatrix);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    CHECK_THROWS_AS(read_npy(write_file(whole.substr(0, size))), Error);
  }
}
