#include "cluster/golden/golden_options.h"

#include <fmt/format.h>

#include <charconv>
#include <set>
#include <string_view>

namespace weft {

Result<MeshDegrees> parse_mesh(const std::string& text) {
  constexpr int kDegreeMax = 64;
  MeshDegrees mesh;
  std::set<std::string, std::less<>> seen;
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view item = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), item.size() + 1));
    const size_t equals = item.find('=');
    const std::string name(item.substr(0, equals));
    int* degree = name == "data"       ? &mesh.data
                  : name == "sequence" ? &mesh.sequence
                  : name == "tensor"   ? &mesh.tensor
                  : name == "ulysses"  ? &mesh.ulysses
                                       : nullptr;
    if (degree == nullptr || equals == std::string_view::npos || !seen.insert(name).second) {
      return fail(
          Status::invalid("--mesh", text, "must be like data=A,sequence=B,tensor=C,ulysses=D"));
    }
    const std::string_view number = item.substr(equals + 1);
    const char* end = number.data() + number.size();
    const auto [stop, error] = std::from_chars(number.data(), end, *degree);
    if (error != std::errc() || stop != end || *degree < 1 || *degree > kDegreeMax) {
      return fail(Status::invalid("--mesh " + name, std::string(number),
                                  fmt::format("must be an integer from 1 to {}", kDegreeMax)));
    }
  }
  if (mesh.sequence % mesh.ulysses != 0) {
    return fail(Status::invalid("--mesh ulysses", std::to_string(mesh.ulysses),
                                fmt::format("must divide sequence={}", mesh.sequence)));
  }
  return mesh;
}

std::string mesh_text(MeshDegrees mesh) {
  const std::string exchanging = mesh.ulysses > 1 ? fmt::format(",ulysses={}", mesh.ulysses) : "";
  return fmt::format("data={},sequence={},tensor={}{}", mesh.data, mesh.sequence, mesh.tensor,
                     exchanging);
}

}  // namespace weft
