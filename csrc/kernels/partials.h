/* Partial sums in double: element i of a row goes to partial i % DSR_PARTIALS, and partials are added in order. EXACT.
 *
 * Vectors of the level keep the partials in registers. Left to gcc 12 as a loop over an array, it stores and loads them
 * at every step: twice the time with AVX-512, 1.6 times with AVX2 (Zen 5, sums of products in the first cache).
 */
enum { PARTIAL_LANES = VECTOR_BYTES / 8, PARTIAL_VECTORS = DSR_PARTIALS / PARTIAL_LANES };
typedef double partial_vector __attribute__((vector_size(8 * PARTIAL_LANES)));
/* As many elements, anywhere, and their bits. */
typedef float partial_values_f32 __attribute__((vector_size(4 * PARTIAL_LANES), may_alias, aligned(4)));
typedef double partial_values_f64 __attribute__((vector_size(8 * PARTIAL_LANES), may_alias, aligned(8)));
typedef int32_t partial_bits_f32 __attribute__((vector_size(4 * PARTIAL_LANES), may_alias, aligned(4)));
typedef int64_t partial_bits_f64 __attribute__((vector_size(8 * PARTIAL_LANES), may_alias, aligned(8)));

static inline partial_vector widen(const float *values) {
    return __builtin_convertvector(*(const partial_values_f32 *)values, partial_vector);
}
