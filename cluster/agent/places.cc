#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <utility>

#include "cluster/agent/gpus.h"
#include "cluster/agent/options.h"
#include "proto/base/hash.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

Status make_folder(const std::string& path, mode_t mode) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) {
    const std::string what = "cannot make the folder " + path + ": " + error.message();
    return Status(Code::kResourceExhausted, what).with_field("data");
  }
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != ::geteuid()) {
    return Status(Code::kPermissionDenied, path + " is not a folder of this user");
  }
  ::chmod(path.c_str(), mode);
  return {};
}

// Whether `user` passes `test FLAG PATH`.
bool user_can(const User& user, const std::string& flag, const std::string& path) {
  ProcessOptions options;
  options.argv = {"/usr/bin/test", flag, path};
  options.uid = user.uid;
  options.gid = user.gid;
  auto process = start_process(options);
  return process && (*process)->wait() == 0;
}

// The program itself, or a copy where the ranks' user cannot reach it (a build below /root).
Result<std::string> reachable(const std::string& program, const AgentPlaces& places,
                              const std::string& work) {
  if (::access(program.c_str(), X_OK) != 0) {
    return fail(Status::invalid("worker", program, "must be a program; build it or give its path"));
  }
  if (!places.change_user || user_can(places.user, "-x", program)) return program;
  WEFT_RETURN_IF_ERROR(make_folder(work + "/bin", 0755));
  const std::string copy = work + "/bin/" + fs::path(program).filename().string();
  const std::string temporary = copy + "." + random_hex(4);
  std::error_code error;
  fs::copy_file(program, temporary, error);
  if (!error) ::chmod(temporary.c_str(), 0755);
  if (!error) fs::rename(temporary, copy, error);
  if (error) return fail(Code::kResourceExhausted, "copying " + program + ": " + error.message());
  return copy;
}

Result<User> rank_user(const AgentOptions& options, bool change) {
  if (change) return find_user(options.user);
  return User{::geteuid(), ::getegid(), ""};
}

constexpr const char* kGpuWorker = "weft-worker-cuda";

}  // namespace

Result<std::string> read_secret(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    return fail(Status(Code::kNotFound, "cannot read the secret file " + path + ": " +
                                            std::strerror(errno) +
                                            "; `weft join` or `weft up` makes it")
                    .with_field("secret-file"));
  }
  if ((info.st_mode & 077) != 0) {
    return fail(
        Status::invalid("secret-file", path, "must be readable by its owner only (chmod 600)"));
  }
  WEFT_ASSIGN_OR_RETURN(std::string secret, read_file(path, 4096));
  while (!secret.empty() && std::isspace(static_cast<unsigned char>(secret.back())) != 0) {
    secret.pop_back();
  }
  if (secret.size() < 16) {
    return fail(Status::invalid("secret-file", path, "must hold at least 16 characters"));
  }
  return secret;
}

std::string worker_beside(const std::string& folder, bool for_gpus) {
  const std::string on_gpus = folder + "/" + kGpuWorker;
  return for_gpus && fs::exists(on_gpus) ? on_gpus : folder + "/weft-worker";
}

std::string library_folders(const char* path) {
  std::string folders;
  std::istringstream in(path == nullptr ? "" : path);
  for (std::string folder; std::getline(in, folder, ':');) {
    if (folder.starts_with('/')) folders += (folders.empty() ? "" : ":") + folder;
  }
  return folders;
}

namespace {

// Why a machine with `found` GPUs has none for an agent that was left `chosen` of them.
std::string without_gpu(size_t found, size_t chosen) {
  if (found == 0) return "the driver shows none ('weft doctor' says what is missing)";
  return std::string(chosen == 0 ? "--gpus or CUDA_VISIBLE_DEVICES leaves none"
                                 : "other agents of this machine offer all that are left") +
         " of " + std::to_string(found);
}

// A process on a machine with a GPU in MIG mode sees the first instance and nothing else, so there
// is one GPU for ranks. Says so where that leaves others out.
void leave_the_instance(std::vector<MachineGpu>& gpus, std::string& unused) {
  const auto cut = std::find_if(gpus.begin(), gpus.end(), [](const auto& gpu) { return gpu.mig; });
  if (cut == gpus.end() || gpus.size() == 1) return;
  unused = "of " + std::to_string(gpus.size()) + " GPUs ranks see one instance only, since " +
           cut->id + " is in MIG mode";
  gpus = {*cut};
}

// The rank's program, with the GPUs for it where it computes on some.
Result<std::string> take_worker(const AgentOptions& options, const std::string& beside,
                                AgentPlaces& places) {
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");  // NOLINT: nobody changes it
  const std::vector<MachineGpu> found = find_gpus();
  WEFT_ASSIGN_OR_RETURN(std::vector<MachineGpu> gpus, choose_gpus(found, options.gpus, visible));
  const size_t chosen = gpus.size();
  const bool given = !options.worker.empty();
  const std::string worker =
      given ? fs::absolute(options.worker).string() : worker_beside(beside, true);
  if (fs::path(worker).filename() != kGpuWorker) {
    if (chosen > 0) {
      places.gpus_unused = std::to_string(chosen) + " GPUs are left idle: the ranks' program is " +
                           worker + ", not weft-worker-cuda, which the preset cuda builds";
    }
    return worker;
  }
  const bool by_name = !options.gpus.empty() && options.gpus.find('/') == std::string::npos;
  WEFT_ASSIGN_OR_RETURN(gpus, hold_gpus(std::move(gpus), places.run, by_name));
  if (gpus.empty()) {
    const std::string why = without_gpu(found.size(), chosen);
    if (given) return fail(Status::invalid("worker", worker, "needs a GPU: " + why));
    places.gpus_unused = "no GPU for weft-worker-cuda: " + why;
    return worker_beside(beside, false);
  }
  leave_the_instance(gpus, places.gpus_unused);
  places.on_gpus = true;
  places.library_path = library_folders(std::getenv("LD_LIBRARY_PATH"));  // NOLINT: as above
  for (const MachineGpu& gpu : gpus) {
    places.gpus.push_back(gpu.id);
    places.rank_gpus.push_back(gpu.mig ? "" : gpu.id);
  }
  return worker;
}

}  // namespace

Result<AgentPlaces> make_places(const AgentOptions& options) {
  AgentPlaces places;
  places.change_user = ::geteuid() == 0;
  WEFT_ASSIGN_OR_RETURN(places.user, rank_user(options, places.change_user));
  WEFT_RETURN_IF_ERROR(make_folder(options.data, places.change_user ? 0711 : 0700));
  const std::string data = fs::canonical(options.data).string();
  const std::string digest = sha256_hex(data).substr(0, 12);
  std::string work = data;
  if (places.change_user && !user_can(places.user, "-x", data)) {
    work = places.user.home + "/nodes/" + digest;
    WEFT_RETURN_IF_ERROR(make_folder(places.user.home + "/nodes", 0711));
    WEFT_RETURN_IF_ERROR(make_folder(work, 0711));
    if (!user_can(places.user, "-x", work)) {
      return fail(Status::invalid(
          "data", data, "must be reachable by the user " + options.user + ", as which ranks run"));
    }
  }
  places.chunks = data + "/chunks";
  places.notes = data + "/notes";
  places.attempts = work + "/attempts";
  places.objects = work + "/objects";
  places.run = places.change_user ? "/run/weft" : "/tmp/weft-" + std::to_string(::geteuid());
  for (const auto& [folder, mode] : {std::pair{places.chunks, 0700},
                                     {places.notes, 0700},
                                     {places.attempts, 0711},
                                     {places.objects, 0711},
                                     {places.run, 0711},
                                     {places.run + "/" + digest, 0711}}) {
    WEFT_RETURN_IF_ERROR(make_folder(folder, static_cast<mode_t>(mode)));
  }
  for (const auto& folder : {places.attempts, places.objects}) {  // nobody else's business
    if (places.change_user &&
        (::chown(folder.c_str(), 0, places.user.gid) != 0 || ::chmod(folder.c_str(), 0710) != 0)) {
      return fail(Code::kPermissionDenied, "cannot give " + folder + " to " + options.user);
    }
  }
  WEFT_ASSIGN_OR_RETURN(places.agents, AgentsOfMachine::join(places.run));
  places.agent_socket = places.run + "/" + digest + "/agent";
  const std::string self = own_program();
  WEFT_ASSIGN_OR_RETURN(const std::string worker,
                        take_worker(options, fs::path(self).parent_path().string(), places));
  WEFT_ASSIGN_OR_RETURN(places.worker, reachable(worker, places, work));
  WEFT_ASSIGN_OR_RETURN(places.agent, reachable(self, places, work));
  if (!places.on_gpus) places.processors = own_processors();
  return places;
}

}  // namespace weft
