// start_process: everything the child needs is laid out before the fork, since between fork and
// exec only async-signal-safe calls are allowed.
#include <fcntl.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <linux/close_range.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "cluster/process/process.h"

namespace weft {
namespace {

int code_of(int status) {
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

class PosixProcess final : public Process {
 public:
  explicit PosixProcess(pid_t pid) : pid_(pid) {}
  pid_t pid() const override { return pid_; }

  Status signal(int number) override {
    if (exit_code() || ::kill(pid_, number) != 0) {
      return Status(Code::kNotFound, "process " + std::to_string(pid_) + " is gone");
    }
    return {};
  }

  std::optional<int> exit_code() override {
    int status = 0;
    if (!code_ && ::waitpid(pid_, &status, WNOHANG) == pid_) code_ = code_of(status);
    return code_;
  }

  int wait() override {
    int status = 0;
    while (!code_) {
      const pid_t got = ::waitpid(pid_, &status, 0);
      if (got == pid_) code_ = code_of(status);
      if (got < 0 && errno != EINTR) code_ = 255;  // somebody else has reaped it
    }
    return *code_;
  }

 private:
  const pid_t pid_;
  std::optional<int> code_;
};

struct Child {
  const ProcessOptions& options;
  std::vector<char*> argv, env;
  int output = -1, input = -1, failure = -1;
  pid_t parent = 0;
};

// What the child reports when it cannot become the program.
struct Failure {
  int error;
  std::array<char, 32> step;
};

[[noreturn]] void give_up(const Child& child, const char* step) {
  Failure failure{errno, {}};
  std::strncpy(failure.step.data(), step, failure.step.size() - 1);
  [[maybe_unused]] const ssize_t told = ::write(child.failure, &failure, sizeof failure);
  ::_exit(127);
}

[[noreturn]] void become(const Child& child) {
  const ProcessOptions& options = child.options;
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (options.new_session) ::setsid();
  if (::dup2(child.input, 0) < 0 || ::dup2(child.output, 1) < 0 || ::dup2(child.output, 2) < 0) {
    give_up(child, "dup2");
  }
  // Nothing else is inherited, whoever opened it; `failure` goes with exec too.
  if (::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
    for (int fd = 3; fd < 4096; ++fd) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
  if (options.gid && (::setgroups(0, nullptr) != 0 || ::setgid(*options.gid) != 0)) {
    give_up(child, "setgid");
  }
  if (options.uid && ::setuid(*options.uid) != 0) give_up(child, "setuid");
  if (options.die_with_parent) {  // after setuid, which clears it
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != child.parent) ::_exit(128 + SIGKILL);
  }
  if (::chdir(options.folder.c_str()) != 0) give_up(child, "chdir");
  ::execve(child.argv[0], child.argv.data(), child.env.data());
  give_up(child, "exec");
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> made;
  for (const auto& text : texts) made.push_back(const_cast<char*>(text.c_str()));  // NOLINT: exec's
  made.push_back(nullptr);
  return made;
}

Status failed(const std::string& what) {
  const Code code = errno == ENOENT   ? Code::kNotFound
                    : errno == EACCES ? Code::kPermissionDenied
                                      : Code::kResourceExhausted;
  return Status(code, what + ": " + std::strerror(errno));
}

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

Result<std::unique_ptr<Process>> start_process(const ProcessOptions& options) {
  Descriptor input{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
  const bool logs = !options.log_file.empty();
  Descriptor output{::open(logs ? options.log_file.c_str() : "/dev/null",
                           O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW | (logs ? O_CREAT : 0),
                           0600)};
  if (output.fd < 0 || input.fd < 0) return fail(failed(logs ? options.log_file : "/dev/null"));
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail(failed("pipe"));
  Descriptor reading{ends[0]}, writing{ends[1]};
  Child child{options, pointers(options.argv), pointers(options.env), output.fd, input.fd,
              writing.fd, ::getpid()};
  const pid_t pid = ::fork();
  if (pid < 0) return fail(failed("fork"));
  if (pid == 0) become(child);
  ::close(std::exchange(writing.fd, -1));
  Failure failure{};
  ssize_t got = 0;
  do {
    got = ::read(reading.fd, &failure, sizeof failure);
  } while (got < 0 && errno == EINTR);
  auto process = std::make_unique<PosixProcess>(pid);
  if (got == ssize_t{sizeof failure}) {
    process->wait();
    errno = failure.error;
    return fail(failed("starting " + options.argv[0] + ": " + failure.step.data()));
  }
  return process;
}

void become_subreaper() { ::prctl(PR_SET_CHILD_SUBREAPER, 1); }

std::optional<Exited> reap_any() {
  int status = 0;
  const pid_t pid = ::waitpid(-1, &status, WNOHANG);
  if (pid <= 0) return std::nullopt;
  return Exited{pid, code_of(status), WIFSIGNALED(status)};
}

std::string end_text(int code) {
  const int number = code - 128;
  if (number <= 0 || number >= NSIG) return "exited with code " + std::to_string(code);
  const char* name = ::sigdescr_np(number);
  return "was killed by signal " + std::to_string(number) +
         (name == nullptr ? "" : " (" + std::string(name) + ")");
}

}  // namespace weft
