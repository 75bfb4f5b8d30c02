#include "tests/testing/nccl_on_cpu/post.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <utility>

#include "tests/testing/cuda_on_cpu/machine.h"

namespace weft::nccl_on_cpu {
namespace {

namespace fs = std::filesystem;

class PostInMemory final : public Post {
 public:
  void put(const std::string& name, const std::vector<std::byte>& bytes) override {
    things_[name] = bytes;
  }
  bool has(const std::string& name) const override { return things_.contains(name); }
  std::vector<std::byte> read(const std::string& name) const override { return things_.at(name); }
  void remove(const std::string& name) override { things_.erase(name); }

 private:
  std::map<std::string, std::vector<std::byte>> things_;
};

// A file has its name once it is whole.
class PostInFolder final : public Post {
 public:
  explicit PostInFolder(fs::path folder) : folder_(std::move(folder)) {}
  void put(const std::string& name, const std::vector<std::byte>& bytes) override {
    const fs::path unfinished = folder_ / (name + ".unfinished");
    std::ofstream out(unfinished, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
    out.close();
    std::error_code error;
    if (out) fs::rename(unfinished, folder_ / name, error);
    if (!out || error) throw cuda_on_cpu::Fault("cannot write " + unfinished.string());
  }
  bool has(const std::string& name) const override { return fs::exists(folder_ / name); }
  std::vector<std::byte> read(const std::string& name) const override {
    std::vector<std::byte> bytes(fs::file_size(folder_ / name));
    std::ifstream in(folder_ / name, std::ios::binary);
    in.read(reinterpret_cast<char*>(bytes.data()), std::ssize(bytes));
    if (!in) throw cuda_on_cpu::Fault("cannot read " + (folder_ / name).string());
    return bytes;
  }
  void remove(const std::string& name) override { fs::remove(folder_ / name); }

 private:
  const fs::path folder_;
};

}  // namespace

std::unique_ptr<Post> make_post() { return std::make_unique<PostInMemory>(); }
std::unique_ptr<Post> make_post(const std::string& folder) {
  return std::make_unique<PostInFolder>(folder);
}

}  // namespace weft::nccl_on_cpu
