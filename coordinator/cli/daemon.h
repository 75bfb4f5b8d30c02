// Programs that go on running after `weft` has ended: started in a session of their own, with a log
// file and a record of their process id.
//
// Thread safety: one thread. Ownership: none; a record is a file.
// Invariant: a recorded process is believed only while its start time is the recorded one, so that
// a process id that was given to another program is never signalled.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "proto/base/status.h"

namespace weft::cli {

struct Process {
  int pid = 0;
  int64_t started = 0;  // in the kernel's clock ticks since boot
};

// Starts argv[0] with standard output and error appended to `log`; returns once it has been
// executed.
Result<Process> start_daemon(const std::vector<std::string>& argv, const std::string& log);

bool is_alive(const Process& process);
// The recorded process, where it is alive; pid 0: none.
Process read_pid_file(const std::string& path);
Status write_pid_file(const std::string& path, const Process& process);

// Living processes named `program` whose arguments contain `word`.
std::vector<Process> find_processes(const std::string& program, const std::string& word);

// What it was started with, its program first; empty: it is gone.
std::vector<std::string> arguments_of(const Process& process);

// SIGTERM, then SIGKILL to those that are still there after `seconds`. True: nobody had to be
// killed.
bool stop_processes(const std::vector<Process>& processes, double seconds);

// The folder of the running program, where its siblings are.
std::string program_folder();

// Why nobody here can listen on this TCP port (EADDRINUSE, EACCES, EADDRNOTAVAIL); 0: it is free.
int listen_error(const std::string& address, int port);
int free_port(const std::string& address, int first);  // from `first` on; 0: none
// Whether something at HOST:PORT takes connections; the error says why not.
Status check_reachable(const std::string& host, int port, int timeout_ms);

// The last `lines` of a file.
std::string file_tail(const std::string& path, int lines);

// Tries `done` every 50 ms until it is true; false: `seconds` have passed.
bool wait_until(double seconds, const std::function<bool()>& done);

}  // namespace weft::cli
