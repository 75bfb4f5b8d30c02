#include "worker/admission/mesh_text.h"

#include <fmt/format.h>

#include "proto/job.pb.h"

namespace weft {
namespace {

int ulysses_of(const proto::MeshPlan& plan) { return plan.ulysses(); }

// 0: open.
int ulysses_of(const proto::ParallelSpec& mesh) {
  switch (mesh.sequence_attention()) {
    case proto::SEQUENCE_ATTENTION_RING:
      return 1;
    case proto::SEQUENCE_ATTENTION_ULYSSES:
      return mesh.sequence();
    default:
      return mesh.ulysses();
  }
}

std::string attention_text(int sequence, int ulysses) {
  if (sequence <= 1 || ulysses == 0) return "";
  if (ulysses == 1) return " (ring)";
  if (ulysses == sequence) return " (ulysses)";
  return fmt::format(" (ulysses_ring, groups of {})", ulysses);
}

template <typename Degrees>
std::string text_of_mesh(const Degrees& mesh) {
  std::string text =
      fmt::format("data {} x sequence {}{} x tensor {}", mesh.data(), mesh.sequence(),
                  attention_text(mesh.sequence(), ulysses_of(mesh)), mesh.tensor());
  if (mesh.zero() > 0) text += fmt::format(", zero {}", mesh.zero());
  return text;
}

}  // namespace

std::string mesh_text(const proto::MeshPlan& plan) { return text_of_mesh(plan); }
std::string mesh_text(const proto::ParallelSpec& mesh) { return text_of_mesh(mesh); }

}  // namespace weft
