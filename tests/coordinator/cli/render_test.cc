#include "coordinator/cli/render.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace weft::cli
