// Tensors in bfloat16: rows of C channels (channels last), C a multiple of 16, the number of rows a multiple of 32.
#pragma once
#include <immintrin.h>
#include <torch/extension.h>

#include <vector>

namespace {

using at::Tensor;
using std::vector;
constexpr int64_t LANES = 16;
constexpr int64_t BLOCK = 32;  // rows that are worked on at a time

__m512 load(const uint16_t* at) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)at)), 16));
}

__m512 store(uint16_t* at, __m512 value) {  // returns the value as it is rounded
  __m256i rounded = (__m256i)_mm512_cvtneps_pbh(value);
  _mm256_storeu_si256((__m256i*)at, rounded);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16));
}

__m512 relu(__m512 x) { return _mm512_max_ps(_mm512_setzero_ps(), x); }

__mmask16 positive(__m512 x) { return _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ); }

uint16_t* data(const Tensor& x) { return (uint16_t*)x.data_ptr(); }

void check(const Tensor& x) {
  TORCH_CHECK(x.scalar_type() == at::kBFloat16 && x.is_contiguous(at::MemoryFormat::ChannelsLast), "channels last");
  TORCH_CHECK(x.size(1) % LANES == 0 && x.numel() / x.size(1) % BLOCK == 0, "whole vectors and tiles");
}

int64_t rows(const Tensor& x) { return x.numel() / x.size(1); }

Tensor like(const Tensor& x, int64_t channels) {
  return at::empty({x.size(0), channels, x.size(2), x.size(3)}, x.options(), at::MemoryFormat::ChannelsLast);
}

Tensor doubles(int64_t channels) { return at::zeros({2, channels}, at::kDouble); }

// Two sums for each channel, added up over a block in registers.
struct Sums {
  double *first, *second;
  explicit Sums(Tensor& sums) : first(sums.data_ptr<double>()), second(first + sums.size(1)) {}
  static void add(double* to, __m512 values) {
    _mm512_storeu_pd(to, _mm512_add_pd(_mm512_loadu_pd(to), _mm512_cvtps_pd(_mm512_castps512_ps256(values))));
    __m256 high = _mm512_extractf32x8_ps(values, 1);
    _mm512_storeu_pd(to + 8, _mm512_add_pd(_mm512_loadu_pd(to + 8), _mm512_cvtps_pd(high)));
  }
  void add(int64_t channel, __m512 a, __m512 b) const {
    add(first + channel, a);
    add(second + channel, b);
  }
};

// What a normalisation does to a tensor: x * scale + shift. ``middle`` and ``inverse`` are mean and 1 / deviation.
struct Line {
  const float *scale, *shift, *middle, *inverse;
  explicit Line(const Tensor& line)
      : scale(line.data_ptr<float>()),
        shift(scale + line.size(1)),
        middle(shift + line.size(1)),
        inverse(middle + line.size(1)) {}
  __m512 at(int64_t c, __m512 x) const {
    return _mm512_fmadd_ps(x, _mm512_loadu_ps(scale + c), _mm512_loadu_ps(shift + c));
  }
};

// f(number of vectors, first channel) for groups of channels. The number is known to the compiler, which then keeps
// a group's values in registers; whole cache lines are read in their order.
template <class F>
void groups(int64_t C, F&& f) {
  int64_t c = 0;
  for (; C - c >= 4 * LANES; c += 4 * LANES) f(std::integral_constant<int, 4>(), c);
  for (; C - c >= 2 * LANES; c += 2 * LANES) f(std::integral_constant<int, 2>(), c);
  for (; C - c >= LANES; c += LANES) f(std::integral_constant<int, 1>(), c);
}

// f(number of vectors, first row, behind the last, first channel) for pieces that stay in the first cache.
template <class F>
void pieces(int64_t M, int64_t C, F&& f) {
  for (int64_t start = 0; start < M; start += BLOCK)
    groups(C, [&](auto n, int64_t c) { f(n, start, std::min(M, start + BLOCK), c); });
}

// N vectors of constants.
template <int N>
struct Vectors {
  __m512 v[N];
  Vectors() {
    for (auto& each : v) each = _mm512_setzero_ps();
  }
  explicit Vectors(const float* from) {
    for (int i = 0; i < N; i++) v[i] = _mm512_loadu_ps(from + i * LANES);
  }
  __m512& operator[](int i) { return v[i]; }
};

void ahead(const uint16_t* at) { _mm_prefetch((const char*)at, _MM_HINT_T1); }

}  // namespace
