#include "kernels/conv2d/last_run.h"

#include "convship/isa.h"

namespace convship {
namespace {

// Names, so that a thread's last note needs no destructor.
thread_local const char* last_isa_name = "";
thread_local const char* last_family_name = "";

}  // namespace

std::string last_isa() { return last_isa_name; }

std::string last_family() { return last_family_name; }

namespace kernels::conv2d {

void note_run(const InstructionSet& isa, Family family) {
  // The plain loop is the same in every set.
  last_isa_name = family == Family::plain ? "baseline" : isa.name;
  last_family_name = family_name(family);
}

}  // namespace kernels::conv2d
}  // namespace convship
