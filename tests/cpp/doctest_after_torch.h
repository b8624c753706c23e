// For tests that include LibTorch: its CHECK ends the process, they mean doctest's.
#pragma once

#include <torch/csrc/jit/api/module.h>

#undef CHECK
#include <doctest/doctest.h>
