"""Deliberate mistakes in kernels and plan, each of which a test must notice."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import util
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build/seeded"
COPY = BUILD / "source"
# Kernels and plans need no LibTorch, so that a fault is built and tested in seconds.
PROGRAMS = ("cut_test", "plan_test", "convolution_test")


@dataclass(frozen=True)
class Fault:
    """In `file`, the only occurrence of `right` becomes `wrong`."""

    what: str
    file: str
    right: str
    wrong: str


CONV = "cpp/kernels/conv2d/"
ISA = CONV + "isa/"
LAYERS = "cpp/kernels/layers/isa/layers-inl.h"
PLAN = "cpp/plan/"

FAULTS = [
    # Special values.
    Fault("a NaN in the second operand of a maximum alone counts", ISA + "vectors-inl.h",
          "hn::IfThenElse(hn::IsNaN(a), a, hn::Max(a, b))", "hn::Max(b, a)"),
    Fault("relu makes zero of NaN", ISA + "vectors-inl.h",
          "hn::IfThenZeroElse(hn::Le(value, hn::Zero(hn::DFromV<V>())), value)",
          "hn::IfThenElseZero(hn::Gt(value, hn::Zero(hn::DFromV<V>())), value)"),
    Fault("relu of a tile makes zero of NaN", ISA + "vectors-inl.h",
          "hn::Max(hn::Zero(hn::DFromV<V>()), value)",
          "hn::Max(value, hn::Zero(hn::DFromV<V>()))"),
    Fault("sigmoid of NaN is a number", ISA + "vectors-inl.h",
          "hn::Max(hn::Set(d, -limit), x)", "hn::Max(x, hn::Set(d, -limit))"),
    Fault("windows are padded with 0 instead of -inf", ISA + "pooling-inl.h",
          "const V none = hn::Set(D(), -infinity<A>());", "const V none = hn::Zero(D());"),
    Fault("columns: windows are padded with 0 on the right", ISA + "columns-inl.h",
          "-infinity<A>());\n    for (int64_t i = 0; i < sizes.right",
          "0);\n    for (int64_t i = 0; i < sizes.right"),
    Fault("a tie goes to the last maximum", ISA + "pooling-inl.h",
          "const auto wins = hn::Or(hn::Gt(value, best), hn::IsNaN(value));\n              winner",
          "const auto wins = hn::Or(hn::Ge(value, best), hn::IsNaN(value));\n              winner"),
    Fault("hardsigmoid divides by 5", ISA + "vectors-inl.h",
          "A(1) / A(6)", "A(1) / A(5)"),
    # Tails, tiles and bands.
    Fault("the last columns of a transposed row are dropped", ISA + "vectors-inl.h",
          "for (; q < columns; ++q) {\n    for (int64_t c = 0; c < channels; ++c) {",
          "for (; q + 1 < columns; ++q) {\n    for (int64_t c = 0; c < channels; ++c) {"),
    Fault("larger tiles are one too many", ISA + "vectors-inl.h",
          "(i < larger_ones ? 1 : 0)", "(i <= larger_ones ? 1 : 0)"),
    Fault("channels: the input steps by one column too few", ISA + "channels-inl.h",
          "const int64_t step = columns * t.source.column_step;",
          "const int64_t step = (columns - (number > 2)) * t.source.column_step;"),
    Fault("channels: a later step starts from the bias again", ISA + "channels-inl.h",
          "return step > 0 ? Taps{", "return step > 1 ? Taps{"),
    Fault("channels: pairs although the last window is cut", ISA + "channels-inl.h",
          "return pairs && 2 * p.width <= p.conv.w ?", "return pairs ?"),
    Fault("pooling: a band's rows are off by one", ISA + "pooling-inl.h",
          "const int64_t end = smaller(top + pool.size.h, pool.conv.h);",
          "const int64_t end = smaller(top + pool.size.h, pool.conv.h - 1);"),
    Fault("pooling: a row is taken for seen before", ISA + "pooling-inl.h",
          "for (next = larger(next, begin); next < end; ++next) {",
          "for (next = larger(next, begin + 1); next < end; ++next) {"),
    Fault("pooling: the residual of another column", ISA + "pooling-inl.h",
          "i / kBlock * to.column_step + to.starts[v];", "to.starts[v];"),
    Fault("pooling: no activation where nothing is pooled", ISA + "pooling-inl.h",
          "activate_in_memory(d, target.activation, result, columns * kBlock);", ""),
    Fault("pooling: no relu where nothing is pooled", ISA + "pooling-inl.h",
          "if (target.activation.kind == Activation::relu) {", "if (false) {"),
    Fault("columns: a whole vector is written at a row's end", ISA + "columns-inl.h",
          "to.y + at, exist);", "to.y + at, kLanes);"),
    Fault("columns: the right padding keeps its first tap's phase", ISA + "columns-inl.h",
          "to[place % phases * t.phase_size + place / phases] =",
          "to[i % phases * t.phase_size + place / phases] ="),
    Fault("columns: the row below counts as the row", ISA + "columns-inl.h",
          "max_of(sum[o][2 * v], sum[o][kColumns + 2 * v])",
          "max_of(sum[o][2 * v], sum[o][2 * v])"),
    Fault("columns: joined rows are one too close", ISA + "columns-inl.h",
          "joined + o * sizes.joined_size + (next - first) * t.row_step",
          "joined + o * sizes.joined_size + (next - first) * t.pool.conv.w"),
    Fault("columns: a split row's last values are of another phase", ISA + "columns-inl.h",
          "count - kStep - (t.left + count) % phases", "count - kStep"),
    Fault("bands: a ring is another block's", CONV + "channels.cpp",
          "(c.keeps_rings ? number * ring : 0)", "0"),
    Fault("bands: the first of a thread has a ring", CONV + "channels.cpp",
          "task.pool.done = item > begin ?", "task.pool.done = item >= begin ?"),
    Fault("depthwise: channels that do not exist are written", CONV + "channels.cpp",
          "std::min(b.exist, g.c_out - o)", "b.exist"),
    Fault("depthwise: every vector has the first one's input", CONV + "depthwise_input.cpp",
          "const int64_t c = vector * loops_.lanes;", "const int64_t c = 0 * vector;"),
    Fault("sampling: padding that is no multiple begins at the first row", CONV + "sampling.h",
          "first = zeros * every - padding", "first = 0"),
    Fault("interleave: every fourth column is every other one", ISA + "vectors-inl.h",
          "two(from + 2 * (kLanes - 1))", "two(from + kLanes - 1)"),
    Fault("strips: the padding on the right keeps what memory held", CONV + "strip.cpp",
          "clear(values + end * steps.w_step, strip.columns - end, steps.w_step);", ""),
    Fault("strips: a row above the image is read", CONV + "strip.cpp",
          "const bool inside = y + row >= 0 &&", "const bool inside = y + row >= -1 &&"),
    Fault("channels: an input with padding is read in place", CONV + "channels_input.cpp",
          "if (!is_padded(g_) &&", "if (g_.padding.h == 0 && g_.padding.w == 0 &&"),
    Fault("channels: dilation of rows is forgotten", CONV + "channels_input.cpp",
          "i * g_.dilation.h * steps_.h_step", "i * steps_.h_step"),
    Fault("channels: every group has the first one's input", CONV + "channels_input.cpp",
          "const int64_t c = group * channels_;", "const int64_t c = 0 * group;"),
    Fault("channels: a band begins a conv row too late", CONV + "channels.cpp",
          "std::max(first_conv_row(task.pool.begin, g), task.pool.done);",
          "first_conv_row(task.pool.begin, g) + (i.band > 0);"),
    Fault("channels: a bias too many", CONV + "channels.cpp",
          "task.bias = packed.bias.get() + place;",
          "task.bias = packed.bias.get() + place - b.first;"),
    Fault("cut: the last part of the blocks is left out", CONV + "cut.cpp",
          "c.parts = ceil_div(blocks, c.part_blocks);",
          "c.parts = blocks / c.part_blocks;"),
    # Layers.
    Fault("average pooling counts a row less", LAYERS,
          "static_cast<float>(rows.count * columns.count)",
          "static_cast<float>((rows.end - rows.begin) * columns.count)"),
    Fault("linear: features beyond the last whole vector are dropped", LAYERS,
          "if (f < t.features) {", "if (f + 1 < t.features) {"),
    Fault("linear: the last rows are dropped", LAYERS,
          "rows(Number<1>());", ""),
    Fault("groups: padding on the left keeps what memory held", LAYERS,
          "for (int64_t j = 0; j < left; ++j) hn::StoreU(hn::Zero(d), d, to + j * kF);\n", "\n"),
    Fault("groups: a tile in place reads a column beyond the image", LAYERS,
          "end = smaller(last < 0 ? 0 : last / step + 1",
          "end = smaller(last < 0 ? 0 : last / step + 2"),
    Fault("groups: a row above the image is summed", LAYERS,
          "for (; y < 0 && begin < end; y += t.dilation.h) ++begin;",
          "for (; y < -1 && begin < end; y += t.dilation.h) ++begin;"),
    Fault("channels: the second block of a pair takes the first one's weights",
          CONV + "channels.cpp",
          "task.block_step = taps * b.vectors * lanes;", "task.block_step = 0;"),
    Fault("per tap: the bias is forgotten", CONV + "per_tap.cpp",
          "bias[o + k] + (from ?", "(from ?"),
    Fault("per tap: taps look at the columns of the first", CONV + "per_tap.cpp",
          "x.data += first.h * x.h_step + first.w * x.w_step;", "x.data += first.h * x.h_step;"),
    # Narrower numbers.
    Fault("int8: padding is level 0", ISA + "word-int8-inl.h",
          "static_cast<int32_t>(0x01010101u * static_cast<uint32_t>(levels.zero_point))", "0"),
    Fault("int8: the zero point's share stays in the sum", CONV + "words.cpp",
          "rounding.zero_point) +", "0) +"),
    Fault("bfloat16: the second channel of a pair is the first", ISA + "word-bfloat16-inl.h",
          "high = _mm512_cvtepu16_epi32(round(planes[1], levels))",
          "high = _mm512_cvtepu16_epi32(round(planes[0], levels))"),
    Fault("words: a last channel has its neighbour's weights", CONV + "words.cpp",
          "Accumulator<T>::widen(from[(c + l) * kernel", "Accumulator<T>::widen(from[c * kernel"),
    # The first of these is noticed where the CPU has such a unit.
    Fault("tiles: the second pixels have the first channels' weights", ISA + "tiles-inl.h",
          "multiply<3, 5, 7>", "multiply<3, 5, 6>"),
    Fault("tiles: a last tile that begins early has its pixels twice", ISA + "tile-spread-inl.h",
          "const int64_t begin = i < tile.seen ? tile.seen : i;", "const int64_t begin = i;"),
    Fault("tiles: rows in one run take what lies between them", ISA + "tile-spread-inl.h",
          "const int64_t end = kept < next ? kept : next;", "const int64_t end = next;"),
    # Plans.
    Fault("plan: memory of a value is given away a step too early", PLAN + "places.cpp",
          "return first <= other.last && other.first <= last;",
          "return first < other.last && other.first < last;"),
    Fault("plan: only the first image of a value has a place", PLAN + "places.cpp",
          "return images * image_floats(size_of(root));",
          "return image_floats(size_of(root));"),
    Fault("plan: parts of a concatenation begin anywhere", PLAN + "places.cpp",
          "if (channel % kBlock == 0 && can_move(v))", "if (can_move(v))"),
    Fault("plan: a value that outlives its micro-batch has room for no more", PLAN + "places.cpp",
          "lives_[root].last < micro_batch_.instructions ?",
          "lives_[root].last <= micro_batch_.instructions ?"),
    Fault("plan: threads share the memory of a micro-batch", PLAN + "plan.cpp",
          "frame.micro_batch + thread * micro_batch_memory_", "frame.micro_batch"),
    Fault("plan: images behind the last whole micro-batch are the first ones", PLAN + "plan.cpp",
          "  frame.first_image = turns() * micro_batch_.images;\n", "  frame.first_image = 0;\n"),
    Fault("plan: a value that is read again is made in the output", PLAN + "places.cpp",
          "if (readers_[v] > 0 || part_[v].root != v ||", "if (part_[v].root != v ||"),
    Fault("plan: an output may be written over", PLAN + "places.cpp",
          "lives_[part_[v].root].include(end);", ""),
    Fault("plan: the residual of a fused sum is its own input", PLAN + "network.cpp",
          "one.inputs.push_back(other);", "one.inputs.push_back(one.inputs[0]);"),
    Fault("plan: a sum is fused before its operand is made", PLAN + "network.cpp",
          "uses.maker(other) >= place", "uses.maker(other) > place + 9"),
    Fault("plan: a maximum is taken before any activation", PLAN + "network.cpp",
          "if (!is_monotone(conv->activation) || one.inputs", "if (one.inputs"),
    Fault("plan: a channel's factor is taken for a whole image", PLAN + "layer_steps.cpp",
          "rows > 1 ? x.size.image.w == 1 : x.size.pixels() == 1", "rows > 1"),
    Fault("plan: one row for all of an image is taken for many", PLAN + "layer_steps.cpp",
          "x.size.image.h > 1 ? row * x.size.image.w * kChannelBlock : 0",
          "row * x.size.image.w * kChannelBlock"),
    Fault("plan: columns follow each other where rows should", PLAN + "copy_steps.cpp",
          "if (rows) {", "if (false) {"),
    Fault("lowering: an expanded tensor is as large as before",
          "cpp/ops/lowering/elementwise.cpp",
          "if (number != 1 && number != largest) return false;", ""),
    Fault("plan: a selected channel is its neighbour", PLAN + "copy_steps.cpp",
          "channels.push_back(all[c]);", "channels.push_back(all[c > 0 ? c - 1 : c]);"),
    Fault("plan: average pooling counts beyond the padding", PLAN + "layer_steps.cpp",
          "std::min(begin + size, extent + padding)", "begin + size"),
    # Results straight from registers; groups.
    Fault("vectors write channels that do not exist", ISA + "pooling-inl.h",
          "return smaller(kLanes, larger(0, target.channels - v * kLanes));", "return kLanes;"),
    Fault("tiles write channels that do not exist", ISA + "pooling-inl.h",
          "return to.channels >= kBlock && (kind", "return (kind"),
    Fault("winograd: rows of the next band are written", ISA + "winograd-inl.h",
          "if (r < begin || r >= end || c >= columns) continue;",
          "if (r < begin || c >= columns) continue;"),
    Fault("groups: every channel has the weights of its group's first", LAYERS,
          "weight[k * kWidth + channel]", "weight[k * kWidth]"),
    Fault("winograd: all images of a strip are its first", CONV + "winograd.cpp",
          "k * s.image_tiles() * p_.block_size()", "0"),
    # Taps that padding alone meets.
    Fault("taps: what the first row misses is left out for all", CONV + "tap_runs.cpp",
          "return {inside(last).begin,", "return {inside(first).begin,"),
    Fault("taps: a zero keeps the sign to which it underflowed", ISA + "channels-inl.h",
          "return without_minus_zero(sum);", "return sum;"),
    Fault("taps: all rows near the lower edge have the last one's", CONV + "tap_runs.cpp",
          "for (int64_t r = lower; r < g.conv.h; ++r) add_row(r);",
          "for (int64_t r = lower; r < g.conv.h; ++r) add_row(g.conv.h - 1);"),
    Fault("channels: a tile that goes on below begins there", ISA + "channels-inl.h",
          "column = first % width; j < now", "column = 0; j < now"),
    Fault("channels: a tile that goes on below has its first row's taps", ISA + "channels-inl.h",
          "if (bottom > top) taps.runs", "if (bottom > top + 9) taps.runs"),
    Fault("taps: a step begins with the one before it", CONV + "tap_runs.cpp",
          "std::max<int64_t>(runs_[k].begin, begin)", "runs_[k].begin"),
    # Taps by eights; layers over the channels of a pixel.
    Fault("channels: the last of eight taps has its neighbour's input", ISA + "channels-inl.h",
          "Product::value(input(tap, j) + k)", "Product::value(input(tap, j) + (k > 6 ? 6 : k))"),
    Fault("channels: eight taps adjoin, of two pixels", CONV + "channels.cpp",
          "if (channels % kTapGroup != 0 || offsets", "if (offsets"),
    Fault("layer norm: channels that do not exist count", LAYERS,
          "hn::IfThenElseZero(exist, hn::Sub(x, mean[i]))", "hn::Sub(x, mean[i])"),
    Fault("gelu is not zero far below it", ISA + "vectors-inl.h",
          "kOne = 5.3f", "kOne = 5.1f"),
    Fault("plan: what a factor's layer adds is forgotten", PLAN + "layer_steps.cpp",
          "if (sums) task.b = also.block(frame, n, block);", ""),
    Fault("elu and tanh lose the digits of small numbers", ISA + "vectors-inl.h",
          "hn::MulAdd(e.more, e.scale, hn::Sub(e.scale, hn::Set(d, 1.0f)))",
          "hn::Sub(hn::Mul(e.one_and_more(), e.scale), hn::Set(d, 1.0f))"),
    Fault("plan: all blocks of a group norm begin with its first group", PLAN + "norm_steps.cpp",
          "(block - begin) * kChannelBlock, size, moments", "0, size, moments"),
    Fault("plan: zeros below an image are not counted to the convolution", PLAN + "network.cpp",
          "both.more_padding.h += pad->bottom.constant - pad->top.constant;", ""),
    Fault("plan: sizes of merged values are not known", PLAN + "sizes.cpp",
          "network.unfused()", "network.instructions()"),
    Fault("plan: a network takes sizes that it refuses", PLAN + "sizes.cpp",
          "if (holds(sizes) == 0)", "if (holds(sizes) < 0)"),
    Fault("plan: a reflection repeats the last row", PLAN + "resize_steps.cpp",
          "2 * (size - 1) - i", "2 * size - 1 - i"),
    Fault("plan: bilinear coordinates are half a pixel off", PLAN + "resize_steps.cpp",
          "step * (place + 0.5f) - 0.5f", "step * place"),
    Fault("winograd: all places of a dilated image begin in its corner", CONV + "winograd.cpp",
          "every(call.input, phase.input)", "every(call.input, {0, 0})"),
    # Operands of two sizes; channels of a pixel.
    Fault("plan: one channel serves its own block of channels alone", PLAN + "layer_steps.cpp",
          "const bool one_channel = x.size.c == 1 && y.size.c > 1;",
          "const bool one_channel = x.size.c == 1 && y.size.c > 16;"),
    Fault("plan: what a convolution adds may have another size", PLAN + "network.cpp",
          " || !(sizes[other] == sizes[one.output])", ""),
    Fault("plan: images of vectors begin with their first block", PLAN + "copy_steps.cpp",
          "from + block * kChannelBlock * pixels, pixels, count", "from, pixels, count"),
    Fault("plan: lines of exchanged channels are as long as before", PLAN + "copy_steps.cpp",
          "y_line = layer.rows ? 1 : y.size.image.w", "y_line = layer.rows ? 1 : image.w"),
    Fault("plan: exchanged channels are of the first block", PLAN + "copy_steps.cpp",
          "const int64_t here = block * kChannelBlock * step", "const int64_t here = step"),
    Fault("softmax: channels that do not exist count", LAYERS,
          "sum = hn::Add(sum, hn::IfThenElseZero(exist, power));", "sum = hn::Add(sum, power);"),
    Fault("across channels: those that do not exist count", LAYERS,
          "const FV value = hn::IfThenElse(exist, x, none);", "const FV value = x;"),
]  # fmt: skip


def copy_sources() -> None:
    """Bring the copy to the state of the checkout, keeping the times of what is equal."""
    for name in ("CMakeLists.txt", "cpp", "tests/cpp", "tests/fuzz"):
        source, copy = ROOT / name, COPY / name
        files = [source] if source.is_file() else [f for f in source.rglob("*") if f.is_file()]
        for file in files:
            target = copy / file.relative_to(source) if source.is_dir() else copy
            if not target.exists() or target.read_bytes() != file.read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)


def build() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["cmake", "--build", BUILD / "cmake", "--target", *PROGRAMS],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def failing_test() -> str | None:
    """The first program that notices something, or None."""
    for program in PROGRAMS:
        # The first failure is enough; a hang or a crash is one, too.
        command = [BUILD / "cmake/tests/cpp" / program, "--abort-after=1", "--test-case-exclude="
                   "*<double>*,*<bfloat16>*"]  # fmt: skip
        try:
            result = subprocess.run(command, capture_output=True, check=False, timeout=600)
        except subprocess.TimeoutExpired:
            return f"{program} (hangs)"
        if result.returncode != 0:
            return program
    return None


def try_fault(number: int, fault: Fault) -> bool:
    file = COPY / fault.file
    text = file.read_text(encoding="utf-8")
    if text.count(fault.right) != 1:
        sys.exit(f"{fault.file}: the place of this fault is there {text.count(fault.right)} times, "
                 f"must be once: {fault.right}")  # fmt: skip
    begin = time.monotonic()
    file.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")
    try:
        built = build()
        if built.returncode != 0:
            noticed: str | None = "the compiler"
            print(built.stdout[-1500:])
        else:
            noticed = failing_test()
    finally:
        file.write_text(text, encoding="utf-8")
    seconds = time.monotonic() - begin
    verdict = f"noticed by {noticed}" if noticed else "NOT NOTICED"
    print(f"{number:2} {verdict:28} {seconds:5.0f} s  {fault.what}", flush=True)
    return noticed not in (None, "the compiler")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", nargs="*", type=int, help="of some faults; all without")
    numbers = parser.parse_args().numbers or list(range(1, len(FAULTS) + 1))
    copy_sources()
    (torch,) = util.find_spec("torch").submodule_search_locations  # type: ignore[union-attr]
    configure = ["cmake", "-S", COPY, "-B", BUILD / "cmake", "-G", "Ninja",
                 f"-DLibTorch_ROOT={torch}", "-DCONVSHIP_WERROR=OFF"]  # fmt: skip
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    built = build()
    if built.returncode != 0 or failing_test() is not None:
        print(built.stdout[-3000:], "the tests fail without any fault", file=sys.stderr)
        return 1
    missed = [number for number in numbers if not try_fault(number, FAULTS[number - 1])]
    print(f"{len(numbers) - len(missed)} of {len(numbers)} faults noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
