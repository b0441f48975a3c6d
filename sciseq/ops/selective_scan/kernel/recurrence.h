/* The recurrence, forward and backward; included by types.h after vectors.h.
 *
 * Around it, where asked for: the step sizes are softplus(dt + bias), and the output is
 * multiplied by SiLU(z).
 */

/* dt = softplus(d + bias), and where wanted its derivative. Lanes without a channel
 * stay zero. */
static void NAME(find_steps)(VEC *dt, VEC *slope, const VEC *d, VEC bias, int64_t n_t,
                             int width)
{
    VEC is_channel = (VEC){};
    for (int c = 0; c < width; c++)
        ((REAL *)&is_channel)[c] = 1;
    for (int64_t t = 0; t < n_t; t++) {
        const VEC sum = d[t] + bias;
        if (slope)
            slope[t] = NAME(sigmoid)(sum) * is_channel;
        dt[t] = NAME(softplus)(sum) * is_channel;
    }
}

INLINE VEC *NAME(checkpoint)(const Problem *p, int64_t task, const NAME(Place) *at,
                             int64_t chunk)
{
    /* Every task gets the room of the largest one. The state before the first chunk
     * is zero and is not kept. */
    const int64_t all = (p->channel + LANES - 1) / LANES;
    const int64_t each = (all + p->part - 1) / p->part;
    return (VEC *)p->checkpoints +
           (task * (at->n_chunks - 1) + chunk - 1) * each * p->state;
}

/* Forward: NB states of one block through one chunk. */
INLINE void NAME(forward_states)(const int NB, int64_t n_t, int64_t N, const VEC *rates,
                                 const REAL *B, const REAL *C, const VEC *dt,
                                 const VEC *x, VEC *y, VEC *state)
{
    VEC h[8];
#pragma GCC unroll 8
    for (int n = 0; n < NB; n++)
        h[n] = state[n];
    for (int64_t t = 0; t < n_t; t++) {
        VEC sum = y[t];
#pragma GCC unroll 8
        for (int n = 0; n < NB; n++) {
            h[n] = NAME(exp2)(dt[t] * rates[n]) * h[n] + x[t] * B[t * N + n];
            sum += h[n] * C[t * N + n];
        }
        y[t] = sum;
    }
#pragma GCC unroll 8
    for (int n = 0; n < NB; n++)
        state[n] = h[n];
}

/* Backward: the same states, computed again and kept, then followed back.
 *
 * With g the gradient of h_t from all later outputs:
 *     g_t = a_{t+1} g_{t+1} + gy_t C_t            (`carry` is a_{t+1} g_{t+1})
 *     gC_t += gy_t h_t, gB_t += g_t x_t, gx_t += g_t B_t
 *     w = g_t a_t h_{t-1}:  gdt_t += w A, gA += w dt_t
 */
INLINE void NAME(backward_states)(const int NB, int64_t n_t, int64_t N,
                                  const VEC *rates, const REAL *B, const REAL *C,
                                  const VEC *dt, const VEC *x, const VEC *gy, VEC *y,
                                  VEC *gx, VEC *gdt, VEC *gB, VEC *gC, const VEC *state,
                                  VEC *carry, VEC *gA, VEC *decays, VEC *states)
{
    VEC h[8], g[8];
#pragma GCC unroll 8
    for (int n = 0; n < NB; n++) {
        h[n] = states[n] = state ? state[n] : (VEC){};
        g[n] = carry[n];
    }
    for (int64_t t = 0; t < n_t; t++) {
#pragma GCC unroll 8
        for (int n = 0; n < NB; n++) {
            const VEC a = NAME(exp2)(dt[t] * rates[n]);
            h[n] = a * h[n] + x[t] * B[t * N + n];
            decays[t * NB + n] = a;
            states[(t + 1) * NB + n] = h[n];
        }
        if (y) {
#pragma GCC unroll 8
            for (int n = 0; n < NB; n++)
                y[t] += h[n] * C[t * N + n];
        }
    }
    for (int64_t t = n_t - 1; t >= 0; t--) {
        VEC sum_x = gx[t], sum_dt = gdt[t];
#pragma GCC unroll 8
        for (int n = 0; n < NB; n++) {
            g[n] += gy[t] * C[t * N + n];
            gC[t * N + n] += gy[t] * states[(t + 1) * NB + n];
            gB[t * N + n] += g[n] * x[t];
            sum_x += g[n] * B[t * N + n];
            g[n] *= decays[t * NB + n];
            const VEC w = g[n] * states[t * NB + n];
            sum_dt += w * rates[n];
            gA[n] += w * dt[t];
        }
        gx[t] = sum_x;
        gdt[t] = sum_dt;
    }
#pragma GCC unroll 8
    for (int n = 0; n < NB; n++)
        carry[n] = g[n];
}

/* Call a function for blocks of 8, 4, 2 and 1 states, each compiled for its number. */
#define FOR_STATES(N, first, function, ...)                                            \
    for (int64_t first = 0, nb_; first < (N); first += nb_) {                          \
        const int64_t rest_ = (N) - first;                                             \
        nb_ = rest_ >= 8 ? 8 : rest_ >= 4 ? 4 : rest_ >= 2 ? 2 : 1;                    \
        switch (nb_) {                                                                 \
        case 8: function(8, __VA_ARGS__); break;                                       \
        case 4: function(4, __VA_ARGS__); break;                                       \
        case 2: function(2, __VA_ARGS__); break;                                       \
        default: function(1, __VA_ARGS__);                                             \
        }                                                                              \
    }

static int NAME(forward)(const Problem *p, int64_t task)
{
    const NAME(Place) at = NAME(place)(p, task);
    const int64_t T = p->chunk, N = p->state, K = at.n_blocks;
    const int64_t n_vectors = 3 * T + K * N;
    VEC *space = NULL;
    if (posix_memalign((void **)&space, VECTOR_BYTES,
                       n_vectors * sizeof(VEC) + 2 * T * N * sizeof(REAL)))
        return 1;
    VEC *dt = space, *x = dt + T, *y = x + T, *state = y + T;
    REAL *B = (REAL *)(state + K * N), *C = B + T * N;
    memset(state, 0, K * N * sizeof(VEC));

    for (int64_t chunk = 0; chunk < at.n_chunks; chunk++) {
        const int64_t t0 = chunk * T, n_t = p->length - t0 < T ? p->length - t0 : T;
        const int64_t step = at.is_reversed ? -1 : 1;
        const int64_t first = at.is_reversed ? p->length - 1 - t0 : t0;
        if (chunk && p->checkpoints)
            memcpy(NAME(checkpoint)(p, task, &at, chunk), state, K * N * sizeof(VEC));
        NAME(load_map)(B, &p->B, at.sample, at.group, N, first, step, n_t);
        NAME(load_map)(C, &p->C, at.sample, at.group, N, first, step, n_t);
        for (int64_t k = 0; k < K; k++) {
            const int width = NAME(width)(p, at.first_block + k);
            const int64_t channel =
                at.group * p->channel + (at.first_block + k) * LANES;
            const VEC *rates = at.constants + k * (N + 2);
            const VEC skip = rates[N], bias = rates[N + 1];
            NAME(load)(dt, PLACE_OF(dt, first), n_t, width);
            NAME(load)(x, PLACE_OF(u, first), n_t, width);
            if (p->has_softplus)
                NAME(find_steps)(dt, NULL, dt, bias, n_t, width);
            for (int64_t t = 0; t < n_t; t++) {
                y[t] = skip * x[t];
                x[t] *= dt[t];
            }
            VEC *block = state + k * N;
            FOR_STATES(N, n, NAME(forward_states), n_t, N, rates + n, B + n,
                       C + n, dt, x, y, block + n);
            if (p->z.data) {
                NAME(load)(x, PLACE_OF(z, first), n_t, width);
                for (int64_t t = 0; t < n_t; t++)
                    y[t] *= x[t] * NAME(sigmoid)(x[t]);
            }
            NAME(store)(PLACE_OF(y, first), y, n_t, width);
        }
    }
    free(space);
    return 0;
}

static int NAME(backward)(const Problem *p, int64_t task)
{
    const NAME(Place) at = NAME(place)(p, task);
    const int64_t T = p->chunk, N = p->state, K = at.n_blocks;
    const int64_t NB = N < 8 ? N : 8;
    const int64_t n_vectors =
        10 * T + (2 * T + 1) * NB + 2 * T * N + K * N;
    VEC *space = NULL;
    if (posix_memalign((void **)&space, VECTOR_BYTES,
                       n_vectors * sizeof(VEC) + 2 * T * N * sizeof(REAL)))
        return 1;
    VEC *dt = space, *u = dt + T, *x = u + T, *gy = x + T, *gx = gy + T, *gdt = gx + T,
        *y = gdt + T, *gz = y + T, *slope = gz + T, *z = slope + T, *decays = z + T,
        *states = decays + T * NB, *gB = states + (T + 1) * NB, *gC = gB + T * N,
        *carry = gC + T * N;
    REAL *B = (REAL *)(carry + K * N), *C = B + T * N;
    memset(carry, 0, K * N * sizeof(VEC));
    memset(at.sums, 0, K * (N + 2) * sizeof(VEC));
    const REAL ln2 = (REAL)0.69314718055994530942;

    for (int64_t chunk = at.n_chunks - 1; chunk >= 0; chunk--) {
        const int64_t t0 = chunk * T, n_t = p->length - t0 < T ? p->length - t0 : T;
        const int64_t step = at.is_reversed ? -1 : 1;
        const int64_t first = at.is_reversed ? p->length - 1 - t0 : t0;
        const VEC *start = chunk ? NAME(checkpoint)(p, task, &at, chunk) : NULL;
        NAME(load_map)(B, &p->B, at.sample, at.group, N, first, step, n_t);
        NAME(load_map)(C, &p->C, at.sample, at.group, N, first, step, n_t);
        memset(gB, 0, n_t * N * sizeof(VEC));
        memset(gC, 0, n_t * N * sizeof(VEC));
        for (int64_t k = 0; k < K; k++) {
            const int width = NAME(width)(p, at.first_block + k);
            const int64_t channel =
                at.group * p->channel + (at.first_block + k) * LANES;
            const VEC *rates = at.constants + k * (N + 2);
            const VEC skip = rates[N], bias = rates[N + 1];
            NAME(load)(dt, PLACE_OF(dt, first), n_t, width);
            NAME(load)(u, PLACE_OF(u, first), n_t, width);
            NAME(load)(gy, PLACE_OF(grad_y, first), n_t, width);
            if (p->has_softplus)
                NAME(find_steps)(dt, slope, dt, bias, n_t, width);
            if (p->z.data) {
                NAME(load)(z, PLACE_OF(z, first), n_t, width);
                for (int64_t t = 0; t < n_t; t++) {
                    const VEC s = NAME(sigmoid)(z[t]);
                    gz[t] = gy[t] * s * ((REAL)1 + z[t] * ((REAL)1 - s));
                    gy[t] *= z[t] * s;
                    y[t] = skip * u[t];
                }
            }
            for (int64_t t = 0; t < n_t; t++) {
                x[t] = dt[t] * u[t];
                gx[t] = gdt[t] = (VEC){};
            }
            const VEC *from = start ? start + k * N : NULL;
            VEC *block_carry = carry + k * N, *gA = at.sums + k * (N + 2);
            VEC gD = gA[N], gbias = gA[N + 1];
            FOR_STATES(N, n, NAME(backward_states), n_t, N, rates + n, B + n,
                       C + n, dt, x, gy, p->z.data ? y : NULL, gx, gdt, gB + n, gC + n,
                       from ? from + n : NULL, block_carry + n, gA + n, decays,
                       states);
            for (int64_t t = 0; t < n_t; t++) {
                gD += gy[t] * u[t];
                gdt[t] = gdt[t] * ln2 + gx[t] * u[t]; /* `rates` are A log2(e) */
                gx[t] = gx[t] * dt[t] + gy[t] * skip;
            }
            if (p->has_softplus)
                for (int64_t t = 0; t < n_t; t++) {
                    gdt[t] *= slope[t];
                    gbias += gdt[t];
                }
            gA[N] = gD;
            gA[N + 1] = gbias;
            if (p->z.data) {
                for (int64_t t = 0; t < n_t; t++)
                    gz[t] *= y[t];
                NAME(store)(PLACE_OF(grad_z, first), gz, n_t, width);
            }
            NAME(store)(PLACE_OF(grad_u, first), gx, n_t, width);
            NAME(store)(PLACE_OF(grad_dt, first), gdt, n_t, width);
        }
        NAME(store_map)(&p->grad_B, gB, at.part * p->batch + at.sample, at.group, N,
                        first, step, n_t);
        NAME(store_map)(&p->grad_C, gC, at.part * p->batch + at.sample, at.group, N,
                        first, step, n_t);
    }
    free(space);
    return 0;
}

#undef FOR_STATES
