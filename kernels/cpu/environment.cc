#include "kernels/cpu/environment.h"

#include "kernels/cpu/gemm_choice.h"
#include "kernels/cpu/gemm_libraries.h"
#include "kernels/cpu/level.h"

namespace weft::cpu {

void read_environment() {
  (void)level();
  (void)gemm_choice();
}

void reserve_buffers(int threads) { reserve_openblas(threads); }

}  // namespace weft::cpu
