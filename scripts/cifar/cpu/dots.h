// Products of matrices with AVX-512's dot products of bfloat16 pairs, where there is no AMX.
#pragma once
#include "packing.h"

namespace {

struct Tiles {
  explicit Tiles(int64_t depth = STEP) { TORCH_CHECK(depth == STEP / 2 || depth % STEP == 0, "whole vectors"); }
};

// out [R][N vectors] (+)= a [R][count pairs] * b: a's rows are ``stride`` pairs apart, b's pairs ``step``, b's
// vectors ``apart``.
template <int R, int N>
void dots(const uint32_t* a, int64_t stride, const uint32_t* b, int64_t step, int64_t apart, int64_t count, float* out,
          int64_t width, int64_t between, bool more) {
  __m512 sum[R][N];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) sum[r][n] = more ? _mm512_loadu_ps(out + r * width + n * between) : _mm512_setzero_ps();
  for (int64_t k = 0; k < count; k++) {
    __m512bh right[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) right[n] = (__m512bh)_mm512_loadu_si512(b + k * step + n * apart);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      auto left = (__m512bh)_mm512_set1_epi32((int)a[r * stride + k]);
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) sum[r][n] = _mm512_dpbf16_ps(sum[r][n], left, right[n]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) _mm512_storeu_ps(out + r * width + n * between, sum[r][n]);
}

// out [BLOCK][width] = a [BLOCK][depth] * tiles.
void multiply(const uint16_t* a, int64_t depth, const uint16_t* tiles, int64_t width, float* out) {
  const auto *left = (const uint32_t*)a, *right = (const uint32_t*)tiles;
  int64_t pairs = depth / 2, most = STEP / 2;
  for (int64_t k = 0; k < pairs; k += most)
    for (int64_t w = 0; w < width; w += 2 * LANES) {
      const uint32_t* at = right + (k * width + w * most);
      int64_t count = std::min(most, pairs - k);
      for (int64_t r = 0; r < BLOCK; r += 8) {
        const uint32_t* row = left + r * pairs + k;
        float* to = out + r * width + w;
        if (w + LANES < width)
          dots<8, 2>(row, pairs, at, LANES, LANES * most, count, to, width, LANES, k > 0);
        else
          dots<8, 1>(row, pairs, at, LANES, 0, count, to, width, 0, k > 0);
      }
    }
}

// sum [A][B] += a^T b over R rows. a: [A][GATHERED], b: [R / 32][B / 16][16 pairs][16][2].
void outer(const uint16_t* a, int64_t A, const uint16_t* b, int64_t B, int64_t R, float* sum) {
  const auto *left = (const uint32_t*)a, *right = (const uint32_t*)b;
  int64_t most = STEP / 2;
  for (int64_t i = 0; i < A; i += 8)
    for (int64_t j = 0; j < B; j += 2 * LANES)
      for (int64_t k = 0; k < R / 2; k += most) {
        const uint32_t *row = left + i * (GATHERED / 2) + k, *at = right + k * B + j * most;
        float* to = sum + i * B + j;
        if (j + LANES < B)
          dots<8, 2>(row, GATHERED / 2, at, LANES, LANES * most, most, to, B, LANES, true);
        else
          dots<8, 1>(row, GATHERED / 2, at, LANES, 0, most, to, B, 0, true);
      }
}

// Three products: sum[s] [O][C] += a^T b[s] over P places. a: [O][P], b: [P / 2][C][2], ``apart`` from each other.
void outer3(const uint16_t* a, int64_t O, const uint32_t* b, int64_t apart, int64_t C, int64_t P, float* sum) {
  for (int64_t o = 0; o < O; o += 8)
    for (int64_t c = 0; c < C; c += LANES)
      dots<8, 3>((const uint32_t*)a + o * P / 2, P / 2, b + c, C, apart, P / 2, sum + o * C + c, C, O * C, true);
}

}  // namespace
