// GPUs as the management library tells of them; a stand-in for it is built beside this test.
#include "cluster/agent/gpus.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "cluster/agent/gpu_figures.h"
#include "cluster/agent/options.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

fs::path new_folder(const std::string& name) {
  const fs::path folder = fs::temp_directory_path() / (name + std::to_string(::getpid()));
  fs::create_directories(folder);
  return folder;
}

std::string id(int number) {
  return "GPU-0000000" + std::to_string(number) + "-0000-0000-0000-000000000000";
}

std::string ids_of(const Result<std::vector<MachineGpu>>& gpus) {
  if (!gpus) return gpus.error().to_string();
  std::string ids;
  for (const MachineGpu& gpu : *gpus) ids += gpu.id.substr(0, 12) + ' ';
  return ids;
}

TEST(Gpus, AreNamedByTheManagementLibrary) {
  const auto gpus = find_gpus(WEFT_STAND_IN_NVML);
  ASSERT_EQ(gpus.size(), 2U);
  EXPECT_EQ(gpus[1].name, "Stand-in 1");
  EXPECT_EQ(gpus[1].id, id(1));
}

TEST(Gpus, InMigModeAreTold) {
  const fs::path folder = new_folder("weft-mig-");
  fs::copy_file(WEFT_STAND_IN_NVML, folder / "nvml.so", fs::copy_options::overwrite_existing);
  std::ofstream(folder / "gpus") << "0 1024 1\n1 1024 0\n";
  const auto gpus = find_gpus((folder / "nvml.so").c_str());
  fs::remove_all(folder);
  ASSERT_EQ(gpus.size(), 2U);
  EXPECT_TRUE(gpus[0].mig);
  EXPECT_FALSE(gpus[1].mig);
}

TEST(Gpus, AreNoneWithoutIt) { EXPECT_TRUE(find_gpus("libno-such-library.so.1").empty()); }

TEST(Gpus, AreChosenByTheOptionOrTheVariable) {
  const std::vector<MachineGpu> found = {{"", id(0)}, {"", id(1)}, {"", id(2)}};
  const std::string zero = "GPU-00000000 ", one = "GPU-00000001 ", two = "GPU-00000002 ";
  EXPECT_EQ(ids_of(choose_gpus(found, "", nullptr)), zero + one + two);
  EXPECT_EQ(ids_of(choose_gpus(found, "", "2,0")), two + zero);
  EXPECT_EQ(ids_of(choose_gpus(found, "", "1,7,0")), one);  // as the runtime reads it
  EXPECT_EQ(ids_of(choose_gpus(found, "", "")), "");
  EXPECT_EQ(ids_of(choose_gpus(found, "", "GPU-00000002")), two);
  EXPECT_EQ(ids_of(choose_gpus(found, "1," + id(2), "0")), one + two);
  EXPECT_EQ(ids_of(choose_gpus(found, "1/2", nullptr)), zero);
  EXPECT_EQ(ids_of(choose_gpus(found, "2/2", nullptr)), one + two);
  for (const char* wrong : {"3", "-1", "GPU-9", "x", "0/2", "3/2", "1/", "/"}) {
    const auto chosen = choose_gpus(found, wrong, nullptr);
    ASSERT_FALSE(chosen) << wrong;
    EXPECT_EQ(chosen.error().code(), Code::kInvalidArgument);
    EXPECT_EQ(chosen.error().field(), "gpus");
  }
}

TEST(Gpus, BelongToOneAgentOfAMachine) {
  const fs::path folder = new_folder("weft-gpus-");
  const std::vector<MachineGpu> found = {{"", id(0)}, {"", id(1)}};
  EXPECT_EQ(ids_of(hold_gpus({found[1]}, folder, true)), "GPU-00000001 ");
  EXPECT_EQ(ids_of(hold_gpus(found, folder, false)), "GPU-00000000 ");
  const auto held = hold_gpus(found, folder, true);
  ASSERT_FALSE(held);
  EXPECT_EQ(held.error().code(), Code::kFailedPrecondition);
  EXPECT_EQ(held.error().value(), id(0));
  fs::remove_all(folder);
}

// Not nothing silently: this machine's driver, if it has one, is told to show no GPU.
TEST(Worker, OfGpusNeedsOne) {
  const fs::path folder = new_folder("weft-no-gpu-");
  std::ofstream(folder / "weft-worker-cuda") << "#!/bin/sh\n";
  fs::permissions(folder / "weft-worker-cuda", fs::perms::owner_all);
  ::setenv("CUDA_VISIBLE_DEVICES", "", 1);
  AgentOptions options;
  options.data = folder / "data";
  options.worker = folder / "weft-worker-cuda";
  options.slots = 4;
  options.user = "nobody";
  const auto places = make_places(options);
  ASSERT_FALSE(places);
  EXPECT_EQ(places.error().field(), "worker");
  EXPECT_NE(places.error().message().find("needs a GPU"), std::string::npos);
  fs::remove_all(folder);
}

// Against the data sheet of the A100: 312 TFLOP/s of bf16, 19.5 of fp32, 2039 GB/s; 25 GB/s a link.
TEST(Figures, AreThoseOfTheLeastGpu) {
  const GpuFigures figures = gpu_figures(std::array{id(0), id(1)}, WEFT_STAND_IN_NVML);
  EXPECT_EQ(figures.memory_bytes, int64_t{40} << 30);
  EXPECT_NEAR(figures.half_flops, 0.75 * 312e12, 1e12);
  EXPECT_NEAR(figures.flops, 0.75 * 19.5e12, 1e11);
  EXPECT_NEAR(figures.copy_bytes, 2039e9, 1e9);
  EXPECT_EQ(figures.link_bytes, 4 * 25e9);
}

TEST(Figures, LeaveOutWhatTheAgentDoesNotOffer) {
  const GpuFigures figures = gpu_figures(std::array{id(0)}, WEFT_STAND_IN_NVML);
  EXPECT_EQ(figures.memory_bytes, int64_t{80} << 30);
  EXPECT_EQ(figures.link_bytes, 12 * 25e9);
  EXPECT_EQ(gpu_figures(std::array{id(7)}, WEFT_STAND_IN_NVML).memory_bytes, 0);
}

// What ranks see of it: a quarter of the memory, 28 of 108 multiprocessors.
TEST(Figures, OfAGpuInMigModeAreItsFirstInstances) {
  const fs::path folder = new_folder("weft-mig-figures-");
  fs::copy_file(WEFT_STAND_IN_NVML, folder / "nvml.so", fs::copy_options::overwrite_existing);
  std::ofstream(folder / "gpus") << "0 " << (int64_t{80} << 30) << " 1\n";
  const GpuFigures figures = gpu_figures(std::array{id(0)}, (folder / "nvml.so").c_str());
  fs::remove_all(folder);
  EXPECT_EQ(figures.memory_bytes, int64_t{20} << 30);
  EXPECT_NEAR(figures.half_flops, 0.75 * 312e12 * 28 / 108, 1e12);
  EXPECT_NEAR(figures.flops, 0.75 * 19.5e12 * 28 / 108, 1e11);
  EXPECT_NEAR(figures.copy_bytes, 2039e9 / 4, 1e9);
}

TEST(Figures, AreNoneWithoutALibrary) {
  const GpuFigures figures = gpu_figures(std::array{id(0)}, "libno-such-library.so.1");
  EXPECT_EQ(figures.memory_bytes, 0);
  EXPECT_EQ(figures.link_bytes, 0);
}

TEST(Worker, IsToldTheFoldersOfItsLibraries) {
  EXPECT_EQ(library_folders("/a/lib:/b"), "/a/lib:/b");
  EXPECT_EQ(library_folders(":/a::lib:./b:/c:"), "/a:/c");  // the others depend on who asks
  EXPECT_EQ(library_folders(nullptr), "");
}

TEST(Worker, IsTheGpusWhereThereAreBoth) {
  const fs::path folder = new_folder("weft-worker-");
  EXPECT_EQ(worker_beside(folder, true), folder / "weft-worker");
  std::ofstream(folder / "weft-worker-cuda").put('\n');
  EXPECT_EQ(worker_beside(folder, true), folder / "weft-worker-cuda");
  EXPECT_EQ(worker_beside(folder, false), folder / "weft-worker");
  fs::remove_all(folder);
}

}  // namespace
}  // namespace weft
