/* Causal depthwise convolution and SiLU, forward and backward; included by types.h.
 *
 *     s_t = bias + sum_j w_{k-1-j} x_{t-j},    y_t = s_t sigmoid(s_t)
 *
 * x is u of the problem, the kernels w are A (channel, tap) with `state` taps, and bias
 * is D. Nothing is kept for the backward pass but the inputs.
 */

/* Tile of x that begins n_before tokens before the chunk; before the first token of all
 * there are zeros. */
#define LOAD_WITH_PAST(tile)                                                           \
    do {                                                                               \
        const int64_t n_there = t0 < n_before ? t0 : n_before;                         \
        memset(tile, 0, (n_before - n_there) * sizeof(VEC));                           \
        NAME(load)((tile) + n_before - n_there, PLACE_OF(u, first - step * n_there),   \
                   n_t + n_there, width);                                              \
    } while (0)

INLINE VEC NAME(convolve)(const VEC *x, const VEC *kernel, int64_t n_taps)
{
    VEC s = kernel[n_taps]; /* bias */
    for (int64_t j = 0; j < n_taps; j++)
        s += kernel[n_taps - 1 - j] * x[-j];
    return s;
}

static int NAME(convolve_forward)(const Problem *p, int64_t task)
{
    const NAME(Place) at = NAME(place)(p, task);
    const int64_t T = p->chunk, n_before = p->state - 1;
    const int64_t step = at.is_reversed ? -1 : 1;
    VEC *space = NULL;
    if (posix_memalign((void **)&space, VECTOR_BYTES,
                       (2 * T + n_before) * sizeof(VEC)))
        return 1;
    VEC *x = space, *y = x + T + n_before;
    for (int64_t k = 0; k < at.n_blocks; k++) {
        const int width = NAME(width)(p, at.first_block + k);
        const int64_t channel = at.group * p->channel + (at.first_block + k) * LANES;
        const VEC *kernel = at.constants + k * (p->state + 2);
        for (int64_t t0 = 0; t0 < p->length; t0 += T) {
            const int64_t n_t = p->length - t0 < T ? p->length - t0 : T;
            const int64_t first = at.is_reversed ? p->length - 1 - t0 : t0;
            LOAD_WITH_PAST(x);
            for (int64_t t = 0; t < n_t; t++) {
                const VEC s = NAME(convolve)(x + n_before + t, kernel, p->state);
                y[t] = s * NAME(sigmoid)(s);
            }
            NAME(store)(PLACE_OF(y, first), y, n_t, width);
        }
    }
    free(space);
    return 0;
}

/* With gs the gradient of s: gw_{k-1-j} = sum_t gs_t x_{t-j}, gx_t = sum_j w_{k-1-j}
 * gs_{t+j}. Chunks run backwards; the gs of the k - 1 tokens after a chunk are kept. */
static int NAME(convolve_backward)(const Problem *p, int64_t task)
{
    const NAME(Place) at = NAME(place)(p, task);
    const int64_t T = p->chunk, n_taps = p->state, n_before = n_taps - 1;
    const int64_t step = at.is_reversed ? -1 : 1;
    const int64_t n_chunks = (p->length + T - 1) / T;
    VEC *space = NULL;
    if (posix_memalign((void **)&space, VECTOR_BYTES,
                       (3 * T + 2 * n_before) * sizeof(VEC)))
        return 1;
    VEC *x = space, *gs = x + T + n_before, *gx = gs + T + n_before;
    memset(at.sums, 0, at.n_blocks * (n_taps + 2) * sizeof(VEC));
    for (int64_t k = 0; k < at.n_blocks; k++) {
        const int width = NAME(width)(p, at.first_block + k);
        const int64_t channel = at.group * p->channel + (at.first_block + k) * LANES;
        const VEC *kernel = at.constants + k * (n_taps + 2);
        VEC *gkernel = at.sums + k * (n_taps + 2), gbias = (VEC){};
        memset(gs, 0, n_before * sizeof(VEC));
        for (int64_t chunk = n_chunks - 1; chunk >= 0; chunk--) {
            const int64_t t0 = chunk * T;
            const int64_t n_t = p->length - t0 < T ? p->length - t0 : T;
            /* The first gs of the chunk after this one. */
            memmove(gs + n_t, gs, n_before * sizeof(VEC));
            const int64_t first = at.is_reversed ? p->length - 1 - t0 : t0;
            LOAD_WITH_PAST(x);
            NAME(load)(gs, PLACE_OF(grad_y, first), n_t, width);
            for (int64_t t = 0; t < n_t; t++) {
                const VEC s = NAME(convolve)(x + n_before + t, kernel, n_taps);
                const VEC q = NAME(sigmoid)(s);
                gs[t] *= q * ((REAL)1 + s * ((REAL)1 - q));
                gbias += gs[t];
            }
            for (int64_t j = 0; j < n_taps; j++) {
                VEC sum = gkernel[n_taps - 1 - j];
                for (int64_t t = 0; t < n_t; t++)
                    sum += gs[t] * x[n_before + t - j];
                gkernel[n_taps - 1 - j] = sum;
            }
            for (int64_t t = 0; t < n_t; t++) {
                gx[t] = (VEC){};
                for (int64_t j = 0; j < n_taps; j++)
                    gx[t] += kernel[n_taps - 1 - j] * gs[t + j];
            }
            NAME(store)(PLACE_OF(grad_u, first), gx, n_t, width);
        }
        gkernel[n_taps] = gbias;
    }
    free(space);
    return 0;
}

#undef LOAD_WITH_PAST
#undef PLACE_OF
