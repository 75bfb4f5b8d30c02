// Elementwise kernels: out = f(inputs) over a walk, at the speed of memory. A thread takes vectors
// of up to 16 bytes where the innermost dim is contiguous (or, of an input, one element) and all
// addresses are aligned, several of them under way at once; else single elements. Places are
// computed in 32 bits, without divisions: a walk of kMapElementsMax elements or more is cut.
//
// `f(y, x...)` computes a Vector<Out, N> from Vector<In, N>s, for any N; what one element becomes
// must not depend on N. The inputs that a thread needs are read before it writes: out may be an
// input that is walked over as out is.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/walk.h"

namespace weft::cuda {

// An input of these is no array: its elements are the places that the walk gives them.
struct Place {
  int64_t index;
};
template <typename T>
constexpr size_t kElementBytes = sizeof(T);
template <>
inline constexpr size_t kElementBytes<Place> = 0;

// What divides numbers below 2^31 (Granlund and Montgomery 1994, theorem 4.2 with N = 32).
struct Divisor {
  uint32_t value = 1, multiplier = 1, shift = 0;
  Divisor() = default;
  explicit Divisor(uint32_t divisor) : value(divisor) {
    while (uint64_t{1} << shift < divisor) ++shift;
    const uint64_t above = (uint64_t{1} << shift) - divisor;
    multiplier = static_cast<uint32_t>((above << 32) / divisor + 1);
  }
  __device__ uint32_t quotient(uint32_t n) const { return (__umulhi(n, multiplier) + n) >> shift; }
};

// A walk in units of one vector, or of one element.
template <int kArrays>
struct UnitWalk {
  int dims = 0;
  uint32_t units = 0;
  uint32_t rest = 0;  // elements behind the units, of one dim
  Divisor extent[kWalkDims];
  int64_t stride[kArrays][kWalkDims] = {};
  int64_t start[kArrays] = {};
  bool single[kArrays] = {};  // one element for all of a unit
};

// Where the units that a thread takes at once lie.
template <int kArrays, int kUnits>
struct UnitPlaces {
  int64_t at[kArrays][kUnits];
};
template <int kUnits, int kArrays>
__device__ UnitPlaces<kArrays, kUnits> places_of(const UnitWalk<kArrays>& walk, uint32_t first,
                                                 uint32_t apart) {
  UnitPlaces<kArrays, kUnits> places;
  uint32_t index[kUnits];
  WEFT_UNROLL
  for (int u = 0; u < kUnits; ++u) {
    index[u] = first + static_cast<uint32_t>(u) * apart;
    WEFT_UNROLL
    for (int array = 0; array < kArrays; ++array) places.at[array][u] = walk.start[array];
  }
  for (int dim = 0; dim < walk.dims; ++dim) {
    WEFT_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      uint32_t place = index[u];
      if (dim + 1 < walk.dims) {
        index[u] = walk.extent[dim].quotient(place);
        place -= index[u] * walk.extent[dim].value;
      }
      WEFT_UNROLL
      for (int array = 0; array < kArrays; ++array) {
        places.at[array][u] += place * walk.stride[array][dim];
      }
    }
  }
  return places;
}

// A unit of an input under way, and what it becomes.
template <typename T, int kWidth>
struct Unit {
  Packed<T, kWidth> words;
  __device__ static Unit load(const T* array, int64_t at, bool single) {
    if (!single) return {load_packed<kWidth>(array + at)};
    Vector<T, kWidth> same;
    const T element = array[at];
    WEFT_UNROLL
    for (int j = 0; j < kWidth; ++j) same.at[j] = element;
    return {packed(same)};
  }
  __device__ Vector<T, kWidth> elements() const { return unpack(words); }
};
template <int kWidth>
struct Unit<Place, kWidth> {
  int64_t first;
  bool single;
  __device__ static Unit load(const Place*, int64_t at, bool single) { return {at, single}; }
  __device__ Vector<Place, kWidth> elements() const {
    Vector<Place, kWidth> vector;
    WEFT_UNROLL
    for (int j = 0; j < kWidth; ++j) vector.at[j] = {single ? first : first + j};
    return vector;
  }
};

template <size_t kInput, typename T, int kWidth, int kUnits>
struct InputUnits {
  Unit<T, kWidth> of[kUnits];
};
template <int kWidth, int kUnits, typename Numbers, typename... In>
struct Inputs;
template <int kWidth, int kUnits, size_t... kInput, typename... In>
struct Inputs<kWidth, kUnits, std::index_sequence<kInput...>, In...>
    : InputUnits<kInput, In, kWidth, kUnits>... {};

// Units first, first + apart, ..., as far as there are such.
template <int kWidth, int kUnits, typename F, size_t... kInput, typename Out, typename... In>
__device__ void map_units(const F& f, const UnitWalk<sizeof...(In) + 1>& walk, uint32_t first,
                          uint32_t apart, std::index_sequence<kInput...>, Out* out,
                          const In*... in) {
  const auto places = places_of<kUnits>(walk, first, apart);
  [[maybe_unused]] Inputs<kWidth, kUnits, std::index_sequence<kInput...>, In...> inputs;
  WEFT_UNROLL
  for (int u = 0; u < kUnits; ++u) {
    if (first + static_cast<uint32_t>(u) * apart >= walk.units) continue;
    ((inputs.InputUnits<kInput, In, kWidth, kUnits>::of[u] =
          Unit<In, kWidth>::load(in, places.at[kInput][u], walk.single[kInput])),
     ...);
  }
  WEFT_UNROLL
  for (int u = 0; u < kUnits; ++u) {
    if (first + static_cast<uint32_t>(u) * apart >= walk.units) continue;
    Vector<Out, kWidth> y;
    f(y, inputs.InputUnits<kInput, In, kWidth, kUnits>::of[u].elements()...);
    store_vector(out + places.at[sizeof...(In)][u], y);
  }
}

// Units of a thread at once: about 64 bytes of inputs under way, four units at most.
template <int kWidth, typename... In>
constexpr size_t kUnitBytes = (size_t{0} + ... + (kWidth * kElementBytes<In>));
template <int kWidth, typename... In>
constexpr int kUnitsAtOnce = kUnitBytes<kWidth, In...> > 32   ? 1
                             : kUnitBytes<kWidth, In...> > 16 ? 2
                                                              : 4;

template <int kWidth, typename F, typename Out, typename... In>
__global__ void map_kernel(F f, const __grid_constant__ UnitWalk<sizeof...(In) + 1> walk, Out* out,
                           const In*... in) {
  constexpr int kUnits = kUnitsAtOnce<kWidth, In...>;
  constexpr std::index_sequence_for<In...> kNumbers;
  for (uint32_t first = blockIdx.x * kUnits * kThreads + threadIdx.x; first < walk.units;
       first += gridDim.x * kUnits * kThreads) {
    map_units<kWidth, kUnits>(f, walk, first, kThreads, kNumbers, out, in...);
  }
  if (blockIdx.x == 0 && threadIdx.x < walk.rest) {
    const auto one = [&]<size_t... kInput>(std::index_sequence<kInput...>) {
      const int64_t at = int64_t{walk.units} * kWidth + threadIdx.x;
      Vector<Out, 1> y;
      f(y, Unit<In, 1>::load(in, walk.start[kInput] + (walk.single[kInput] ? 0 : at), true)
               .elements()...);
      out[walk.start[sizeof...(In)] + at] = y.at[0];
    };
    one(kNumbers);
  }
}

// Whether all arrays (elements of so many bytes; 0: of places) can be taken `width` elements at a
// time.
template <int kArrays>
bool in_vectors(const Walk<kArrays>& walk, int width, const int64_t (&start)[kArrays],
                const void* const (&arrays)[kArrays], const size_t (&bytes)[kArrays]) {
  if (walk.dims == 0 || (walk.dims > 1 && walk.extent[0] % width != 0)) return false;
  if (walk.stride[kArrays - 1][0] != 1) return false;
  for (int array = 0; array < kArrays; ++array) {
    if (walk.stride[array][0] == 0) continue;
    if (walk.stride[array][0] != 1 || start[array] % width != 0) return false;
    const size_t together = width * std::max<size_t>(1, bytes[array]);
    if (reinterpret_cast<uintptr_t>(arrays[array]) % together != 0) return false;
    for (int dim = 1; dim < walk.dims; ++dim) {
      if (walk.stride[array][dim] % width != 0) return false;
    }
  }
  return true;
}

template <int kArrays>
UnitWalk<kArrays> units_of(const Walk<kArrays>& walk, int width, const int64_t (&start)[kArrays]) {
  UnitWalk<kArrays> result;
  result.dims = walk.dims;
  result.units = static_cast<uint32_t>(walk.elements / width);
  result.rest = static_cast<uint32_t>(walk.elements % width);
  for (int dim = 0; dim < walk.dims; ++dim) {
    const int64_t extent = dim == 0 ? walk.extent[0] / width : walk.extent[dim];
    result.extent[dim] = Divisor(static_cast<uint32_t>(extent > 0 ? extent : 1));
    for (int array = 0; array < kArrays; ++array) {
      result.stride[array][dim] = walk.stride[array][dim] * (dim == 0 ? width : 1);
    }
  }
  for (int array = 0; array < kArrays; ++array) {
    result.start[array] = start[array];
    result.single[array] = walk.dims > 0 && walk.stride[array][0] == 0;
  }
  return result;
}

template <int kWidth, typename F, typename Out, typename... In>
void launch_map(cudaStream_t stream, const F& f, const UnitWalk<sizeof...(In) + 1>& walk, Out* out,
                const In*... in) {
  constexpr int kUnits = kUnitsAtOnce<kWidth, In...>;
  const unsigned blocks = blocks_of(walk.units, kThreads * kUnits);
  launch(stream, blocks == 0 && walk.rest > 0 ? 1 : blocks, kThreads,
         map_kernel<kWidth, F, Out, In...>, f, walk, out, in...);
}

// The walk is over the inputs in their order, then out; `start`: where it starts in each.
template <typename F, typename Out, typename... In>
void map_from(cudaStream_t stream, const F& f, Walk<sizeof...(In) + 1> walk,
              const int64_t (&start)[sizeof...(In) + 1], Out* out, const In*... in) {
  constexpr int kArrays = sizeof...(In) + 1;
  if (walk.elements >= kMapElementsMax) {  // two walks, over parts of an outer dim
    int dim = walk.dims - 1;
    while (walk.extent[dim] == 1) --dim;
    const int64_t all = walk.extent[dim], each = walk.elements / all;
    int64_t behind[kArrays];
    for (int array = 0; array < kArrays; ++array) {
      behind[array] = start[array] + all / 2 * walk.stride[array][dim];
    }
    walk.extent[dim] = all / 2;
    walk.elements = walk.extent[dim] * each;
    (map_from)(stream, f, walk, start, out, in...);
    walk.extent[dim] = all - all / 2;
    walk.elements = walk.extent[dim] * each;
    return (map_from)(stream, f, walk, behind, out, in...);
  }
  constexpr int kWidth =
      static_cast<int>(kAccessBytes / std::max({sizeof(Out), kElementBytes<In>...}));
  const void* const arrays[kArrays] = {in..., out};
  const size_t bytes[kArrays] = {kElementBytes<In>..., sizeof(Out)};
  if ((in_vectors<kArrays>)(walk, kWidth, start, arrays, bytes)) {
    launch_map<kWidth>(stream, f, (units_of<kArrays>)(walk, kWidth, start), out, in...);
  } else {
    launch_map<1>(stream, f, (units_of<kArrays>)(walk, 1, start), out, in...);
  }
}

template <typename F, typename Out, typename... In>
void map(cudaStream_t stream, const F& f, const Walk<sizeof...(In) + 1>& walk, Out* out,
         const In*... in) {
  const int64_t start[sizeof...(In) + 1] = {};
  (map_from)(stream, f, walk, start, out, in...);
}
// Of n elements that lie one behind the other in all arrays.
template <typename F, typename Out, typename... In>
void map_flat(cudaStream_t stream, const F& f, int64_t n, Out* out, const In*... in) {
  Walk<sizeof...(In) + 1> walk;
  walk.dims = 1;
  walk.elements = walk.extent[0] = n;
  for (auto& stride : walk.stride) stride[0] = 1;
  (map)(stream, f, walk, out, in...);
}

// y[j] = f(x[j]...) for all j.
template <typename F, typename Out, int kWidth, typename... In>
__device__ void each(const F& f, Vector<Out, kWidth>& y, const Vector<In, kWidth>&... x) {
  WEFT_UNROLL
  for (int j = 0; j < kWidth; ++j) y.at[j] = f(x.at[j]...);
}

}  // namespace weft::cuda
