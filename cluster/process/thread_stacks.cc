#include "cluster/process/thread_stacks.h"

#include <cxxabi.h>
#include <dirent.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <mutex>
#include <set>
#include <string>

#include <fmt/format.h>

namespace weft {
namespace {

constexpr int kFramesMax = 64;
constexpr int kHandlerFrames = 2;  // the handler and the kernel's way back
constexpr size_t kThreadsMax = 256;
constexpr size_t kHandlerStack = size_t{64} << 10;
constexpr int64_t kWaitNs = 100'000'000;  // for one thread

int stack_signal() { return SIGRTMIN + 4; }

// Where the asked thread writes; the asker waits, so there is one at a time. A thread that answers
// after it was given up finds another turn and writes nothing; one that has begun to write is
// waited for, however late it is, as what it writes would be taken for the next one's.
struct Slot {
  std::atomic<pid_t> thread = 0;
  std::atomic<int> count = 0;
  std::array<void*, kFramesMax> frames{};
  sem_t done;
};
Slot slot;

// Async-signal-safe: backtrace() neither allocates nor locks once its library is loaded (libgcc of
// GCC 12 with glibc 2.35 and later finds unwind tables without a lock).
void on_signal(int) {
  const int saved = errno;
  std::array<void*, kFramesMax> frames;
  const int count = ::backtrace(frames.data(), kFramesMax);
  pid_t self = static_cast<pid_t>(::syscall(SYS_gettid));
  const pid_t mine = self;
  if (slot.thread.compare_exchange_strong(self, -mine)) {
    std::copy_n(frames.data(), count, slot.frames.data());
    slot.count = count;
    ::sem_post(&slot.done);
  }
  errno = saved;
}

bool wait_for_answer() {
  timespec until{};
  ::clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += kWaitNs;
  until.tv_sec += until.tv_nsec / 1'000'000'000;
  until.tv_nsec %= 1'000'000'000;
  while (::sem_timedwait(&slot.done, &until) != 0) {
    if (errno != EINTR) return false;
  }
  return true;
}

std::string function_at(void* address) {
  Dl_info info{};
  // A frame holds the address that it returns to: the call is just before.
  auto* call = static_cast<char*>(address) - 1;
  if (::dladdr(call, &info) == 0 || info.dli_fname == nullptr) return fmt::format("{}", address);
  if (info.dli_sname != nullptr) {
    int status = 0;
    char* readable = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
    std::string name = status == 0 ? readable : info.dli_sname;
    std::free(readable);
    return name;
  }
  const std::string object = info.dli_fname;
  return fmt::format("{}+{:#x}", object.substr(object.rfind('/') + 1),
                     call - static_cast<char*>(info.dli_fbase));
}

std::vector<pid_t> threads() {
  std::vector<pid_t> found;
  DIR* folder = ::opendir("/proc/self/task");
  if (folder == nullptr) return found;
  while (const dirent* entry = ::readdir(folder)) {
    const pid_t thread = std::atoi(entry->d_name);
    if (thread > 0) found.push_back(thread);
  }
  ::closedir(folder);
  std::sort(found.begin(), found.end());
  return found;
}

std::string name_of(pid_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/comm");
  std::string name;
  std::getline(file, name);
  return name;
}

void ask(pid_t thread, proto::ThreadStack& stack) {
  while (::sem_trywait(&slot.done) == 0) {  // of one that came too late
  }
  slot.count = 0;
  slot.thread = thread;
  if (::syscall(SYS_tgkill, ::getpid(), thread, stack_signal()) != 0) return;
  pid_t expected = thread;
  const bool answered = wait_for_answer();
  if (!answered && slot.thread.compare_exchange_strong(expected, 0)) return;
  while (!answered && !wait_for_answer()) {
  }
  for (int i = kHandlerFrames; i < slot.count; ++i) {
    stack.add_frames(function_at(slot.frames[static_cast<size_t>(i)]));
  }
}

std::mutex asking;  // guards slot, but for what the handler writes, and answering
std::set<pid_t> answering;

void install_handler() {
  std::array<void*, 1> frame{};
  ::backtrace(frame.data(), 1);  // loads what it needs, outside of a handler
  ::sem_init(&slot.done, 0, 0);
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  ::sigaction(stack_signal(), &action, nullptr);
}

// The stack that a thread's handler runs on.
class Answers {
 public:
  Answers() : memory_(kHandlerStack) {
    stack_t own{};
    own.ss_sp = memory_.data();
    own.ss_size = memory_.size();
    const std::lock_guard lock(asking);
    if (answering.empty()) install_handler();
    if (::sigaltstack(&own, nullptr) == 0) answering.insert(thread_);
  }
  ~Answers() {
    const std::lock_guard lock(asking);
    answering.erase(thread_);
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    ::sigaltstack(&none, nullptr);
  }
  Answers(const Answers&) = delete;
  Answers& operator=(const Answers&) = delete;

 private:
  const pid_t thread_ = static_cast<pid_t>(::syscall(SYS_gettid));
  std::vector<std::byte> memory_;
};

}  // namespace

void answer_with_stack() { thread_local Answers answers; }

std::vector<proto::ThreadStack> thread_stacks() {
  const std::lock_guard lock(asking);
  std::vector<proto::ThreadStack> stacks;
  for (const pid_t thread : threads()) {
    if (stacks.size() == kThreadsMax) break;
    proto::ThreadStack& stack = stacks.emplace_back();
    stack.set_thread(thread);
    stack.set_name(name_of(thread));
    if (answering.contains(thread)) ask(thread, stack);
  }
  return stacks;
}

}  // namespace weft
