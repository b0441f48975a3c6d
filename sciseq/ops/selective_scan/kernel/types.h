/* All loops for both number types; included by scan.c once for each instruction set,
 * with SET, the suffix of its names, and WIDE where 64-byte minima are one instruction.
 */

#define SHUFFLE_LOW(a, b, s) SHUFFLE_16(LOW, a, b, s)
#define SHUFFLE_HIGH(a, b, s) SHUFFLE_16(HIGH, a, b, s)
#define REAL float
#define INTEGER int32_t
#define NAME(name) JOIN(name, SET, float)
#ifdef WIDE
#define MAXIMUM(limit, z) (VEC) _mm512_max_ps((__m512)(limit), (__m512)(z))
#define MINIMUM(limit, z) (VEC) _mm512_min_ps((__m512)(limit), (__m512)(z))
#else
#define MAXIMUM NAME(maximum)
#define MINIMUM NAME(minimum)
#endif
#include "vectors.h"
#include "recurrence.h"
#include "convolution.h"
#undef LANES
#undef VEC
#undef MASK
#undef SHUFFLE_LOW
#undef SHUFFLE_HIGH
#undef REAL
#undef INTEGER
#undef MAXIMUM
#undef MINIMUM
#undef NAME

#define SHUFFLE_LOW(a, b, s) SHUFFLE_8(LOW, a, b, s)
#define SHUFFLE_HIGH(a, b, s) SHUFFLE_8(HIGH, a, b, s)
#define REAL double
#define INTEGER int64_t
#define NAME(name) JOIN(name, SET, double)
#ifdef WIDE
#define MAXIMUM(limit, z) (VEC) _mm512_max_pd((__m512d)(limit), (__m512d)(z))
#define MINIMUM(limit, z) (VEC) _mm512_min_pd((__m512d)(limit), (__m512d)(z))
#else
#define MAXIMUM NAME(maximum)
#define MINIMUM NAME(minimum)
#endif
#include "vectors.h"
#include "recurrence.h"
#include "convolution.h"
#undef LANES
#undef VEC
#undef MASK
#undef SHUFFLE_LOW
#undef SHUFFLE_HIGH
#undef REAL
#undef INTEGER
#undef MAXIMUM
#undef MINIMUM
#undef NAME
