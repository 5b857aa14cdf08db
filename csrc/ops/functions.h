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

}  // namespace quire
