// The program weft-golden.
#pragma once

namespace weft {

// Its exit status; argv[0] is the program's name.
int golden_program(int argc, char** argv);

}  // namespace weft
