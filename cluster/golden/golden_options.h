// What `weft-golden` is asked to do.
// Thread safety: values.
#pragma once

#include <string>
#include <vector>

#include "proto/base/status.h"
#include "worker/parallel/mesh.h"

namespace weft {

struct GoldenOptions {
  std::vector<std::string> cases;  // folders
  MeshDegrees mesh;
  std::string precision = "fp32";
  std::string device = "cpu";  // or "cuda"
  bool json = false;
  bool verbose = false;  // every deviation, not only the worst
};

// "data=2,sequence=1,tensor=2"; axes that are left out have one rank. "ulysses=2": so many ranks of
// the sequence axis exchange heads, the others form rings.
Result<MeshDegrees> parse_mesh(const std::string& text);
std::string mesh_text(MeshDegrees mesh);

}  // namespace weft
