// What soft masks are made of: maximum pooling, and the gate with its penalty.
#pragma once
#include <tuple>

#include "tensors.h"

namespace {

__m512 exp_negative(__m512 x) {  // e^-x for |x| <= 80, to 1e-4 of the value: the result is rounded to bfloat16
  __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f));
  __m512 whole = _mm512_roundscale_ps(t, 0), part = _mm512_sub_ps(t, whole), p = _mm512_set1_ps(0.0096181f);
  for (float next : {0.0555041f, 0.2402265f, 0.6931472f, 1.0f}) p = _mm512_fmadd_ps(p, part, _mm512_set1_ps(next));
  return _mm512_scalef_ps(p, whole);
}

__m512 sigmoid(__m512 x) {
  __m512 one = _mm512_set1_ps(1.0f);
  x = _mm512_max_ps(_mm512_set1_ps(-80.0f), _mm512_min_ps(_mm512_set1_ps(80.0f), x));
  return _mm512_div_ps(one, _mm512_add_ps(one, exp_negative(x)));
}

// Also the mean of how far the logits are beyond +-limit: squared up to 1, from there on straight.
std::tuple<Tensor, double> gate_forward(const Tensor& trunk, const Tensor& mask, double limit) {
  check(trunk);
  check(mask);
  Tensor out = at::empty_like(trunk);
  const uint16_t *t = data(trunk), *m = data(mask);
  uint16_t* to = data(out);
  __m512 bound = _mm512_set1_ps((float)limit), one = _mm512_set1_ps(1.0f);
  double total = 0;
  for (int64_t start = 0; start < out.numel(); start += 4096) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = start; i < std::min(out.numel(), start + 4096); i += LANES) {
      __m512 v = load(t + i), x = load(m + i), e = relu(_mm512_sub_ps(_mm512_abs_ps(x), bound));
      store(to + i, _mm512_fmadd_ps(v, sigmoid(x), v));
      __m512 straight = _mm512_sub_ps(_mm512_add_ps(e, e), one);
      sum = _mm512_add_ps(sum, _mm512_mask_mul_ps(straight, _mm512_cmp_ps_mask(e, one, _CMP_LT_OQ), e, e));
    }
    total += _mm512_reduce_add_ps(sum);
  }
  return {out, total / out.numel()};
}

// Gradients of trunk and mask; ``factor`` is the gradient of the mean.
std::tuple<Tensor, Tensor> gate_backward(const Tensor& d, const Tensor& trunk, const Tensor& mask, double limit,
                                         double factor) {
  check(d);
  Tensor dtrunk = at::empty_like(trunk), dmask = at::empty_like(mask);
  const uint16_t *above = data(d), *t = data(trunk), *m = data(mask);
  uint16_t *to_trunk = data(dtrunk), *to_mask = data(dmask);
  __m512 bound = _mm512_set1_ps((float)limit), each = _mm512_set1_ps((float)(2 * factor / d.numel()));
  __m512 one = _mm512_set1_ps(1.0f), sign = _mm512_set1_ps(-0.0f);
  for (int64_t i = 0; i < d.numel(); i += LANES) {
    __m512 g = load(above + i), x = load(m + i), s = sigmoid(x);
    __m512 excess = _mm512_min_ps(one, relu(_mm512_sub_ps(_mm512_abs_ps(x), bound)));
    __m512 penalty = _mm512_xor_ps(_mm512_mul_ps(excess, each), _mm512_and_ps(x, sign));
    store(to_trunk + i, _mm512_fmadd_ps(g, s, g));
    store(to_mask + i, _mm512_fmadd_ps(_mm512_mul_ps(g, load(t + i)), _mm512_fnmadd_ps(s, s, s), penalty));
  }
  return {dtrunk, dmask};
}

// Maximum pooling, 3x3 with a stride of 2, which pads below and on the right alone.

// The largest of each window, and which of the nine it is.
std::tuple<Tensor, Tensor> pool_forward(const Tensor& x) {
  check(x);
  int64_t N = x.size(0), C = x.size(1), H = x.size(2), W = x.size(3), h = H / 2, w = W / 2;
  Tensor out = at::empty({N, C, h, w}, x.options(), at::MemoryFormat::ChannelsLast);
  Tensor which = at::empty({N, C, h, w}, x.options().dtype(at::kByte), at::MemoryFormat::ChannelsLast);
  const uint16_t* from = data(x);
  uint16_t* to = data(out);
  auto* index = which.data_ptr<uint8_t>();
  for (int64_t n = 0; n < N; n++)
    for (int64_t i = 0; i < h; i++)
      for (int64_t j = 0; j < w; j++)
        for (int64_t c = 0; c < C; c += LANES) {
          __m512 best = _mm512_set1_ps(-INFINITY);
          __m512i chosen = _mm512_setzero_si512();
          for (int64_t k = 0; k < 9; k++) {
            int64_t y = 2 * i + k / 3, z = 2 * j + k % 3;
            if (y >= H || z >= W) continue;
            __m512 v = load(from + ((n * H + y) * W + z) * C + c);
            __mmask16 more = _mm512_cmp_ps_mask(v, best, _CMP_GT_OQ);
            best = _mm512_mask_mov_ps(best, more, v);
            chosen = _mm512_mask_mov_epi32(chosen, more, _mm512_set1_epi32(k));
          }
          int64_t at = ((n * h + i) * w + j) * C + c;
          store(to + at, best);
          _mm_storeu_si128((__m128i*)(index + at), _mm512_cvtepi32_epi8(chosen));
        }
  return {out, which};
}

Tensor pool_backward(const Tensor& d, const Tensor& which) {
  check(d);
  int64_t N = d.size(0), C = d.size(1), h = d.size(2), w = d.size(3), H = 2 * h, W = 2 * w;
  Tensor dx = at::empty({N, C, H, W}, d.options(), at::MemoryFormat::ChannelsLast);
  const uint16_t* above = data(d);
  const auto* index = which.data_ptr<uint8_t>();
  uint16_t* to = data(dx);
  for (int64_t n = 0; n < N; n++)
    for (int64_t y = 0; y < H; y++)
      for (int64_t z = 0; z < W; z++)
        for (int64_t c = 0; c < C; c += LANES) {
          __m512 sum = _mm512_setzero_ps();
          for (int64_t i = std::max<int64_t>(0, (y - 1) / 2); i <= y / 2; i++)  // windows that hold this place
            for (int64_t j = std::max<int64_t>(0, (z - 1) / 2); j <= z / 2; j++) {
              int64_t at = ((n * h + i) * w + j) * C + c, k = (y - 2 * i) * 3 + z - 2 * j;
              __m512i chosen = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(index + at)));
              sum =
                  _mm512_mask_add_ps(sum, _mm512_cmpeq_epi32_mask(chosen, _mm512_set1_epi32(k)), sum, load(above + at));
            }
          store(to + ((n * H + y) * W + z) * C + c, sum);
        }
  return dx;
}

}  // namespace
