// What the tests of golden cases share: the stored cases, copies of them that can be changed, and
// their runs on meshes of threads.
//
// Thread safety: one thread.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/testing/rank_runner.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/golden/golden.h"

namespace weft::golden {

namespace fs = std::filesystem;

inline fs::path fixture(const std::string& name) {
  return fs::path(WEFT_SOURCE_DIR) / "tests/fixtures/golden" / name;
}

inline Case read(const fs::path& folder) {
  Result<Case> golden = read_case(folder.string());
  if (!golden) throw StatusError(golden.error());
  return std::move(*golden);
}

inline Report run(const Case& golden, MeshDegrees mesh = {}, DType precision = DType::kF32) {
  Report report;
  testing::run_mesh(mesh, [&](Rank& rank) {
    Report mine = run_case(rank, golden, precision);
    if (rank.mesh.index(Axis::kWorld) == 0) report = std::move(mine);
  });
  return report;
}

// Whether a value whose name begins so is beyond its bar.
inline bool fails_at(const Report& report, const std::string& prefix) {
  for (const Deviation& deviation : report.deviations) {
    if (deviation.what.starts_with(prefix) && !deviation.within()) return true;
  }
  return false;
}

// A copy of a fixture whose files can be changed; removed at the end.
class Copy {
 public:
  explicit Copy(const std::string& name)
      : path_(fs::temp_directory_path() /
              ("weft-golden-" + name + "-" + std::to_string(::getpid()))) {
    fs::remove_all(path_);
    fs::copy(fixture(name), path_, fs::copy_options::recursive);
  }
  ~Copy() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }

  void replace(const std::string& file, const std::string& from, const std::string& to) const {
    std::ifstream in(path_ / file, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    std::ofstream(path_ / file, std::ios::binary) << text;
  }

  // The first element of an F32 tensor.
  void set(const std::string& file, const std::string& tensor, float value) const {
    std::fstream bytes(path_ / file, std::ios::binary | std::ios::in | std::ios::out);
    uint64_t length = 0;
    bytes.read(reinterpret_cast<char*>(&length), sizeof(length));
    std::string header(length, '\0');
    bytes.read(header.data(), static_cast<std::streamsize>(length));
    const auto info = nlohmann::json::parse(header).at(tensor);
    ASSERT_EQ(info.at("dtype"), "F32") << tensor;
    bytes.seekp(static_cast<std::streamoff>(sizeof(length) + length +
                                            info.at("data_offsets").at(0).get<uint64_t>()));
    bytes.write(reinterpret_cast<const char*>(&value), sizeof(value));
  }

  // Writes the weights anew with this tensor all zeros.
  void zero(const std::string& tensor) const {
    const std::string path = (path_ / "hf/model.safetensors").string();
    const Result<SafetensorsFile> file = SafetensorsFile::open(path);
    ASSERT_TRUE(file) << file.error().to_string();
    std::vector<SafetensorSpec> specs;
    for (const auto& [name, info] : file->tensors()) specs.push_back({name, info.shape});
    const Status status = write_safetensors(
        path, specs, [&](const SafetensorSpec& spec, const FloatSink& write) -> Status {
          const auto elements = static_cast<size_t>(file->find(spec.name)->elements());
          std::vector<float> values(elements);
          if (spec.name != tensor) WEFT_RETURN_IF_ERROR(file->read(spec.name, values));
          return write(values);
        });
    ASSERT_TRUE(status.ok()) << status.to_string();
  }

 private:
  const fs::path path_;
};

}  // namespace weft::golden
