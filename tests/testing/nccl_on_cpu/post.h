// What the ranks of the played NCCL leave for each other, everything once and under a name of its
// own: in this process, or between processes of this machine.
//
// Thread safety: the caller holds cuda_on_cpu::device_mutex().
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace weft::nccl_on_cpu {

class Post {
 public:
  virtual ~Post() = default;
  virtual void put(const std::string& name, const std::vector<std::byte>& bytes) = 0;
  virtual bool has(const std::string& name) const = 0;
  virtual std::vector<std::byte> read(const std::string& name) const = 0;  // what is there
  virtual void remove(const std::string& name) = 0;
};

std::unique_ptr<Post> make_post();
// In the files of a folder, which is there.
std::unique_ptr<Post> make_post(const std::string& folder);

}  // namespace weft::nccl_on_cpu
