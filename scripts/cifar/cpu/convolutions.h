// 1x1 convolutions behind normalisation and ReLU, with kernels (out, in) in bfloat16; the gradient of 3x3 kernels.
#pragma once
#include <tuple>

#include "normalisation.h"
#ifdef __AMX_BF16__
#include "tiles.h"
#else
#include "dots.h"
#endif

namespace {

// The convolution of relu(norm(x)), with ``more`` added; and `sums_of` the result.
std::tuple<Tensor, Tensor> conv_forward(const Tensor& x, const Tensor& line, const Tensor& kernel,
                                        const std::optional<Tensor>& more) {
  check(x);
  int64_t C = x.size(1), O = kernel.size(0), M = rows(x);
  Tensor out = like(x, O), sum = doubles(O);
  Sums sums(sum);
  Line norm(line);
  const uint16_t *from = data(x), *beside = more ? data(*more) : nullptr;
  uint16_t* to = data(out);
  auto tiles = tiles_of(kernel.t());
  vector<uint16_t> in(BLOCK * C);
  vector<float> product(BLOCK * O);
  Tiles configured(C);
  for (int64_t start = 0; start < M; start += BLOCK) {
    groups(C, [&](auto n, int64_t c) {
      Vectors<n> a(norm.scale + c), b(norm.shift + c);
      for (int64_t r = 0; r < BLOCK; r++)
        for (int i = 0; i < n; i++) {
          const uint16_t* at = from + (start + r) * C + c + i * LANES;
          if (i % 2 == 0) ahead(at + BLOCK * C);
          store(&in[r * C + c + i * LANES], relu(_mm512_fmadd_ps(load(at), a[i], b[i])));
        }
    });
    multiply(in.data(), C, tiles.data(), O, product.data());
    groups(O, [&](auto n, int64_t o) {
      Vectors<n> s, q;
      for (int64_t r = 0; r < BLOCK; r++)
        for (int i = 0; i < n; i++) {
          int64_t at = (start + r) * O + o + i * LANES;
          __m512 v = _mm512_loadu_ps(&product[r * O + o + i * LANES]);
          if (beside) {
            if (i % 2 == 0) ahead(beside + at + BLOCK * O);
            v = _mm512_add_ps(v, load(beside + at));
          }
          v = store(to + at, v);
          s[i] = _mm512_add_ps(s[i], v);
          q[i] = _mm512_fmadd_ps(v, v, q[i]);
        }
      for (int i = 0; i < n; i++) sums.add(o + i * LANES, s[i], q[i]);
    });
  }
  return {out, sum};
}

// The kernel's gradient, `gradient_sums` of x's normalisation and, if ``keep``, the gradient before its ReLU.
std::tuple<Tensor, Tensor, Tensor> conv_backward(const Tensor& d, const Tensor& x, const Tensor& line,
                                                 const Tensor& kernel, bool keep) {
  check(d);
  check(x);
  int64_t C = x.size(1), O = kernel.size(0), M = rows(x);
  Tensor back = keep ? at::empty_like(x) : Tensor(), sum = doubles(C);
  Sums sums(sum);
  Line norm(line);
  const uint16_t *from = data(x), *above = data(d);
  uint16_t* to = keep ? data(back) : nullptr;
  auto tiles = tiles_of(kernel);
  bool narrow = C <= O;  // the narrower of the two matrices is transposed
  Tensor own = at::zeros(narrow ? std::vector<int64_t>{C, O} : std::vector<int64_t>{O, C}, line.options());
  vector<uint16_t> in(BLOCK * C), turned(std::min(C, O) * GATHERED), pairs(std::max(C, O) * GATHERED);
  vector<float> product(BLOCK * C);
  __m512i side_by_side = interleaving();
  Tiles configured(O);
  for (int64_t start = 0; start < M; start += BLOCK) {
    int64_t gathered = start % GATHERED;
    const uint16_t* here = above + start * O;
    uint16_t* next = &pairs[gathered * std::max(C, O)];
    multiply(here, O, tiles.data(), C, product.data());
    groups(C, [&](auto n, int64_t c) {
      Vectors<n> a(norm.scale + c), b(norm.shift + c), m(norm.middle + c), s, q;
      for (int64_t r = 0; r < BLOCK; r += 2)
        for (int i = 0; i < n; i++) {
          __m512 lines[2];
          for (int k = 0; k < 2; k++) {
            int64_t within = (r + k) * C + c + i * LANES, at = start * C + within;
            if (i % 2 == 0) ahead(from + at + BLOCK * C);
            __m512 v = load(from + at), g = _mm512_loadu_ps(&product[within]);
            if (keep) store(to + at, g);
            lines[k] = relu(_mm512_fmadd_ps(v, a[i], b[i]));
            g = _mm512_maskz_mov_ps(positive(lines[k]), g);
            s[i] = _mm512_add_ps(s[i], g);
            q[i] = _mm512_fmadd_ps(g, _mm512_sub_ps(v, m[i]), q[i]);
          }
          __m512i both = (__m512i)_mm512_cvtne2ps_pbh(lines[1], lines[0]);
          if (narrow) {
            _mm256_storeu_si256((__m256i*)&in[r * C + c + i * LANES], _mm512_castsi512_si256(both));
            _mm256_storeu_si256((__m256i*)&in[(r + 1) * C + c + i * LANES], _mm512_extracti64x4_epi64(both, 1));
          } else {
            _mm512_storeu_si512(next + ((c + i * LANES) * 16 + r / 2 * 16) * 2,
                                _mm512_permutexvar_epi16(side_by_side, both));
          }
        }
      for (int i = 0; i < n; i++) sums.add(c + i * LANES, s[i], q[i]);
    });
    transpose(narrow ? in.data() : here, std::min(C, O), &turned[gathered], GATHERED);
    if (narrow) pack_rows(here, O, BLOCK, O, next);
    if (gathered + BLOCK == GATHERED || start + BLOCK == M)
      outer(turned.data(), std::min(C, O), pairs.data(), std::max(C, O), gathered + BLOCK, own.data_ptr<float>());
  }
  return {narrow ? own.t() : own, sum, back};
}

// The gradient of x, computed from that of the convolution again, with ``more`` added.
Tensor conv_apply(const Tensor& d, const Tensor& x, const Tensor& line, const Tensor& kernel, const Tensor& slope,
                  const std::optional<Tensor>& more) {
  int64_t C = x.size(1), O = kernel.size(0), M = rows(x);
  Tensor dx = at::empty_like(x);
  Line norm(line);
  const float* slopes = slope.data_ptr<float>();
  const uint16_t *from = data(x), *above = data(d), *beside = more ? data(*more) : nullptr;
  uint16_t* to = data(dx);
  auto tiles = tiles_of(kernel);
  vector<float> product(BLOCK * C);
  Tiles configured(O);
  for (int64_t start = 0; start < M; start += BLOCK) {
    multiply(above + start * O, O, tiles.data(), C, product.data());
    groups(C, [&](auto n, int64_t c) {
      Vectors<n> a(norm.scale + c), b(norm.shift + c), l(slopes + c), z(slopes + C + c);
      for (int64_t r = 0; r < BLOCK; r++)
        for (int i = 0; i < n; i++) {
          int64_t within = r * C + c + i * LANES, at = start * C + within;
          if (i % 2 == 0) ahead(from + at + BLOCK * C);
          __m512 v = load(from + at), result = _mm512_fmadd_ps(v, l[i], z[i]);
          if (beside) {
            if (i % 2 == 0) ahead(beside + at + BLOCK * C);
            result = _mm512_add_ps(result, load(beside + at));
          }
          __mmask16 on = positive(_mm512_fmadd_ps(v, a[i], b[i]));
          store(to + at, _mm512_mask3_fmadd_ps(_mm512_loadu_ps(&product[within]), a[i], result, on));
        }
    });
  }
  return dx;
}

// The gradient of a 3x3 kernel with a stride of 1, (out, in, 3, 3).
Tensor conv3x3_kernel(const Tensor& d, const Tensor& x) {
  check(d);
  check(x);
  int64_t N = x.size(0), C = x.size(1), O = d.size(1), H = x.size(2), W = x.size(3), P = H * W;
  TORCH_CHECK(W % 2 == 0 && P % STEP == 0, "whole tiles in each picture");
  Tensor own = at::zeros({3, 3, O, C}, at::kFloat);
  float* sum = own.data_ptr<float>();
  const uint16_t *from = data(x), *above = data(d);
  // Pairs of places, shifted by -1, 0 and 1 columns, with an empty row above and below: [3][(H + 2) W / 2][C][2].
  vector<uint32_t> pairs(3 * (H + 2) * W / 2 * C, 0);
  vector<uint16_t> turned(O * P);
  int64_t shifted = (H + 2) * W / 2 * C;
  Tiles configured;
  for (int64_t n = 0; n < N; n++) {
    for (int64_t p = 0; p < P; p += BLOCK) transpose(above + (n * P + p) * O, O, &turned[p], P);
    for (int64_t y = 0; y < H; y++) {
      const uint16_t* row = from + (n * P + y * W) * C;
      for (int64_t s = 0; s < 3; s++)
        for (int64_t p = 0; p < W / 2; p++)
          for (int64_t c = 0; c < C; c += LANES) {
            int64_t left = 2 * p + s - 1, right = left + 1;
            __m512i low = left < 0 ? _mm512_setzero_si512()
                                   : _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(row + left * C + c)));
            __m512i high = right >= W
                               ? _mm512_setzero_si512()
                               : _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(row + right * C + c)));
            _mm512_storeu_si512(&pairs[s * shifted + ((y + 1) * W / 2 + p) * C + c],
                                _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
          }
    }
    for (int64_t v = 0; v < 3; v++) outer3(turned.data(), O, &pairs[v * W / 2 * C], shifted, C, P, sum + v * 3 * O * C);
  }
  return own.permute({2, 3, 0, 1});
}

}  // namespace
