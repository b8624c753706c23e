#include "convship/isa.h"

#include <array>
#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "kernels/instruction_set.h"

#ifdef CONVSHIP_HAVE_AVX512
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace convship {
namespace {

using kernels::InstructionSet;

constexpr InstructionSet kBaseline = {"baseline", {}, {}, {}, {}, {}, {}};

struct Candidate {
  const InstructionSet* set;
  bool (*runs_here)();
};

#ifdef CONVSHIP_HAVE_AVX512
// Linux keeps the tiles of a process only when it has asked for them, once.
bool may_use_tiles() {
  constexpr long kAskFor = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool may = syscall(SYS_arch_prctl, kAskFor, kTileData) == 0;
  return may;
}

// CPUs with tiles round to bfloat16 and have AVX512_VNNI, too; others are not looked for.
bool has_tiles() {
  constexpr unsigned kAll = 1u << 22 | 1u << 24 | 1u << 25;  // AMX-BF16, AMX-TILE, AMX-INT8
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  // Not __builtin_cpu_supports: clang 14 does not know these.
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & kAll) == kAll &&
         __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512bf16") &&
         __builtin_cpu_supports("avx512vnni") && may_use_tiles();
}
#endif

// Best first.
constexpr auto kCandidates = std::to_array<Candidate>({
#ifdef CONVSHIP_HAVE_AVX512
    {&kernels::kAmx, has_tiles},
    {&kernels::kAvx512, [] { return __builtin_cpu_supports("x86-64-v4") != 0; }},
#endif
#ifdef CONVSHIP_HAVE_AVX2
    {&kernels::kAvx2, [] { return __builtin_cpu_supports("x86-64-v3") != 0; }},
#endif
#ifdef CONVSHIP_HAVE_NEON
    {&kernels::kNeon, [] { return true; }},
#endif
    {&kBaseline, [] { return true; }},
});
static_assert(kCandidates.size() <= kernels::kMostInstructionSets);

int number_of(std::string_view name, const char* subject) {
  std::string known;
  for (std::size_t i = 0; i < kCandidates.size(); ++i) {
    if (!kCandidates[i].runs_here()) continue;
    if (kCandidates[i].set->name == name) return static_cast<int>(i);
    known += (known.empty() ? "" : ", ") + std::string(kCandidates[i].set->name);
  }
  throw std::invalid_argument(std::string(subject) + " must be one of " + known +
                              " on this machine, got '" + std::string(name) + "'");
}

int first_choice() {
  const char* forced = std::getenv("CONVSHIP_ISA");
  return number_of(forced ? forced : available_isas().front(), "CONVSHIP_ISA");
}

std::atomic<int>& active() {
  static std::atomic<int> number = first_choice();
  return number;
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Candidate& candidate : kCandidates) {
    if (candidate.runs_here()) names.emplace_back(candidate.set->name);
  }
  return names;
}

std::string active_isa() {
  return kernels::instruction_set(kernels::active_instruction_set()).name;
}

void set_isa(std::string_view name) { active() = number_of(name, "isa"); }

namespace kernels {

int active_instruction_set() { return active().load(std::memory_order_relaxed); }

const InstructionSet& instruction_set(int number) { return *kCandidates[number].set; }

#ifdef CONVSHIP_HAVE_AVX512
// Intel's VDPBF16PS takes eight times as long as a multiply-add of float32 (measured on a CPU
// with AMX), AMD's as long.
const WordLoops* bfloat16_loops(const InstructionSet& isa) {
  const bool fast = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_is("amd");
  return &isa == &kAvx512 && fast ? &kAvx512Bfloat16 : nullptr;
}

const WordLoops* int8_loops(const InstructionSet& isa) {
  return &isa == &kAvx512 && __builtin_cpu_supports("avx512vnni") ? &kAvx512Int8 : nullptr;
}

const TileLoops* bfloat16_tiles(const InstructionSet& isa) {
  return &isa == &kAmx ? &kAmxBfloat16 : nullptr;
}

const TileLoops* int8_tiles(const InstructionSet& isa) {
  return &isa == &kAmx ? &kAmxInt8 : nullptr;
}
#else
const WordLoops* bfloat16_loops(const InstructionSet&) { return nullptr; }
const WordLoops* int8_loops(const InstructionSet&) { return nullptr; }
const TileLoops* bfloat16_tiles(const InstructionSet&) { return nullptr; }
const TileLoops* int8_tiles(const InstructionSet&) { return nullptr; }
#endif

}  // namespace kernels
}  // namespace convship
