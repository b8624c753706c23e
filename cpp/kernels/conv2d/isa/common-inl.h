// What every file begins with that is compiled for an instruction set, and the
// channels loop. That file defines CONVSHIP_REGISTERS, the number of vector
// registers. Everything has internal linkage and nothing comes from the
// standard library: a function that the linker shares between files could end
// up with instructions that other CPUs lack.
#pragma once

#ifndef HWY_COMPILE_ONLY_STATIC
#error "Highway must use what the compiler's flags allow, in this file alone"
#endif
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "kernels/conv2d/tasks.h"
#include "kernels/instruction_set.h"

// Before loops over registers. In another loop they are unrolled early, so that their arrays never
// see memory; see `unrolled` for those in none.
#define CONVSHIP_UNROLL _Pragma("GCC unroll 36")
// Of lambdas.
#define CONVSHIP_INLINE HWY_ATTR __attribute__((always_inline))

namespace convship::kernels::conv2d {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
constexpr int kRegisters = CONVSHIP_REGISTERS;

// A number that is known to the compiler, as a value.
template <int kValue>
struct Number {
  constexpr operator int() const { return kValue; }
};

template <int... kValues>
struct Numbers {};

#if defined(__clang__)
template <class Int, Int... kValues>
using NumbersOf = Numbers<kValues...>;
template <int kCount>
using FirstNumbers = __make_integer_seq<NumbersOf, int, kCount>;
#else
template <int kCount>
using FirstNumbers = Numbers<__integer_pack(kCount)...>;
#endif

template <class Visit, int... kValues>
HWY_INLINE void visit_numbers(const Visit& visit, Numbers<kValues...>) {
  (visit(Number<kValues>()), ...);
}

template <int kColumns, class Visit, int... kValues>
HWY_INLINE void visit_array(const Visit& visit, Numbers<kValues...>) {
  (visit(Number<kValues / kColumns>(), Number<kValues % kColumns>()), ...);
}

// visit(0) to visit(kCount - 1), with numbers that the compiler knows from the start: of arrays
// that outlive a loop, all indices must be, else they have memory before their loops are unrolled.
template <int kCount, class Visit>
HWY_INLINE void unrolled(const Visit& visit) {
  visit_numbers(visit, FirstNumbers<kCount>());
}

// visit(row, column).
template <int kRows, int kColumns, class Visit>
HWY_INLINE void unrolled_array(const Visit& visit) {
  visit_array<kColumns>(visit, FirstNumbers<kRows * kColumns>());
}

#include "kernels/conv2d/isa/transpose-inl.h"
//
#include "kernels/conv2d/isa/vectors-inl.h"
//
#include "kernels/conv2d/isa/pooling-inl.h"
//
#include "kernels/conv2d/isa/channels-inl.h"

}  // namespace
}  // namespace convship::kernels::conv2d
