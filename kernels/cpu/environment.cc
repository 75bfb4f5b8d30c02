#include "kernels/cpu/environment.h"

#include "kernels/cpu/gemm_choice.h"
#include "kernels/cpu/level.h"

namespace weft::cpu {

void read_environment() {
  (void)level();
  (void)gemm_choice();
}

}  // namespace weft::cpu
