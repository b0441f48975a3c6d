/* The scan for one number type and one instruction set; included by scan.c with REAL,
 * INTEGER, NAME, MINIMUM and MAXIMUM.
 *
 * Tiles hold the tokens of one chunk: [t] vectors of LANES channels for u, dt and y,
 * [t][state] scalars for B and C. Times: `t` counts the tokens of a chunk, in the
 * direction of the group.
 */

#define LANES ((int)(VECTOR_BYTES / sizeof(REAL)))
#define VEC NAME(vec)
#define MASK NAME(mask)
typedef REAL VEC __attribute__((vector_size(VECTOR_BYTES)));
typedef INTEGER MASK __attribute__((vector_size(VECTOR_BYTES)));

/* Both give z when z is NaN. */
INLINE VEC NAME(maximum)(VEC limit, VEC z)
{
    const MASK which = z < limit;
    return (VEC)(((MASK)limit & which) | ((MASK)z & ~which));
}

INLINE VEC NAME(minimum)(VEC limit, VEC z)
{
    const MASK which = z > limit;
    return (VEC)(((MASK)limit & which) | ((MASK)z & ~which));
}

/* 2^z: the integer part goes into the exponent, the rest through a polynomial with
 * p(0) = 1 whose relative error is below the rounding of REAL. Arguments are limited to
 * the exponents of normal numbers; NaN stays NaN. */
INLINE VEC NAME(exp2)(VEC z)
{
    const int is_float = sizeof(REAL) == 4;
    const REAL magic = is_float ? 0x1.8p23 : 0x1.8p52; /* adding it rounds to integers */
    const VEC lowest = (VEC){} + (REAL)(is_float ? -126 : -1022);
    const VEC highest = (VEC){} + (REAL)(is_float ? 127 : 1023);
    z = MINIMUM(highest, MAXIMUM(lowest, z));
    const VEC shifted = z + magic;
    const VEC f = z - (shifted - magic); /* in [-1/2, 1/2] */
    VEC p;
    if (is_float) {
        p = f * (REAL)1.5345812158740183e-4 + (REAL)1.3399931209474140e-3;
        p = p * f + (REAL)9.6184889565227916e-3;
        p = p * f + (REAL)5.5503287769976638e-2;
        p = p * f + (REAL)2.4022646890639572e-1;
        p = p * f + (REAL)6.9314720573725268e-1;
    } else {
        p = f * (REAL)4.4352809446103361611e-10 + (REAL)7.0741056262456593708e-9;
        p = p * f + (REAL)1.0178198033328527662e-7;
        p = p * f + (REAL)1.3215433089594629037e-6;
        p = p * f + (REAL)1.52527334899608046e-5;
        p = p * f + (REAL)1.5403530462514613026e-4;
        p = p * f + (REAL)1.3333558146789950323e-3;
        p = p * f + (REAL)9.6181291075883350833e-3;
        p = p * f + (REAL)5.5504108664819921483e-2;
        p = p * f + (REAL)2.4022650695910156205e-1;
        p = p * f + (REAL)6.9314718055994533046e-1;
    }
    p = p * f + (REAL)1;
    return (VEC)((MASK)p + ((MASK)shifted << (is_float ? 23 : 52)));
}

INLINE REAL NAME(sum)(VEC v)
{
    REAL lanes[VECTOR_BYTES / sizeof(REAL)];
    memcpy(lanes, &v, sizeof v);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            lanes[i] += lanes[i + width];
    return lanes[0];
}

/* A walk over the tokens of one sample and one group, in the group's direction. */
typedef struct {
    REAL *first; /* the element of the first token */
    int64_t channel, token;
} NAME(Walk);

INLINE NAME(Walk) NAME(walk)(const Array *a, int64_t sample, int64_t channel,
                             int64_t length, int is_reversed)
{
    NAME(Walk) w = {(REAL *)a->data + sample * a->stride[0] + channel * a->stride[1],
                    a->stride[1], a->stride[2]};
    if (is_reversed) {
        w.first += (length - 1) * w.token;
        w.token = -w.token;
    }
    return w;
}

INLINE NAME(Walk) NAME(chunk_of)(NAME(Walk) w, int64_t t0)
{
    w.first += t0 * w.token;
    return w;
}

/* Rows and columns of LANES x LANES numbers change places: log2(LANES) rounds in which
 * pairs of rows exchange halves, quarters and so on. */
INLINE void NAME(transpose)(VEC *row)
{
#ifdef HAS_SHUFFLE
#define ROUND(s)                                                                       \
    for (int i = 0; i < LANES; i++)                                                    \
        if (!(i & s)) {                                                                \
            const VEC a = row[i], b = row[i + s];                                      \
            row[i] = SHUFFLE_LOW(a, b, s);                                             \
            row[i + s] = SHUFFLE_HIGH(a, b, s);                                        \
        }
#pragma GCC unroll 16
    ROUND(1)
#pragma GCC unroll 16
    ROUND(2)
#pragma GCC unroll 16
    ROUND(4)
    if (LANES == 16)
#pragma GCC unroll 16
        ROUND(8)
#undef ROUND
#else
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < i; j++) {
            const REAL other = row[i][j];
            row[i][j] = row[j][i];
            row[j][i] = other;
        }
#endif
}

/* Tokens that lie next to each other in memory are read in squares; `low` is the
 * lowest address of a square and `turn` says that its tokens run downwards. */
INLINE int NAME(in_squares)(NAME(Walk) w) { return w.token == 1 || w.token == -1; }

INLINE void NAME(load_square)(VEC *tile, const REAL *low, int64_t stride, int turn,
                              int n_channels)
{
    VEC row[LANES];
#pragma GCC unroll 16
    for (int c = 0; c < LANES; c++) {
        row[c] = (VEC){};
        if (c < n_channels)
            memcpy(&row[c], low + c * stride, sizeof(VEC));
    }
    NAME(transpose)(row);
#pragma GCC unroll 16
    for (int t = 0; t < LANES; t++)
        tile[turn ? LANES - 1 - t : t] = row[t];
}

INLINE void NAME(store_square)(REAL *low, int64_t stride, int turn, const VEC *tile,
                               int n_channels)
{
    VEC row[LANES];
#pragma GCC unroll 16
    for (int t = 0; t < LANES; t++)
        row[t] = tile[turn ? LANES - 1 - t : t];
    NAME(transpose)(row);
#pragma GCC unroll 16
    for (int c = 0; c < LANES; c++)
        if (c < n_channels)
            memcpy(low + c * stride, &row[c], sizeof(VEC));
}

static void NAME(load)(VEC *tile, NAME(Walk) w, int64_t n_t, int n_channels)
{
    const REAL *from = w.first;
    if (w.channel == 1 && n_channels == LANES) {
        for (int64_t t = 0; t < n_t; t++)
            memcpy(&tile[t], from + t * w.token, sizeof(VEC));
        return;
    }
    int64_t done = 0;
    if (NAME(in_squares)(w))
        for (; done + LANES <= n_t; done += LANES)
            NAME(load_square)(tile + done,
                              from + (w.token > 0 ? done : -(done + LANES - 1)),
                              w.channel, w.token < 0, n_channels);
    REAL *to = (REAL *)tile;
    memset(to + done * LANES, 0, (n_t - done) * sizeof(VEC));
    for (int c = 0; c < n_channels; c++)
        for (int64_t t = done; t < n_t; t++)
            to[t * LANES + c] = from[c * w.channel + t * w.token];
}

static void NAME(store)(NAME(Walk) w, const VEC *tile, int64_t n_t, int n_channels)
{
    REAL *to = w.first;
    if (w.channel == 1 && n_channels == LANES) {
        for (int64_t t = 0; t < n_t; t++)
            memcpy(to + t * w.token, &tile[t], sizeof(VEC));
        return;
    }
    int64_t done = 0;
    if (NAME(in_squares)(w))
        for (; done + LANES <= n_t; done += LANES)
            NAME(store_square)(to + (w.token > 0 ? done : -(done + LANES - 1)),
                               w.channel, w.token < 0, tile + done, n_channels);
    const REAL *from = (const REAL *)tile;
    for (int c = 0; c < n_channels; c++)
        for (int64_t t = done; t < n_t; t++)
            to[c * w.channel + t * w.token] = from[t * LANES + c];
}

/* Scalars of B or C: array axes batch, group, state, length. */
static void NAME(load_map)(REAL *tile, const Array *a, int64_t sample, int64_t group,
                           int64_t n_states, int64_t first, int64_t step, int64_t n_t)
{
    const REAL *from = (REAL *)a->data + sample * a->stride[0] + group * a->stride[1] +
                       first * a->stride[3];
    for (int64_t n = 0; n < n_states; n++)
        for (int64_t t = 0; t < n_t; t++)
            tile[t * n_states + n] =
                from[n * a->stride[2] + t * step * a->stride[3]];
}

/* What both passes know of a task. */
typedef struct {
    int64_t sample, group, part;
    int is_reversed;
    int64_t first_block, n_blocks; /* blocks of channels, counted within the group */
    int64_t n_chunks;
} NAME(Place);

INLINE NAME(Place) NAME(place)(const Problem *p, int64_t task)
{
    NAME(Place) at;
    at.part = task % p->part;
    at.group = task / p->part % p->group;
    at.sample = task / p->part / p->group;
    at.is_reversed = (int)(p->reversed >> at.group & 1);
    const int64_t all = (p->channel + LANES - 1) / LANES;
    const int64_t each = (all + p->part - 1) / p->part;
    at.first_block = at.part * each;
    at.n_blocks = all - at.first_block < each ? all - at.first_block : each;
    if (at.n_blocks < 0)
        at.n_blocks = 0;
    at.n_chunks = (p->length + p->chunk - 1) / p->chunk;
    return at;
}

/* Channels of a block, fewer than LANES only in the last one of a group. */
INLINE int NAME(width)(const Problem *p, int64_t block)
{
    const int64_t rest = p->channel - block * LANES;
    return rest < LANES ? (int)rest : LANES;
}

/* Decay rates of a task's blocks times log2(e), and its skip weights; lanes without a
 * channel are zero. */
static void NAME(load_rates)(const Problem *p, const NAME(Place) *at, VEC *rates,
                             VEC *skip)
{
    const REAL log2e = (REAL)1.4426950408889634074;
    const int64_t N = p->state;
    memset(rates, 0, at->n_blocks * N * sizeof(VEC));
    memset(skip, 0, at->n_blocks * sizeof(VEC));
    for (int64_t k = 0; k < at->n_blocks; k++) {
        const int width = NAME(width)(p, at->first_block + k);
        for (int c = 0; c < width; c++) {
            const int64_t channel =
                at->group * p->channel + (at->first_block + k) * LANES + c;
            const REAL *row = (REAL *)p->A.data + channel * p->A.stride[0];
            for (int64_t n = 0; n < N; n++)
                ((REAL *)&rates[k * N + n])[c] = log2e * row[n * p->A.stride[1]];
            if (p->D.data)
                ((REAL *)&skip[k])[c] = ((REAL *)p->D.data)[channel * p->D.stride[0]];
        }
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
                                  const VEC *dt, const VEC *x, const VEC *gy, VEC *gx,
                                  VEC *gdt, VEC *gB, VEC *gC, const VEC *state,
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
    const int64_t n_vectors = 3 * T + 2 * K * N + K;
    VEC *space = NULL;
    if (posix_memalign((void **)&space, VECTOR_BYTES,
                       n_vectors * sizeof(VEC) + 2 * T * N * sizeof(REAL)))
        return 1;
    VEC *dt = space, *x = dt + T, *y = x + T, *rates = y + T, *state = rates + K * N,
        *skip = state + K * N;
    REAL *B = (REAL *)(skip + K), *C = B + T * N;
    NAME(load_rates)(p, &at, rates, skip);
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
#define WALK(array)                                                                    \
    NAME(chunk_of)(                                                                    \
        NAME(walk)(&p->array, at.sample, channel, p->length, at.is_reversed), t0)
            NAME(load)(dt, WALK(dt), n_t, width);
            NAME(load)(x, WALK(u), n_t, width);
            for (int64_t t = 0; t < n_t; t++) {
                y[t] = skip[k] * x[t];
                x[t] *= dt[t];
            }
            VEC *block = state + k * N;
            FOR_STATES(N, n, NAME(forward_states), n_t, N, rates + k * N + n, B + n,
                       C + n, dt, x, y, block + n);
            NAME(store)(WALK(y), y, n_t, width);
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
        6 * T + (2 * T + 1) * NB + 2 * T * N + 3 * K * N + 2 * K;
    VEC *space = NULL;
    if (posix_memalign((void **)&space, VECTOR_BYTES,
                       n_vectors * sizeof(VEC) + 2 * T * N * sizeof(REAL)))
        return 1;
    VEC *dt = space, *u = dt + T, *x = u + T, *gy = x + T, *gx = gy + T, *gdt = gx + T,
        *decays = gdt + T, *states = decays + T * NB, *gB = states + (T + 1) * NB,
        *gC = gB + T * N, *rates = gC + T * N, *carry = rates + K * N,
        *gA = carry + K * N, *skip = gA + K * N, *gD = skip + K;
    REAL *B = (REAL *)(gD + K), *C = B + T * N;
    NAME(load_rates)(p, &at, rates, skip);
    memset(carry, 0, 2 * K * N * sizeof(VEC)); /* carry and gA */
    memset(gD, 0, K * sizeof(VEC));
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
            NAME(load)(dt, WALK(dt), n_t, width);
            NAME(load)(u, WALK(u), n_t, width);
            NAME(load)(gy, WALK(grad_y), n_t, width);
            for (int64_t t = 0; t < n_t; t++) {
                x[t] = dt[t] * u[t];
                gx[t] = gdt[t] = (VEC){};
            }
            const VEC *from = start ? start + k * N : NULL;
            VEC *block_carry = carry + k * N, *block_gA = gA + k * N;
            FOR_STATES(N, n, NAME(backward_states), n_t, N, rates + k * N + n, B + n,
                       C + n, dt, x, gy, gx, gdt, gB + n, gC + n,
                       from ? from + n : NULL, block_carry + n, block_gA + n, decays,
                       states);
            for (int64_t t = 0; t < n_t; t++) {
                gD[k] += gy[t] * u[t];
                gdt[t] = gdt[t] * ln2 + gx[t] * u[t]; /* `rates` are A log2(e) */
                gx[t] = gx[t] * dt[t] + gy[t] * skip[k];
            }
            NAME(store)(WALK(grad_u), gx, n_t, width);
            NAME(store)(WALK(grad_dt), gdt, n_t, width);
        }
        const int64_t row = at.part * p->batch + at.sample;
        REAL *to_B = (REAL *)p->grad_B.data + row * p->grad_B.stride[0] +
                     at.group * p->grad_B.stride[1] + first * p->grad_B.stride[3];
        REAL *to_C = (REAL *)p->grad_C.data + row * p->grad_C.stride[0] +
                     at.group * p->grad_C.stride[1] + first * p->grad_C.stride[3];
        for (int64_t t = 0; t < n_t; t++)
            for (int64_t n = 0; n < N; n++) {
                to_B[t * step * p->grad_B.stride[3] + n * p->grad_B.stride[2]] =
                    NAME(sum)(gB[t * N + n]);
                to_C[t * step * p->grad_C.stride[3] + n * p->grad_C.stride[2]] =
                    NAME(sum)(gC[t * N + n]);
            }
    }
    for (int64_t k = 0; k < K; k++)
        for (int c = 0; c < NAME(width)(p, at.first_block + k); c++) {
            const int64_t channel =
                at.group * p->channel + (at.first_block + k) * LANES + c;
            REAL *row = (REAL *)p->grad_A.data + at.sample * p->grad_A.stride[0] +
                        channel * p->grad_A.stride[1];
            for (int64_t n = 0; n < N; n++)
                row[n * p->grad_A.stride[2]] = ((REAL *)&gA[k * N + n])[c];
            ((REAL *)p->grad_D.data)[at.sample * p->grad_D.stride[0] +
                                     channel * p->grad_D.stride[1]] =
                ((REAL *)&gD[k])[c];
        }
    free(space);
    return 0;
}

#undef WALK
#undef FOR_STATES
#undef LANES
#undef VEC
#undef MASK
