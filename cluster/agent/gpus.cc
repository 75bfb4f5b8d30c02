#include "cluster/agent/gpus.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <memory>
#include <sstream>

namespace weft {
namespace {

// The part of nvml.h that is asked for (NVML API reference, release 13).
using Init = int (*)();
using Count = int (*)(unsigned*);
using Handle = int (*)(unsigned, void**);
using Text = int (*)(void*, char*, unsigned);
using Mode = int (*)(void*, unsigned*, unsigned*);  // the current one, the one after a reset
constexpr int kSuccess = 0;

struct Close {
  void operator()(void* library) const { ::dlclose(library); }
};

template <typename F>
F find(void* library, const char* name) {
  return reinterpret_cast<F>(::dlsym(library, name));
}

std::string text_of(Text ask, void* gpu) {
  std::array<char, 96> text{};
  return ask(gpu, text.data(), text.size()) == kSuccess ? text.data() : "";
}

// A GPU or a library that knows no instances is not cut into some.
bool in_mig_mode(Mode ask, void* gpu) {
  unsigned now = 0, later = 0;
  return ask != nullptr && ask(gpu, &now, &later) == kSuccess && now == 1;
}

// All of `text` as a number from 0.
bool parse(std::string_view text, size_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

// By number, or by an id or its beginning; null: there is no such one.
const MachineGpu* find_gpu(const std::vector<MachineGpu>& found, const std::string& entry) {
  size_t number = 0;
  if (parse(entry, number)) return number < found.size() ? &found[number] : nullptr;
  const auto gpu = std::find_if(found.begin(), found.end(), [&](const MachineGpu& each) {
    return entry.starts_with("GPU-") && each.id.starts_with(entry);
  });
  return gpu == found.end() ? nullptr : &*gpu;
}

std::vector<std::string> entries_of(const std::string& list) {
  std::vector<std::string> entries;
  std::istringstream in(list);
  for (std::string entry; std::getline(in, entry, ',');) entries.push_back(entry);
  return entries;
}

}  // namespace

std::vector<MachineGpu> find_gpus(const char* library) {
  const std::unique_ptr<void, Close> nvml(::dlopen(library, RTLD_NOW | RTLD_LOCAL));
  if (!nvml) return {};
  const auto init = find<Init>(nvml.get(), "nvmlInit_v2");
  const auto shutdown = find<Init>(nvml.get(), "nvmlShutdown");
  const auto count = find<Count>(nvml.get(), "nvmlDeviceGetCount_v2");
  const auto handle = find<Handle>(nvml.get(), "nvmlDeviceGetHandleByIndex_v2");
  const auto name = find<Text>(nvml.get(), "nvmlDeviceGetName");
  const auto uuid = find<Text>(nvml.get(), "nvmlDeviceGetUUID");
  const auto mig = find<Mode>(nvml.get(), "nvmlDeviceGetMigMode");
  if (!init || !shutdown || !count || !handle || !name || !uuid || init() != kSuccess) return {};
  std::vector<MachineGpu> found;
  unsigned gpus = 0;
  if (count(&gpus) != kSuccess) gpus = 0;
  for (unsigned i = 0; i < gpus; ++i) {
    void* gpu = nullptr;
    if (handle(i, &gpu) != kSuccess) continue;  // the driver has given it up
    found.push_back({text_of(name, gpu), text_of(uuid, gpu), in_mig_mode(mig, gpu)});
  }
  shutdown();
  return found;
}

Result<std::vector<MachineGpu>> choose_gpus(const std::vector<MachineGpu>& found,
                                            const std::string& offer, const char* visible) {
  std::vector<MachineGpu> chosen;
  if (offer.empty()) {
    if (visible == nullptr) return found;
    for (const std::string& entry : entries_of(visible)) {
      const MachineGpu* gpu = find_gpu(found, entry);
      if (gpu == nullptr) break;
      chosen.push_back(*gpu);
    }
    return chosen;
  }
  const size_t slash = offer.find('/');
  size_t share = 0, shares = 0;
  if (slash != std::string::npos) {
    const std::string_view text = offer;
    if (!parse(text.substr(0, slash), share) || !parse(text.substr(slash + 1), shares) ||
        share < 1 || share > shares) {
      return fail(Status::invalid("gpus", offer, "must be i/n with 1 <= i <= n, as in 1/2"));
    }
    const size_t first = found.size() * (share - 1) / shares, end = found.size() * share / shares;
    chosen.assign(found.begin() + static_cast<std::ptrdiff_t>(first),
                  found.begin() + static_cast<std::ptrdiff_t>(end));
    return chosen;
  }
  for (const std::string& entry : entries_of(offer)) {
    const MachineGpu* gpu = find_gpu(found, entry);
    if (gpu == nullptr) {
      return fail(Status::invalid("gpus", entry,
                                  "must be the number or the id of one of this machine's " +
                                      std::to_string(found.size()) +
                                      " GPUs (nvidia-smi -L lists them)"));
    }
    chosen.push_back(*gpu);
  }
  return chosen;
}

Result<std::vector<MachineGpu>> hold_gpus(std::vector<MachineGpu> gpus, const std::string& folder,
                                          bool all) {
  std::vector<MachineGpu> held;
  for (MachineGpu& gpu : gpus) {
    const std::string path = folder + "/" + gpu.id + ".lock";
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0 && ::flock(fd, LOCK_EX | LOCK_NB) == 0) {
      held.push_back(std::move(gpu));
      continue;
    }
    if (fd >= 0) ::close(fd);
    if (!all) continue;
    return fail(Status(Code::kFailedPrecondition, "another agent offers the GPU " + gpu.id)
                    .with_field("gpus")
                    .with_value(gpu.id));
  }
  return held;
}

}  // namespace weft
