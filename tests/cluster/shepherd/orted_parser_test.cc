// What mpirun hands over is accepted; what a hostile program could hand over is not, and names its
// word.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "cluster/shepherd/open_mpi.h"

namespace weft {
namespace {

// As Open MPI 4.1.4 writes it.
const std::string kReal =
    R"x( orted --daemonize -mca ess "env" -mca ess_base_jobid "1359478784" -mca ess_base_vpid 1 )x"
    R"x(-mca ess_base_num_procs "3" -mca orte_node_regex "vm,weft-attempt-n[1:0-1]@0(3)" )x"
    R"x(-mca orte_hnp_uri "1359478784.0;tcp://127.0.0.1,10.0.0.7:47001" )x"
    R"x(--mca plm_rsh_agent "/run/weft/a/bin/weft-remote-shell --remote-shell" )x"
    R"x(--mca plm_rsh_no_tree_spawn "1" --mca if_base_do_not_resolve "1" --mca pml "ob1" )x"
    R"x(--mca btl "self,vader,tcp" --mca btl_tcp_if_include "127.0.0.0/8" )x"
    R"x(--mca oob_tcp_if_include "127.0.0.0/8" --mca mpi_yield_when_idle "1" -mca plm "rsh" )x"
    R"x(-mca orte_tmpdir_base "/run/weft/a/m" -mca hwloc_base_binding_policy "none" )x"
    R"x(-mca pmix "^s1,s2,cray,isolated")x";
const std::string kShort = R"x(orted -mca ess_base_jobid "1" -mca ess_base_vpid 1 )x"
                           R"x(-mca orte_hnp_uri "1.0;tcp://1.2.3.4:5")x";

TEST(Orted, WhatMpirunHandsOverBecomesAnArgv) {
  const auto parsed = open_mpi::parse_orted(kReal);
  ASSERT_TRUE(parsed) << parsed.error().to_string();
  const std::vector<std::string>& words = *parsed;
  const auto value_of = [&](const std::string& name) -> std::string {
    const auto at = std::find(words.begin(), words.end(), name);
    return at == words.end() ? "" : *(at + 1);
  };
  EXPECT_EQ(value_of("orte_hnp_uri"), "1359478784.0;tcp://127.0.0.1,10.0.0.7:47001");
  EXPECT_EQ(value_of("orte_node_regex"), "vm,weft-attempt-n[1:0-1]@0(3)");
  EXPECT_EQ(value_of("ess"), "env");
  for (const char* dropped : {"--daemonize", "plm_rsh_agent", "orte_tmpdir_base"}) {
    EXPECT_EQ(std::count(words.begin(), words.end(), dropped), 0) << dropped;
  }
  EXPECT_TRUE(open_mpi::parse_orted(kShort));
}

TEST(Orted, TheLoginShellOfTheUserIsNoMatter) {
  const std::string profile = "( test ! -r ./.profile || . ./.profile; ";  // of sh, ksh, fish
  const auto parsed = open_mpi::parse_orted(profile + kReal + " )");
  ASSERT_TRUE(parsed) << parsed.error().to_string();
  EXPECT_EQ(*parsed, *open_mpi::parse_orted(kReal));
  for (const std::string& command :
       {profile + kShort, kShort + " )", "( test ! -r ./.profile || . ./evil; " + kShort + " )",
        profile + profile + kShort + " ) )"}) {
    EXPECT_FALSE(open_mpi::parse_orted(command)) << command;
  }
}

TEST(Orted, EverythingElseIsRefusedByItsWord) {
  struct Case {
    std::string command, word;
  };
  const std::vector<Case> cases = {
      {"", "orted"},
      {"sh -c id", "sh"},
      {"/tmp/orted -mca ess env", "/tmp/orted"},
      {"PATH=/tmp orted", "PATH=/tmp"},
      {kShort + "; id", ";"},
      {kShort + " && id", "&"},
      {kShort + " | sh", "|"},
      {kShort + " > /etc/passwd", ">"},
      {kShort + " < /etc/shadow", "<"},
      {kShort + " $(id)", "$"},
      {kShort + " \"$(id)\"", "$"},
      {kShort + " `id`", "`"},
      {kShort + " \"`id`\"", "`"},
      {kShort + " \\\n id", "\\"},
      {kShort + "\nid", "\n"},
      {kShort + " 'x'", "'"},
      {kShort + " -mca pml \"ob1", "quote"},
      {kShort + std::string(" \0", 2), "shell"},
      {kShort + " ~root", "~"},
      {kShort + " /tmp/*", "*"},
      {kShort + " --prefix /tmp", "--prefix"},
      {kShort + " --debug-daemons-file /tmp/x", "--debug-daemons-file"},
      {kShort + " -mca mca_base_component_path /tmp", "mca_base_component_path"},
      {kShort + " -mca orte_launch_agent /tmp/x", "orte_launch_agent"},
      {kShort + " -mca orte_fork_agent /tmp/x", "orte_fork_agent"},
      {kShort + " -mca mca_base_param_files /tmp/x", "mca_base_param_files"},
      {kShort + " -mca plm slurm", "plm slurm"},
      {kShort + " -mca plm_rsh_no_tree_spawn 0", "plm_rsh_no_tree_spawn 0"},
      {kShort + " -mca ess_base_vpid 1x", "ess_base_vpid 1x"},
      {kShort + " -mca btl /tmp/evil.so", "btl /tmp/evil.so"},
      {kShort + " -mca orte_hnp_uri \"1.0;file /x\"", "orte_hnp_uri"},
      {kShort + " -mca pml", "-mca"},
      {"orted -mca ess_base_jobid 1 -mca ess_base_vpid 1", "orte_hnp_uri"},
      {kShort + std::string(70000, ' '), "..."},
  };
  for (const Case& each : cases) {
    const auto parsed = open_mpi::parse_orted(each.command);
    ASSERT_FALSE(parsed) << each.command;
    EXPECT_EQ(parsed.error().code(), Code::kInvalidArgument);
    EXPECT_NE(parsed.error().to_string().find(each.word), std::string::npos)
        << each.command << ": " << parsed.error().to_string();
  }
}

proto::LaunchRecord record_of(const std::vector<std::string>& nodes,
                              const std::vector<std::string>& ranks) {
  proto::LaunchRecord record;
  record.set_job("job-a");
  record.set_run_folder("/run/weft/a");
  record.set_folder("/data/attempts/job-a-1");
  record.mutable_mpi()->set_folder("/usr/bin");
  for (const auto& node : nodes) {
    auto& made = *record.add_nodes();
    made.set_name(node);
    made.set_subnet_cidr("10.0.0.0/24");
  }
  for (const auto& node : ranks) {
    auto& made = *record.add_ranks();
    made.set_rank(record.ranks_size() - 1);
    made.set_node(node);
  }
  return record;
}

TEST(Mpirun, RanksMustBeNodeByNode) {
  EXPECT_TRUE(open_mpi::check(record_of({"a", "b"}, {"a", "a", "b"})).ok());
  EXPECT_FALSE(open_mpi::check(record_of({"a", "b"}, {"a", "b", "a"})).ok());
  EXPECT_FALSE(open_mpi::check(record_of({"a", "b"}, {"b", "a"})).ok());
  EXPECT_FALSE(open_mpi::check(record_of({"a", "b"}, {"a", "a"})).ok());
  EXPECT_FALSE(open_mpi::check(record_of({"a"}, {"a", "b"})).ok());
  EXPECT_FALSE(open_mpi::check(record_of({}, {})).ok());
  auto bad = record_of({"a"}, {"a"});
  bad.mutable_nodes(0)->set_subnet_cidr("eth0");
  EXPECT_FALSE(open_mpi::check(bad).ok());
}

TEST(Mpirun, NeitherSecretsNorTheAgentsEnvironmentNorRoot) {
  auto record = record_of({"a", "b"}, {"a", "a", "b"});
  record.set_secret("s3cret");
  ::setenv("OMPI_MCA_pml", "evil", 1);
  ::setenv("SLURM_JOB_ID", "7", 1);
  const auto options = open_mpi::mpirun(record);
  std::string all;
  for (const auto& word : options.argv) all += word + "\n";
  for (const auto& word : options.env) all += word + "\n";
  EXPECT_EQ(all.find("s3cret"), std::string::npos);
  EXPECT_EQ(all.find("evil"), std::string::npos);
  EXPECT_EQ(all.find("SLURM"), std::string::npos);
  EXPECT_EQ(all.find("root"), std::string::npos) << all;
  EXPECT_NE(all.find("weft-attempt-n0:2,weft-attempt-n1:1"), std::string::npos) << all;
}

TEST(Mpirun, AndOrtedPassOnWhereTheLibrariesOfAGpuAre) {
  const auto passes = [](const ProcessOptions& options, const std::string& variable) {
    return std::count(options.env.begin(), options.env.end(), variable) == 1;
  };
  auto record = record_of({"a"}, {"a"});
  for (const auto& word : open_mpi::mpirun(record).env) {
    EXPECT_FALSE(word.starts_with("LD_LIBRARY_PATH")) << word;
  }
  record.set_library_path("/opt/nccl/lib");
  EXPECT_TRUE(passes(open_mpi::mpirun(record), "LD_LIBRARY_PATH=/opt/nccl/lib"));
  EXPECT_TRUE(passes(open_mpi::orted(record, {}), "LD_LIBRARY_PATH=/opt/nccl/lib"));
}

// It ends where there is neither ssh nor another agent, though it starts nothing.
TEST(Mpirun, OrtedNeedsNoSshOnANode) {
  auto record = record_of({"a"}, {"a"});
  record.set_run_folder("/run/weft/b/1");
  const auto argv = open_mpi::orted(record, {}).argv;
  const auto agent = std::find(argv.begin(), argv.end(), "plm_rsh_agent");
  ASSERT_NE(agent, argv.end());
  EXPECT_EQ(agent[1], "/run/weft/b/1/bin/weft-remote-shell --remote-shell");
}

TEST(Mpirun, HostsAreTheAttemptsNodes) {
  const auto record = record_of({"a", "b"}, {"a", "b"});
  EXPECT_EQ(open_mpi::node_of(open_mpi::host_of(1), record).value(), "b");
  for (const char* host : {"b", "weft-attempt-n2", "weft-attempt-n", "-oProxyCommand=id", ""}) {
    EXPECT_FALSE(open_mpi::node_of(host, record)) << host;
  }
}

TEST(Mpirun, ItsOutputTellsWhichRankDied) {
  const auto record = record_of({"a", "b"}, {"a", "b"});
  const auto explain = [&](const char* log) { return open_mpi::explain(log, record); };
  EXPECT_EQ(explain("x\nmpirun noticed that process rank 1 with PID 77 on node vm exited "
                    "on signal 9 (Killed).\n"),
            "rank 1 on b was killed by signal 9 (Killed)");
  EXPECT_EQ(explain("  Process name: [[60870,1],0]\n  Exit code:    7\n"),
            "rank 0 on a exited with code 7");
  EXPECT_EQ(explain("MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD\n"),
            "rank 1 on b gave up");
  EXPECT_EQ(explain("MPI_ABORT was invoked on rank 5 in communicator"), "rank 5 gave up");
  // What a rank prints may look alike.
  EXPECT_EQ(explain("Process name: [[ and then Exit code: 7"), "");
  EXPECT_EQ(explain("Process name: [[1,1],Exit code: 7"), "");
  EXPECT_EQ(explain("all is well"), "");
  EXPECT_EQ(explain(""), "");
}

TEST(Networks, AreAnAddressAndBits) {
  for (const char* good : {"10.0.0.0/24", "127.0.0.0/8", "0.0.0.0/0", "192.168.7.1/32"}) {
    EXPECT_TRUE(open_mpi::is_network(good)) << good;
  }
  for (const char* bad : {"", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0/24",
                          "1/2", "10.0.0.0/8,11.0.0.0/8", "10.0.0.0/8 ", "eth0", "::1/64"}) {
    EXPECT_FALSE(open_mpi::is_network(bad)) << bad;
  }
}

}  // namespace
}  // namespace weft
