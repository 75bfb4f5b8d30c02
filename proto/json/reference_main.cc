// weft-reference: prints docs/reference/job-file.md.
#include <cstdio>
#include <string>

#include "proto/json/schema.h"

int main() {
  std::string page = weft::job_file_reference();
  bool written = std::fwrite(page.data(), 1, page.size(), stdout) == page.size();
  return written && std::fflush(stdout) == 0 ? 0 : 1;
}
