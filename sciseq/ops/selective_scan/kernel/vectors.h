/* Vectors of channels, their functions, and tiles of tokens; included by types.h for one
 * number type and one instruction set, with REAL, INTEGER, NAME, MINIMUM and MAXIMUM.
 *
 * A tile holds the tokens of one chunk: [t] vectors of LANES channels for u, dt and y,
 * [t][state] scalars for B and C. `t` counts the tokens of a chunk in the direction of
 * the group.
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
 * p(0) = 1 whose relative error is below the rounding of REAL. Beyond the exponents of
 * normal numbers the result is exactly zero or infinite; NaN stays NaN. */
INLINE VEC NAME(exp2)(VEC z)
{
    const int is_float = sizeof(REAL) == 4;
    const REAL magic = is_float ? 0x1.8p23 : 0x1.8p52; /* adding it rounds to integers */
    const VEC lowest = (VEC){} + (REAL)(is_float ? -127 : -1023);
    const VEC highest = (VEC){} + (REAL)(is_float ? 128 : 1024);
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

/* 1 / (1 + e^-x) */
INLINE VEC NAME(sigmoid)(VEC x)
{
    return (REAL)1 / ((REAL)1 + NAME(exp2)(x * (REAL)-1.4426950408889634074));
}

/* log(1 + e^x) = max(x, 0) + log(1 + e), e = e^-|x|, and log(1 + e) = 2 artanh(s) with
 * s = e / (2 + e) <= 1/3: a polynomial in s^2, its relative error below rounding. */
INLINE VEC NAME(softplus)(VEC x)
{
    const VEC zero = (VEC){};
    const VEC magnitude = MAXIMUM(-x, x);
    const VEC e = NAME(exp2)(magnitude * (REAL)-1.4426950408889634074);
    const VEC s = e / (e + (REAL)2), q = s * s;
    VEC p;
    if (sizeof(REAL) == 4) {
        p = q * (REAL)0.28178334495472688762 + (REAL)0.27960602836574293578;
        p = p * q + (REAL)0.400249102777003699;
        p = p * q + (REAL)0.66666314682107343112;
    } else {
        p = q * (REAL)0.16503941022466338674 + (REAL)0.069708336520749898442;
        p = p * q + (REAL)0.10979135629319624923;
        p = p * q + (REAL)0.11714899517313637103;
        p = p * q + (REAL)0.13336911501521068764;
        p = p * q + (REAL)0.15384445000815416295;
        p = p * q + (REAL)0.18181823501016737049;
        p = p * q + (REAL)0.22222222117238076534;
        p = p * q + (REAL)0.28571428572648775221;
        p = p * q + (REAL)0.39999999999992683203;
        p = p * q + (REAL)0.66666666666666683832;
    }
    p = p * q + (REAL)2;
    return MAXIMUM(zero, x) + p * s;
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

/* Tiles are read and written from the address of their first token; `channel` and
 * `token` are strides, the latter negative where a group runs backwards. */
static void NAME(load)(VEC *tile, const REAL *from, int64_t channel, int64_t token,
                       int64_t n_t, int n_channels)
{
    if (channel == 1 && n_channels == LANES) {
        for (int64_t t = 0; t < n_t; t++)
            memcpy(&tile[t], from + t * token, sizeof(VEC));
        return;
    }
    int64_t done = 0;
    if (token == 1 || token == -1)
        for (; done + LANES <= n_t; done += LANES)
            NAME(load_square)(tile + done,
                              from + (token > 0 ? done : -(done + LANES - 1)), channel,
                              token < 0, n_channels);
    REAL *to = (REAL *)tile;
    memset(to + done * LANES, 0, (n_t - done) * sizeof(VEC));
    for (int c = 0; c < n_channels; c++)
        for (int64_t t = done; t < n_t; t++)
            to[t * LANES + c] = from[c * channel + t * token];
}

static void NAME(store)(REAL *to, int64_t channel, int64_t token, const VEC *tile,
                        int64_t n_t, int n_channels)
{
    if (channel == 1 && n_channels == LANES) {
        for (int64_t t = 0; t < n_t; t++)
            memcpy(to + t * token, &tile[t], sizeof(VEC));
        return;
    }
    int64_t done = 0;
    if (token == 1 || token == -1)
        for (; done + LANES <= n_t; done += LANES)
            NAME(store_square)(to + (token > 0 ? done : -(done + LANES - 1)), channel,
                               token < 0, tile + done, n_channels);
    const REAL *from = (const REAL *)tile;
    for (int c = 0; c < n_channels; c++)
        for (int64_t t = done; t < n_t; t++)
            to[c * channel + t * token] = from[t * LANES + c];
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


/* Sums over the channels of a part, one for each token and state. */
static void NAME(store_map)(const Array *a, const VEC *tile, int64_t row, int64_t group,
                            int64_t n_states, int64_t first, int64_t step, int64_t n_t)
{
    REAL *to = (REAL *)a->data + row * a->stride[0] + group * a->stride[1] +
               first * a->stride[3];
    for (int64_t t = 0; t < n_t; t++)
        for (int64_t n = 0; n < n_states; n++)
            to[t * step * a->stride[3] + n * a->stride[2]] =
                NAME(sum)(tile[t * n_states + n]);
}

/* Where the token at `position` in memory stands for the task `at` and its `channel`,
 * and the strides from there in the direction of the group. */
#define PLACE_OF(array, position)                                                      \
    (REAL *)p->array.data + at.sample * p->array.stride[0] +                           \
        channel * p->array.stride[1] + (position)*p->array.stride[2],                  \
        p->array.stride[1], step * p->array.stride[2]

/* What a task works on. */
typedef struct {
    int64_t sample, group, part;
    int is_reversed;
    int64_t first_block, n_blocks; /* blocks of channels, counted within the group */
    int64_t n_chunks;
    /* Rows of the blocks: what prepare() wrote, and sums over the tokens. */
    const VEC *constants;
    VEC *sums;
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
    const int64_t row = p->state + 2;
    at.constants = (const VEC *)p->constants + (at.group * all + at.first_block) * row;
    at.sums = (VEC *)p->sums +
              ((at.sample * p->group + at.group) * all + at.first_block) * row;
    return at;
}

/* Channels of a block, fewer than LANES only in the last one of a group. */
INLINE int NAME(width)(const Problem *p, int64_t block)
{
    const int64_t rest = p->channel - block * LANES;
    return rest < LANES ? (int)rest : LANES;
}

/* Weights of the channels as vectors, once for all tasks. The row of a block holds A
 * times `factor` for each state, then D, then dt_bias; lanes without a channel are
 * zero. */
static void NAME(prepare)(const Problem *p, double factor)
{
    const int64_t N = p->state, all = (p->channel + LANES - 1) / LANES;
    memset(p->constants, 0, p->group * all * (N + 2) * sizeof(VEC));
    for (int64_t channel = 0; channel < p->group * p->channel; channel++) {
        const int64_t group = channel / p->channel, c = channel % p->channel;
        REAL *to = (REAL *)p->constants +
                   (group * all + c / LANES) * (N + 2) * LANES + c % LANES;
        const REAL *A = (REAL *)p->A.data + channel * p->A.stride[0];
        for (int64_t n = 0; n < N; n++)
            to[n * LANES] = (REAL)factor * A[n * p->A.stride[1]];
        if (p->D.data)
            to[N * LANES] = ((REAL *)p->D.data)[channel * p->D.stride[0]];
        if (p->dt_bias.data)
            to[(N + 1) * LANES] =
                ((REAL *)p->dt_bias.data)[channel * p->dt_bias.stride[0]];
    }
}

/* Sums over the samples, in a fixed order and by groups of them, into the gradients of
 * A, D and dt_bias. */
static void NAME(finish)(const Problem *p)
{
    enum { GROUP = 32 };
    const int64_t N = p->state, all = (p->channel + LANES - 1) / LANES;
    const int64_t n_rows = p->group * all, row = N + 2;
    for (int64_t i = 0; i < n_rows * row; i++) {
        VEC total = (VEC){};
        for (int64_t first = 0; first < p->batch; first += GROUP) {
            VEC sum = (VEC){};
            for (int64_t s = first; s < p->batch && s < first + GROUP; s++)
                sum += ((const VEC *)p->sums)[s * n_rows * row + i];
            total += sum;
        }
        const int64_t block = i / row, n = i % row;
        const int64_t channel = block / all * p->channel + block % all * LANES;
        const Array *to = n < N ? &p->grad_A : n == N ? &p->grad_D : &p->grad_dt_bias;
        const int width = NAME(width)(p, block % all);
        if (to->data)
            for (int c = 0; c < width; c++)
                ((REAL *)to->data)[(channel + c) * to->stride[0] +
                                   (n < N ? n * to->stride[1] : 0)] = total[c];
    }
}
