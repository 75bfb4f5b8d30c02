// Processes: starting one from an argv (never a shell), watching it, killing everything it started.
//
// Thread safety: free functions; a Process belongs to one thread. Ownership: a Process that is
// dropped leaves its process running. Invariants: 1. a child holds no descriptor but 0, 1 and 2.
// 2. exit codes are the program's own, or 128 + the signal's number. 3. a process is named by pid
// and start time together, so that a reused pid is never taken for it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "proto/base/status.h"

namespace weft {

struct ProcessOptions {
  std::vector<std::string> argv;  // argv[0] is a path
  std::vector<std::string> env;   // "NAME=value"; all of it
  std::string folder = "/";       // working directory
  std::string log_file;           // standard output and error, appended; empty: /dev/null
  std::optional<uid_t> uid;       // with gid: change to this user before the program starts
  std::optional<gid_t> gid;
  bool new_session = false;      // setsid: survives its starter and has no terminal
  bool die_with_parent = false;  // SIGKILL when the starting thread ends
};

class Process {
 public:
  virtual ~Process() = default;
  virtual pid_t pid() const = 0;
  virtual Status signal(int number) = 0;       // kNotFound: it is gone
  virtual std::optional<int> exit_code() = 0;  // does not wait
  virtual int wait() = 0;
};

// Errors: kNotFound and others of exec, with the path; kResourceExhausted of fork.
Result<std::unique_ptr<Process>> start_process(const ProcessOptions& options);

// Orphaned descendants become children of this process, so that none escapes.
void become_subreaper();
struct Exited {
  pid_t pid = 0;
  int code = 0;
  bool by_signal = false;  // else it may itself have exited with a code over 128
};
std::optional<Exited> reap_any();  // any child that has ended; does not wait

// "was killed by signal 9 (Killed)" or "exited with code 3", of an exit code as in invariant 2.
std::string end_text(int code);

uint64_t start_time_of(pid_t pid);              // 0: no such process
bool is_alive(pid_t pid, uint64_t start_time);  // false for a zombie
// "running", "sleeping", "waiting for a device" (D), "stopped" (T), "gone": of its main thread.
std::string process_state(pid_t pid);
std::vector<pid_t> descendants_of(pid_t pid);
// Kills every descendant of this process and reaps them, until there are none or the time is over.
bool kill_descendants(double seconds);
// Processes of `uid` whose environment has exactly this "NAME=value".
std::vector<pid_t> processes_with(uid_t uid, const std::string& variable);

// Of the rank that calls it: where memory runs out, the kernel ends it before anything else.
void offer_to_oom_killer();
// How many processes of this machine the kernel has ended for lack of memory, since it started; 0
// where it does not say.
int64_t oom_kills();
// Memory of this machine, or what the cgroups of this process leave of it.
int64_t machine_memory_bytes();
// No more private memory than that, whoever allocates it (RLIMIT_DATA): allocations beyond are
// refused. What is set aside and not used does not count, though the kernel counts it: all of that
// which there is now, as stacks and libraries' buffers. bytes 0: no limit.
void limit_memory(int64_t bytes);
// What would not count, bytes.
int64_t unused_memory_bytes();
// Threads that are made from now on have stacks of 1 MiB and not the system's 8, as all of a stack
// counts.
void make_stacks_small();
// What malloc is asked for in pieces of 4 MiB or more, as chunks of a checkpoint are, goes back to
// the system once it is freed; by itself malloc soon keeps them, twice as many bytes on each
// thread. It keeps less, which products take and free at every turn.
void give_back_large_blocks();
// From now on the first std::bad_alloc frees 64 KiB, so that telling of it finds memory.
void keep_room_for_failures();
// Of RLIMIT_DATA, what this process has taken.
int64_t data_bytes();

int64_t boot_time_ns();  // CLOCK_BOOTTIME: goes on while suspended

struct User {
  uid_t uid = 0;
  gid_t gid = 0;
  std::string home;
};
Result<User> find_user(const std::string& name);
std::string own_program();  // path of this executable

// Replaces the file as a whole: temporary file, sync, rename.
Status write_file(const std::string& path, const std::string& bytes, mode_t mode);
// Follows no link, refuses what is not a plain file. kNotFound where there is none.
Result<std::string> read_file(const std::string& path, int64_t bytes_max);
// The same for its last bytes, however long it is.
Result<std::string> read_tail(const std::string& path, int64_t bytes);

}  // namespace weft
