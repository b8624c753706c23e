"""Benchmarks: `convship bench op` measures conv_pool2d beside its peers, in turns."""
