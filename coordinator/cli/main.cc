#include <signal.h>

#include "coordinator/cli/options.h"

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_DFL);  // `weft logs | head` ends quietly
  return weft::cli::run(argc, argv);
}
