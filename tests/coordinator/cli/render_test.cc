#include "coordinator/cli/render.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "coordinator/cli/job_progress.h"

namespace weft::cli {
namespace {

TEST(Render, WidthCountsColumnsNotBytes) {
  EXPECT_EQ(display_width("abc"), 3);
  EXPECT_EQ(display_width("\xc3\xa4"), 1);      // ä
  EXPECT_EQ(display_width("\xe6\x96\x87"), 2);  // a wide character
  EXPECT_EQ(display_width("a\xcc\x88"), 1);     // a combining mark
  EXPECT_EQ(display_width("\xff"), 1);          // no UTF-8
}

TEST(Render, FitCutsAtCharacters) {
  EXPECT_EQ(fit("abcdef", 6), "abcdef");
  EXPECT_EQ(fit("abcdef", 4), "abc…");
  EXPECT_EQ(fit("\xe6\x96\x87\xe6\x96\x87\xe6\x96\x87", 4), "\xe6\x96\x87…");
}

TEST(Render, ControlCharactersNeverReachTheTerminal) {
  EXPECT_EQ(printable("a\x1b[31mb\rc\x7f"), "a [31mb c ");
  EXPECT_EQ(printable("x\xc2\x9by"), "x y");  // C1
  EXPECT_EQ(printable("\xc3\xa4"), "\xc3\xa4");
}

TEST(Render, TablesAlign) {
  Table table({"ID", "N"});
  table.align_right(1);
  table.add({"\xc3\xa4", "5"});
  table.add({"abc", "12"});
  EXPECT_EQ(table.text(Terminal{}), "ID    N\n\xc3\xa4     5\nabc  12\n");
}

TEST(Render, ATableFitsItsTerminal) {
  Table table({"ID", "NAME", "KIND", "STATE", "REASON"});
  table.drop_first({2});
  table.shrink(1);
  table.add({"job-1", "a name that takes thirty columns", "pretrain", "queued",
             "waits for two slots on one node"});
  table.add({"job-2", "b", "pretrain", "running", ""});
  Terminal terminal;
  const std::string piped = table.text(terminal);
  EXPECT_NE(piped.find("pretrain"), std::string::npos);
  EXPECT_NE(piped.find("waits for two slots on one node\n"), std::string::npos);
  EXPECT_EQ(piped.find(" \n"), std::string::npos);
  terminal.is_terminal = true;
  for (terminal.columns = 56; terminal.columns < 130; ++terminal.columns) {
    std::istringstream lines(table.text(terminal));
    for (std::string line; std::getline(lines, line);) {
      EXPECT_LE(display_width(line), terminal.columns) << line;
    }
  }
  terminal.columns = 79;
  EXPECT_EQ(table.text(terminal).find("pretrain"), std::string::npos);
  EXPECT_NE(table.text(terminal).find("queued"), std::string::npos);
}

TEST(Render, ColorsOnlyOnATerminal) {
  Terminal terminal;
  EXPECT_EQ(colored(terminal, Color::kRed, "x"), "x");
  terminal.colors = true;
  EXPECT_EQ(colored(terminal, Color::kRed, "x"), "\x1b[31mx\x1b[0m");
}

TEST(Render, Figures) {
  EXPECT_EQ(show_bytes(17), "17 B");
  EXPECT_EQ(show_bytes(1536), "1.5 KiB");
  EXPECT_EQ(show_bytes(int64_t{3} << 40), "3.0 TiB");
  EXPECT_EQ(show_seconds(59.4), "59s");
  EXPECT_EQ(show_seconds(125), "2m05s");
  EXPECT_EQ(show_seconds(7500), "2h05m");
  EXPECT_EQ(show_seconds(-1), "-");
  EXPECT_EQ(show_time(0), "-");
  EXPECT_EQ(show_number(1234567.0), "1234567");
  EXPECT_EQ(show_number(2.71828), "2.718");
  EXPECT_EQ(show_number(3e-7), "3e-07");
  EXPECT_EQ(bar(0.5, 10), "[#####.....]");
  EXPECT_EQ(bar(7, 4), "[####]");
  EXPECT_EQ(state_name(proto::JOB_STATE_CANCELLING), "cancelling");
}

proto::Job running_job() {
  proto::Job job;
  job.set_id("job-0123456789abcdef");
  job.set_state(proto::JOB_STATE_RUNNING);
  job.set_step(120);
  job.set_steps(300);
  job.set_loss(3.21456);
  job.set_validation_loss(3.5);
  job.set_tokens_per_second(12345);
  job.set_seconds_left(80);
  return job;
}

TEST(Progress, APlainLineHasEverything) {
  EXPECT_EQ(progress_text(running_job()),
            "job-0123456789abcdef running step 120/300 loss 3.215 validation 3.5 12345 tokens/s "
            "1m20s left");
  proto::Job job = running_job();
  job.set_state(proto::JOB_STATE_FAILED);
  job.set_reason("rank 1\n died");
  EXPECT_EQ(progress_text(job),
            "job-0123456789abcdef failed step 120/300 loss 3.215 validation 3.5 (rank 1  died)");
}

TEST(Progress, SeveralTasksHaveTheirLosses) {
  proto::Job job = running_job();
  job.mutable_spec()->add_tasks()->set_name("lm");
  (*job.mutable_results())["lm.loss"] = 3.215;
  EXPECT_NE(progress_text(job).find(" loss 3.215 "), std::string::npos);
  job.mutable_spec()->add_tasks()->set_name("kind");
  EXPECT_NE(progress_text(job).find(" loss lm 3.215 validation"), std::string::npos);
  (*job.mutable_results())["kind.loss"] = 0.5;
  (*job.mutable_results())["kind.validation_loss"] = 0.7;
  EXPECT_NE(progress_text(job).find(" loss lm 3.215 kind 0.5 validation"), std::string::npos);
  for (int i = 0; i < 3; ++i) job.mutable_spec()->add_tasks()->set_name("more");
  EXPECT_NE(progress_text(job).find(" loss 3.215 "), std::string::npos);
}

TEST(Progress, ABarFitsAndKeepsWhatMattersMost) {
  for (int columns = 20; columns <= 200; ++columns) {
    const std::string line = progress_bar(running_job(), columns);
    EXPECT_LE(display_width(line), std::max(columns, 23)) << line;
  }
  EXPECT_EQ(progress_bar(running_job(), 120),
            "running [################........................]  40% step 120/300 loss 3.215 "
            "validation 3.5 12345 tokens/s 1m20s left");
  EXPECT_EQ(progress_bar(running_job(), 79),
            "running [######........]  40% step 120/300 loss 3.215 12345 tokens/s 1m20s left");
  EXPECT_EQ(progress_bar(running_job(), 50), "running [####.......]  40% step 120/300 loss 3.215");
  proto::Job last = running_job();
  last.set_step(299);
  EXPECT_NE(progress_bar(last, 100).find(" 99% "), std::string::npos);
}

}  // namespace
}  // namespace weft::cli
