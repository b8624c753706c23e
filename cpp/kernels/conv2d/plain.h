// conv_pool2d as one plain loop, for float and double in NCHW.
//
//   y[n,o,p,q] = max over the window at (p,q) of
//                act(bias[o] + sum over c,i,j of weight[o,c,i,j] * x[n,g(o)+c,...])
//
// The sum starts at the bias and runs over c, then i, then j, one rounded
// product and one rounded addition at a time, and leaves taps that fall into
// the padding out. So the bits depend on nothing but the numbers: not on the
// batch, the threads or the tile that a pixel happens to lie in.
#pragma once

#include "kernels/conv2d/geometry.h"
#include "kernels/parallel.h"

namespace convship::kernels::conv2d {

// input [n, c_in, image], weight [c_out, c_in / groups, kernel], bias [c_out]
// or null, output [n, c_out, pooled]; all dense. index [n, c_out, pooled] or
// null receives the tap i * pool_size.w + j that won its window; Index must
// hold every tap of a window.
//
// As in torch: NaN passes through activation and pooling (the last NaN of a
// window wins), ties go to the first maximum, a window of nothing but -inf
// gives -inf and its first tap. A sum is never -0.0.
template <typename T, typename Index>
void conv_pool2d_plain(const Geometry& geometry,
                       Activation activation,
                       const T* input,
                       const T* weight,
                       const T* bias,
                       T* output,
                       Index* index,
                       const Parallel& parallel);

}  // namespace convship::kernels::conv2d
