// What weft-agent is told, checked; and where it keeps things, for its user and that of the ranks.
//
// Thread safety: values. Invariants: 1. <work> and everything in it that ranks need can be reached
// by the ranks' user. 2. socket paths are short.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cluster/agent/processors.h"
#include "cluster/process/process.h"
#include "proto/launch.pb.h"
#include "proto/node.pb.h"

namespace weft {

struct AgentOptions {
  std::string data;  // this agent's own; one agent a folder
  std::string name;
  int slots = 0;      // 0: one a GPU where ranks compute on them, else cpu_slots
  int cpu_slots = 0;  // 0: one a core
  std::string coordinator_host = "127.0.0.1";
  int coordinator_port = 7071;
  std::string secret_file;    // 0600
  std::string address;        // empty: the one that faces the coordinator
  std::string subnet;         // empty: the network of that interface
  std::string worker;         // empty: beside this program, see worker_beside()
  std::string gpus;           // choose_gpus()
  std::string user = "weft";  // of ranks, where the agent is root
  double lease_seconds = 30;  // of a shepherd before the coordinator's first word
  int64_t memory_bytes = 0;   // that its ranks share; 0: the machine's
  int64_t chunk_cache_bytes = int64_t{32} << 30;
  proto::LaunchMpi mpi;
};

struct AgentPlaces {
  User user;  // ranks run as this one
  bool change_user = false;
  std::string chunks;    // RocksDB
  std::string notes;     // one file an attempt, out of the ranks' reach
  std::string attempts;  // <job>-<attempt>/
  std::string objects;   // <object id>/<path>
  std::string run;       // short; sockets and an attempt's run folder are below it
  std::string agent_socket;
  std::string worker, agent;           // programs, reachable by the ranks' user
  bool on_gpus = false;                // the worker computes on GPUs
  std::string gpus_unused;             // as NodeInfo's
  std::vector<std::string> gpus;       // their ids; slots take turns
  std::vector<std::string> rank_gpus;  // which ranks are told of each: itself, in MIG mode none
  std::string library_path;            // where its libraries are beside the usual folders
  std::vector<Processor> processors;   // for ranks that compute on them
  AgentsOfMachine agents;
};

// weft-worker-cuda where that is wanted and the folder has it, else weft-worker.
std::string worker_beside(const std::string& folder, bool for_gpus);
Result<std::string> read_secret(const std::string& path);
// The folders of an LD_LIBRARY_PATH (null: not set) that mean the same to any process.
std::string library_folders(const char* path);
// Makes the folders and holds the GPUs. Error: also a worker for GPUs where there is none for it.
Result<AgentPlaces> make_places(const AgentOptions& options);
// Everything but slots in use. Error: the address is none of this machine.
Result<proto::NodeInfo> take_inventory(const AgentOptions& options, const AgentPlaces& places);
// Fills in the size and the free bytes of the folder's disk.
void measure_disk(const std::string& folder, proto::NodeInfo& node);

}  // namespace weft
