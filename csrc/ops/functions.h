// Transcendental functions of sixteen lanes; every lane takes the same steps.
#pragma once
#include "vec.h"

namespace quire {

// e^x to about one unit in the last place; 0 below -104, infinity above 88.8, NaN for NaN.
// Reduction by multiples of ln 2 in two parts, then a polynomial of degree 6 on |r| <= ln 2 / 2.
QUIRE_INLINE vf exp(vf x) {
  vf in = max(min(x, vf_set(89.0f)), vf_set(-105.0f));
  vf n = round(in * vf_set(1.44269504f));
  vf r = fma(n, vf_set(-0.693359375f), in);
  r = fma(n, vf_set(2.12194440e-4f), r);
  vf p = vf_set(1.9875691500e-4f);
  p = fma(p, r, vf_set(1.3981999507e-3f));
  p = fma(p, r, vf_set(8.3334519073e-3f));
  p = fma(p, r, vf_set(4.1665795894e-2f));
  p = fma(p, r, vf_set(1.6666665459e-1f));
  p = fma(p, r, vf_set(5.0000001201e-1f));
  p = fma(p, r * r, r) + vf_set(1.0f);
  // 2^n as two factors, so that results below the normal range are right too
  vi whole = to_int(n);
  vi half = shift_right_signed<1>(whole);
  vf low = as_float(shift_left<23>(half + vi_set(127)));
  vf high = as_float(shift_left<23>(whole - half + vi_set(127)));
  return select(is_nan(x), x, p * low * high);
}

QUIRE_INLINE vf magnitude(vf x) { return as_float(as_int(x) & vi_set(0x7fffffff)); }
QUIRE_INLINE vf with_sign_of(vf x, vf sign) {
  return as_float(as_int(x) | (as_int(sign) & vi_set((int32_t)0x80000000)));
}

// tanh(x) to about two units in the last place; NaN for NaN.
// An odd polynomial below 0.625, 1 - 2 / (e^(2 |x|) + 1) above; both fitted here.
QUIRE_INLINE vf tanh(vf x) {
  vf s = x * x;
  vf p = vf_set(-0.0055284165f);
  p = fma(p, s, vf_set(0.020483086f));
  p = fma(p, s, vf_set(-0.053692885f));
  p = fma(p, s, vf_set(0.13330899f));
  p = fma(p, s, vf_set(-0.33333263f));
  vf small = fma(p * s, x, x);
  vf t = magnitude(x);
  vf large = vf_set(1.0f) - vf_set(2.0f) / (exp(t + t) + vf_set(1.0f));
  return select(less(t, vf_set(0.625f)), small, with_sign_of(large, x));
}

// erf(x) to about two units in the last place; NaN for NaN.
// An odd polynomial below 0.94, 1 - e^(-t (1 + P(t))) above, where t stops at 4: erf(4) rounds to 1.
QUIRE_INLINE vf erf(vf x) {
  vf s = x * x;
  vf p = vf_set(-5.8415177e-4f);
  p = fma(p, s, vf_set(4.9638571e-3f));
  p = fma(p, s, vf_set(-2.6746791e-2f));
  p = fma(p, s, vf_set(0.11281281f));
  p = fma(p, s, vf_set(-0.37612444f));
  p = fma(p, s, vf_set(0.12837914f));
  vf small = fma(p, x, x);
  vf t = min(vf_set(4.0f), magnitude(x));
  vf q = vf_set(1.2242328e-5f);
  q = fma(q, t, vf_set(-3.3291630e-4f));
  q = fma(q, t, vf_set(3.6835445e-3f));
  q = fma(q, t, vf_set(-2.3848889e-2f));
  q = fma(q, t, vf_set(0.10633760f));
  q = fma(q, t, vf_set(0.63509047f));
  q = fma(q, t, vf_set(0.12866347f));
  vf large = vf_set(1.0f) - exp(vf_zero() - fma(q, t, t));
  return select(less(t, vf_set(0.94f)), small, with_sign_of(large, x));
}

// The natural logarithm to about one unit in the last place; -infinity for 0, NaN below and for NaN.
// x = 2^n (1 + f) with f from sqrt(1/2) - 1 to sqrt(2) - 1, then f - f^2 / 2 + f^3 P(f).
QUIRE_INLINE vf log(vf x) {
  vm tiny = less(x, vf_set(1.17549435e-38f));  // below the normal range
  vf y = select(tiny, x * vf_set(8388608.0f), x);
  vi n = shift_right_signed<23>(as_int(y) - vi_set(0x3f3504f3));
  vf f = as_float(as_int(y) - shift_left<23>(n)) - vf_set(1.0f);
  vf e = to_float(n) - select(tiny, vf_set(23.0f), vf_zero());
  vf s = f * f;
  vf p = vf_set(0.069139503f);
  p = fma(p, f, vf_set(-0.11789084f));
  p = fma(p, f, vf_set(0.11873231f));
  p = fma(p, f, vf_set(-0.12384489f));
  p = fma(p, f, vf_set(0.14218642f));
  p = fma(p, f, vf_set(-0.16669242f));
  p = fma(p, f, vf_set(0.20002227f));
  p = fma(p, f, vf_set(-0.24999987f));
  p = fma(p, f, vf_set(0.33333310f));
  vf r = fma(f * s, p, e * vf_set(-2.12194440e-4f));
  r = fma(vf_set(-0.5f), s, r) + f;
  r = fma(e, vf_set(0.693359375f), r);
  r = select(less(x, vf_zero()), vf_set(__builtin_nanf("")), r);
  r = select(equal(x, vf_zero()), vf_set(-__builtin_inff()), r);
  vm whole = less(x, vf_set(__builtin_inff()));  // false for infinity and NaN, which stay
  return select(whole, r, x);
}

// log(1 + e^x) to a few units in the last place; x above 20, where it is x in float32; NaN for NaN.
// log(1 + y) = log(u) * y / (u - 1) with u = 1 + y rounded, whose error cancels.
QUIRE_INLINE vf softplus(vf x) {
  vf y = exp(x), u = y + vf_set(1.0f);
  vf corrected = select(equal(u, vf_set(1.0f)), y, log(u) * (y / (u - vf_set(1.0f))));
  return select(less(vf_set(20.0f), x), x, corrected);
}

// The activations between the products of a feed-forward part.
QUIRE_INLINE vf silu(vf x) { return x / (exp(vf_zero() - x) + vf_set(1.0f)); }
QUIRE_INLINE vf gelu(vf x) {
  return (erf(x * vf_set(0.707106781f)) + vf_set(1.0f)) * (x * vf_set(0.5f));
}
QUIRE_INLINE vf gelu_tanh(vf x) {
  vf inner = (x * x * x * vf_set(0.044715f) + x) * vf_set(0.797884561f);
  return (tanh(inner) + vf_set(1.0f)) * (x * vf_set(0.5f));
}
QUIRE_INLINE vf swish_gated(vf gate, vf up) {
  vf share = vf_set(1.0f) / (exp(vf_zero() - gate * vf_set(1.702f)) + vf_set(1.0f));
  return (up + vf_set(1.0f)) * (gate * share);
}
QUIRE_INLINE vf relu(vf x) { return max(vf_zero(), x); }  // NaN stays
QUIRE_INLINE vf relu2(vf x) { return relu(x) * relu(x); }

// Calls `body` with the function that `code` names as `f`.
#define QUIRE_FOR_ACT(code, body)                                              \
  switch (code) {                                                              \
    case QUIRE_SILU: { auto f = [](vf x) { return silu(x); }; body; break; }   \
    case QUIRE_GELU: { auto f = [](vf x) { return gelu(x); }; body; break; }   \
    case QUIRE_GELU_TANH: { auto f = [](vf x) { return gelu_tanh(x); }; body; break; } \
    case QUIRE_RELU: { auto f = [](vf x) { return relu(x); }; body; break; }   \
    case QUIRE_RELU2: { auto f = [](vf x) { return relu2(x); }; body; break; } \
  }

QUIRE_INLINE vf sigmoid(vf x) { return vf_set(1.0f) / (exp(vf_zero() - x) + vf_set(1.0f)); }

}  // namespace quire
