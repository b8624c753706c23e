// What model.cpp and its siblings put around every public function: whatever
// LibTorch and the standard library throw becomes convship::Error.
#pragma once

#include <cxxabi.h>

#include <exception>
#include <new>
#include <string>

#include "convship/error.h"
#include "images/decode.h"

namespace convship::runtime {

// What LibTorch says, on one line: without its backtrace and code listing.
std::string reason_of(const std::exception& error);

// Runs `work`; what LibTorch's parser and interpreter throw (they have no common
// type) goes to `explain`, which throws Error.
template <typename Work, typename Explain>
auto explained(const Work& work, const Explain& explain) -> decltype(work()) {
  try {
    return work();
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    explain(reason_of(error));
    throw;
  }
}

// Runs `work` and turns whatever it throws into Error, with `subject` in front.
template <typename Work>
auto guarded(ErrorCode code, const std::string& subject, const Work& work) {
  try {
    return work();
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::environment, subject + ": not enough memory");
  } catch (const images::ImageError& error) {
    throw Error(ErrorCode::image, error.what());  // it names the image itself
  } catch (const std::exception& error) {
    throw Error(code, subject + ": " + reason_of(error));
  } catch (const abi::__forced_unwind&) {  // pthread_cancel in a caller's C++
    throw;
  } catch (...) {  // an operator library may throw anything
    throw Error(code, subject + ": an exception of unknown type");
  }
}

}  // namespace convship::runtime
