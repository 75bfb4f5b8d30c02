// A mesh in words, as job files have them.
//
// Thread safety: pure functions.
#pragma once

#include <string>

namespace weft::proto {
class MeshPlan;
class ParallelSpec;
}  // namespace weft::proto

namespace weft {

// "data 2 x sequence 1 x tensor 1, zero 1"; "data 1 x sequence 2 (ring) x tensor 1", or ulysses, or
// "sequence 4 (ulysses_ring, groups of 2)", or no more than "sequence 2" where it is still open.
std::string mesh_text(const proto::MeshPlan& plan);
std::string mesh_text(const proto::ParallelSpec& mesh);

}  // namespace weft
