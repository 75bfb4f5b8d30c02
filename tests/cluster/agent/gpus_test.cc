// GPUs as the management library tells of them; a stand-in for it is built beside this test.
#include "cluster/agent/gpus.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "cluster/agent/options.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

TEST(Gpus, AreNamedByTheManagementLibrary) {
  EXPECT_EQ(gpu_names(WEFT_STAND_IN_NVML), (std::vector<std::string>{"Stand-in 0", "Stand-in 1"}));
}

TEST(Gpus, AreNoneWithoutIt) { EXPECT_TRUE(gpu_names("libno-such-library.so.1").empty()); }

TEST(Worker, IsTheGpusWhereThereAreBoth) {
  const fs::path folder = fs::temp_directory_path() / ("weft-worker-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  EXPECT_EQ(worker_beside(folder, 2), folder / "weft-worker");
  std::ofstream(folder / "weft-worker-cuda").put('\n');
  EXPECT_EQ(worker_beside(folder, 2), folder / "weft-worker-cuda");
  EXPECT_EQ(worker_beside(folder, 0), folder / "weft-worker");
  fs::remove_all(folder);
}

}  // namespace
}  // namespace weft
