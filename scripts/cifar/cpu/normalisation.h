// Normalisation and ReLU.
#pragma once
#include <tuple>

#include "tensors.h"

namespace {

// The sums of x and of its squares.
Tensor sums_of(const Tensor& x) {
  check(x);
  int64_t C = x.size(1);
  Tensor out = doubles(C);
  Sums sums(out);
  const uint16_t* from = data(x);
  pieces(rows(x), C, [&](auto n, int64_t start, int64_t end, int64_t c) {
    Vectors<n> s, q;
    for (int64_t r = start; r < end; r++)
      for (int i = 0; i < n; i++) {
        int64_t at = r * C + c + i * LANES;
        if (i % 2 == 0) ahead(from + at + BLOCK * C);
        __m512 v = load(from + at);
        s[i] = _mm512_add_ps(s[i], v);
        q[i] = _mm512_fmadd_ps(v, v, q[i]);
      }
    for (int i = 0; i < n; i++) sums.add(c + i * LANES, s[i], q[i]);
  });
  return out;
}

// (4, C): scale, shift, mean, 1 / deviation, from the sums over ``count`` rows. Moves the running statistics.
Tensor line_of(const Tensor& sums, int64_t count, const Tensor& gamma, const Tensor& beta, const Tensor& mean,
               const Tensor& variance, double momentum, double epsilon) {
  int64_t C = gamma.numel();
  Tensor line = at::empty({4, C}, gamma.options());
  float* to = line.data_ptr<float>();
  const double* s = sums.data_ptr<double>();
  for (int64_t c = 0; c < C; c++) {
    double m = s[c] / count, v = std::max(0.0, s[C + c] / count - m * m), inverse = 1 / std::sqrt(v + epsilon);
    to[c] = gamma.data_ptr<float>()[c] * inverse;
    to[C + c] = beta.data_ptr<float>()[c] - m * to[c];
    to[2 * C + c] = m;
    to[3 * C + c] = inverse;
    float &running_mean = mean.data_ptr<float>()[c], &running_variance = variance.data_ptr<float>()[c];
    running_mean += momentum * (m - running_mean);
    running_variance += momentum * (v * count / (count - 1) - running_variance);
  }
  return line;
}

Tensor norm_relu(const Tensor& x, const Tensor& line) {
  check(x);
  int64_t C = x.size(1);
  Tensor y = at::empty_like(x);
  Line norm(line);
  const uint16_t* from = data(x);
  uint16_t* to = data(y);
  pieces(rows(x), C, [&](auto n, int64_t start, int64_t end, int64_t c) {
    Vectors<n> a(norm.scale + c), b(norm.shift + c);
    for (int64_t r = start; r < end; r++)
      for (int i = 0; i < n; i++) {
        int64_t at = r * C + c + i * LANES;
        if (i % 2 == 0) ahead(from + at + BLOCK * C);
        store(to + at, relu(_mm512_fmadd_ps(load(from + at), a[i], b[i])));
      }
  });
  return y;
}

// What `apply` needs, (2, C): dx = scale * gradient where positive + slope * x + base. Gradients of gamma and beta,
// too.
std::tuple<Tensor, Tensor, Tensor> finish(const Tensor& sums, int64_t count, const Tensor& line) {
  int64_t C = line.size(1);
  Tensor slope = at::empty({2, C}, line.options()), dgamma = at::empty({C}, line.options()),
         dbeta = at::empty({C}, line.options());
  Line norm(line);
  const double* s = sums.data_ptr<double>();
  float* to = slope.data_ptr<float>();
  for (int64_t c = 0; c < C; c++) {
    dbeta.data_ptr<float>()[c] = s[c];
    dgamma.data_ptr<float>()[c] = s[C + c] * norm.inverse[c];
    to[c] = -norm.scale[c] * norm.inverse[c] * norm.inverse[c] * s[C + c] / count;
    to[C + c] = -norm.scale[c] * s[c] / count - to[c] * norm.middle[c];
  }
  return {slope, dgamma, dbeta};
}

// The sums of the gradient behind the ReLU, and of it times (x - mean).
Tensor gradient_sums(const Tensor& d, const Tensor& x, const Tensor& line) {
  check(d);
  int64_t C = x.size(1);
  Tensor out = doubles(C);
  Sums sums(out);
  Line norm(line);
  const uint16_t *from = data(x), *above = data(d);
  pieces(rows(x), C, [&](auto n, int64_t start, int64_t end, int64_t c) {
    Vectors<n> a(norm.scale + c), b(norm.shift + c), m(norm.middle + c), s, q;
    for (int64_t r = start; r < end; r++)
      for (int i = 0; i < n; i++) {
        int64_t at = r * C + c + i * LANES;
        if (i % 2 == 0) ahead(from + at + BLOCK * C), ahead(above + at + BLOCK * C);
        __m512 v = load(from + at);
        __m512 g = _mm512_maskz_mov_ps(positive(_mm512_fmadd_ps(v, a[i], b[i])), load(above + at));
        s[i] = _mm512_add_ps(s[i], g);
        q[i] = _mm512_fmadd_ps(g, _mm512_sub_ps(v, m[i]), q[i]);
      }
    for (int i = 0; i < n; i++) sums.add(c + i * LANES, s[i], q[i]);
  });
  return out;
}

Tensor norm_relu_apply(const Tensor& d, const Tensor& x, const Tensor& line, const Tensor& slope) {
  int64_t C = x.size(1);
  Tensor dx = at::empty_like(x);
  Line norm(line);
  const float* slopes = slope.data_ptr<float>();
  const uint16_t *from = data(x), *above = data(d);
  uint16_t* to = data(dx);
  pieces(rows(x), C, [&](auto n, int64_t start, int64_t end, int64_t c) {
    Vectors<n> a(norm.scale + c), b(norm.shift + c), l(slopes + c), z(slopes + C + c);
    for (int64_t r = start; r < end; r++)
      for (int i = 0; i < n; i++) {
        int64_t at = r * C + c + i * LANES;
        if (i % 2 == 0) ahead(from + at + BLOCK * C), ahead(above + at + BLOCK * C);
        __m512 v = load(from + at), result = _mm512_fmadd_ps(v, l[i], z[i]);
        store(to + at, _mm512_mask3_fmadd_ps(load(above + at), a[i], result, positive(_mm512_fmadd_ps(v, a[i], b[i]))));
      }
  });
  return dx;
}

}  // namespace
