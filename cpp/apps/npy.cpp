#include "npy.h"

#include <array>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

namespace convship::apps {
namespace {

// In the order of DType.
constexpr std::array<const char*, 10> kDescr = {"<f4", "<f8", "<u2", "<f2", "<i8",
                                                "<i4", "<i2", "|i1", "|u1", "|b1"};
constexpr std::size_t kPreamble = 10;  // magic, version, header length

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& what) {
  throw Error(ErrorCode::usage, path.string() + ": " + what);
}

// The value of `key` in the header, a Python dict literal.
std::string field(const std::string& header, const std::string& key, char open, char close) {
  const std::size_t at = header.find("'" + key + "'");
  const std::size_t begin = at == std::string::npos ? at : header.find(open, header.find(':', at));
  const std::size_t end = begin == std::string::npos ? begin : header.find(close, begin + 1);
  return end == std::string::npos ? "" : header.substr(begin + 1, end - begin - 1);
}

DType dtype_of(const std::string& descr, const std::filesystem::path& path) {
  for (std::size_t i = 0; i < kDescr.size(); ++i) {
    if (descr == kDescr[i]) return static_cast<DType>(i);
  }
  fail(path, "dtype '" + descr + "' is not supported; save a little-endian number type");
}

}  // namespace

void write_npy(std::ostream& out, const Tensor& tensor) {
  std::string shape;
  for (const std::int64_t dim : tensor.shape()) shape += std::to_string(dim) + ",";
  std::string header = std::string("{'descr': '") +
                       kDescr.at(static_cast<std::size_t>(tensor.dtype())) +
                       "', 'fortran_order': False, 'shape': (" + shape + "), }";
  constexpr std::size_t kAlignment = 64;
  header.append(kAlignment - (kPreamble + header.size() + 1) % kAlignment, ' ');
  header += '\n';
  const auto length = static_cast<unsigned>(header.size());
  out.write("\x93NUMPY\x01\x00", 8);
  out.put(static_cast<char>(length & 255));
  out.put(static_cast<char>(length >> 8));
  out << header;
  out.write(static_cast<const char*>(tensor.data()),
            static_cast<std::streamsize>(static_cast<std::size_t>(tensor.numel()) *
                                         size_of(tensor.dtype())));
}

Tensor read_npy(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) fail(path, std::string("cannot be opened (") + std::strerror(errno) + ")");
  const std::string file{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (file.size() < kPreamble || file.compare(0, 6, "\x93NUMPY") != 0 || file[6] != 1) {
    fail(path, "this is not a .npy file of version 1.0; write it with numpy.save");
  }
  const std::size_t length =
      static_cast<unsigned char>(file[8]) + 256u * static_cast<unsigned char>(file[9]);
  if (file.size() < kPreamble + length) fail(path, "the file is truncated");
  const std::string header = file.substr(kPreamble, length);
  if (header.find("'fortran_order': False") == std::string::npos) {
    fail(path, "Fortran order is not supported; save numpy.ascontiguousarray of it");
  }
  const DType dtype = dtype_of(field(header, "descr", '\'', '\''), path);
  std::vector<std::int64_t> shape;
  std::istringstream dims(field(header, "shape", '(', ')'));
  for (std::string dim; std::getline(dims, dim, ',');) {
    if (dim.find_first_of("0123456789") != std::string::npos) shape.push_back(std::stoll(dim));
  }
  std::size_t bytes = size_of(dtype);
  for (const std::int64_t dim : shape) {
    if (dim < 0 || __builtin_mul_overflow(bytes, static_cast<std::size_t>(dim), &bytes)) {
      fail(path, "the shape in its header is out of range");
    }
  }
  if (file.size() - kPreamble - length != bytes) fail(path, "its size does not fit its header");
  std::shared_ptr<std::byte[]> data(new std::byte[bytes]);
  std::memcpy(data.get(), file.data() + kPreamble + length, bytes);
  return {dtype, shape, std::shared_ptr<const void>(data, data.get())};
}

}  // namespace convship::apps
