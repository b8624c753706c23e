// The two linear maps behind the gradient of max pooling, each the transpose of
// the other, for float and double. `index` holds the winning tap of each
// pooled value, as conv_pool2d_plain writes it.
#pragma once

#include "kernels/conv2d/geometry.h"
#include "kernels/parallel.h"

namespace convship::kernels::conv2d {

// conv[window(p) at index[p]] += pooled[p], from zero. Windows are added in
// row-major order, so that the sums of overlapping windows have fixed bits.
// False when an index points outside of its window or of the conv result.
template <typename T, typename Index>
bool pool_route(const PoolGeometry& geometry,
                const T* pooled,
                const Index* index,
                T* conv,
                const Parallel& parallel);

// pooled[p] = conv[window(p) at index[p]]; false as above.
template <typename T, typename Index>
bool pool_gather(const PoolGeometry& geometry,
                 const T* conv,
                 const Index* index,
                 T* pooled,
                 const Parallel& parallel);

}  // namespace convship::kernels::conv2d
