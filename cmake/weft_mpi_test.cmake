# weft_mpi_test(NAME PROGRAM RANKS...)   CTest runs PROGRAM --ranks N under mpirun, once for each N.
function(weft_mpi_test name program)
  foreach(ranks ${ARGN})
    add_test(NAME ${name}_${ranks}
             COMMAND ${MPIEXEC_EXECUTABLE} -n ${ranks} --bind-to none --oversubscribe
                     --allow-run-as-root $<TARGET_FILE:${program}> --ranks ${ranks})
    set_tests_properties(${name}_${ranks} PROPERTIES TIMEOUT 180 PROCESSORS 2
                         ENVIRONMENT "OMPI_MCA_btl=self,vader,tcp;OMPI_MCA_rmaps_base_oversubscribe=1")
  endforeach()
endfunction()
