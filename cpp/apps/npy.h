// NumPy's .npy format, version 1.0
// (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
#pragma once

#include <filesystem>
#include <ostream>

#include "convship/model.h"

namespace convship::apps {

// Appends one array; several in one stream are read back one numpy.load each.
// NumPy has no bfloat16: its bits are written, and read, as uint16.
void write_npy(std::ostream& out, const Tensor& tensor);

// Reads a whole .npy file in C order, little-endian. Throws Error(usage).
Tensor read_npy(const std::filesystem::path& path);

}  // namespace convship::apps
