// The members of a .pt2 file: an AOTInductor package, which is native code, and
// what convship adds to it.
#pragma once

#include <string>
#include <string_view>

#include "zip_archive.h"

namespace convship::runtime {

inline constexpr std::string_view kPackageLibrary = "data/aotinductor/model/model.wrapper.so";
// What the library calls by number: operators that AOTInductor has no code for.
// Absent where it calls none.
inline constexpr std::string_view kPackageOperators = "data/aotinductor/model/model.wrapper.json";
// A TorchScript archive whose forward is the preprocessing; of classifiers.
inline constexpr std::string_view kPackagePreprocess = "convship/preprocess.pt";
// Not under extra/, where torch.export's reader expects nothing but text.
inline constexpr std::string_view kPackageGoldens = "convship/goldens.safetensors";

// Throws Error(model) unless all expected members are there and no others, and
// the preprocessing is a sound TorchScript archive.
void check_package(const ZipArchive& zip, const std::string& name);

}  // namespace convship::runtime
