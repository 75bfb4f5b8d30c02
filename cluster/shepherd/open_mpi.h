// Every word of Open MPI's launch (4.1: mpirun, orted, plm rsh). Its successor renames all of this.
//
// How it works: mpirun knows the attempt's nodes by names of our own ("weft-attempt-n0", ...),
// which resolve nowhere, so it takes none for its own machine and asks its remote shell, which is
// the agent's program, to run orted for each. That request travels to the node's shepherd, which
// starts orted.
//
// Thread safety: free functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cluster/process/process.h"
#include "proto/launch.pb.h"

namespace weft::open_mpi {

// The folder of mpirun and orted in PATH; kFailedPrecondition with the remedy where there is none.
Result<std::string> find_programs();

// "10.0.0.0/24": what the interfaces of ranks are chosen by.
bool is_network(const std::string& text);
// Of lists of components, as in "self,vader,tcp" and "^openib".
inline constexpr std::string_view kWordLetters =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_,^-";

// What a record must be for a launch: ranks 0, 1, ... node by node in the nodes' order. The local
// fields must be filled in.
Status check(const proto::LaunchRecord& record);

ProcessOptions mpirun(const proto::LaunchRecord& record);

// The name that mpirun knows a node by, and back; kInvalidArgument for any other.
std::string host_of(int node);
Result<std::string> node_of(const std::string& host, const proto::LaunchRecord& record);

// The command that mpirun hands to its remote shell, as an argv. No shell ever sees it: `orted`
// and the options known here are accepted, values are checked, anything else is refused with the
// word at fault. The profile that mpirun has some users' login shells read first is read by none.
Result<std::vector<std::string>> parse_orted(std::string_view command);

// orted with the arguments that parse_orted gave, in this node's folders.
ProcessOptions orted(const proto::LaunchRecord& record, const std::vector<std::string>& arguments);

// One line for people from the launcher's output: which rank died of what, and on which node.
// Empty: it does not say.
std::string explain(std::string_view log, const proto::LaunchRecord& record);

// Shared memory of this node's ranks. Two nodes on one machine would otherwise use the same names.
std::string shared_memory_folder(const proto::LaunchRecord& record);

}  // namespace weft::open_mpi
