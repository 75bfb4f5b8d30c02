// weft-golden: compares Weft with golden cases that transformers computed.
#include "cluster/golden/golden_program.h"

int main(int argc, char** argv) { return weft::golden_program(argc, argv); }
